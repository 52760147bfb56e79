"""How many seeds of each kind a wanted precision costs least, from the spread and the times of a study."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from supreme.errors import DataError, SupremeError, UnknownNameError
from supreme.experiment.run_columns import ENTRY, SEEDS
from supreme.experiment.seed_planner import (
    AGAIN,
    FIRST,
    MOST,
    MOST_TRAINING,
    SeedCosts,
    SeedPlan,
    SeedVariances,
    plan_seeds,
    seed_costs,
    stage_costs,
    variances_of_mean,
)
from supreme.experiment.statistics import SINGLE, t_interval
from supreme.experiment.store import DROPPED_FILE, STAGE_FILE, read_json
from supreme.experiment.variance import Decomposition, decompose
from supreme.report.grid import Entry, Grid
from supreme.report.labels import clean, listing
from supreme.report.records import frame, metric_names, read_records
from supreme.report.table import Row, Table, runs_of, tables, training_means

METRICS = ("forget/accuracy_gap", "retain/accuracy_gap", "mia_gap")
HOUR = 3600.0
NUMBERS = ("Training seeds", "Unlearning seeds", "Evaluation seeds", "Half-width", "Half-width now", "Hours")
HEADER = ("Method", "Metric", *NUMBERS)
UNCHANGED = "the values do not change in this study, so it asks for no more than two seeds."
MATCHED = (
    "Matched seeds (each training seed has one unlearning seed) cannot be told apart, so they are planned together; a "
    "study with 'unlearning: 2' or more would say which of the two is worth repeating."
)

Records: TypeAlias = Sequence[Mapping[str, Any]]
Reader: TypeAlias = Callable[[str, str], dict[str, Any]]


def seed_grids(path: str | Path, wanted: float, metrics: Sequence[str] = ()) -> tuple[list[Grid], pd.DataFrame]:
    """The cheapest numbers of seeds whose 95 % interval of the mean is as narrow as wanted, for every method.

    The spread comes from the variance components of the study, the costs from the seconds of its stages; where the
    stages are not at hand, from ``time_s`` of the records, and evaluation seeds are then held at those of the study,
    because nothing says what more of them cost.

    Args:
        path: the output folder of a plan, or a folder of records.
        wanted: half-width of the interval, in the unit of the records (0.01 is one percentage point).
        metrics: metrics to plan for; none takes the gaps in accuracy and in the membership attack.

    Returns:
        A grid per result table, and all rows as a frame: place, method, metric, numbers of seeds, half-widths, cost,
        and the variances and costs that they were found with.

    Raises:
        DataError: if there are no records, or none has such a metric.
        UnknownNameError: if no run has a metric of that name.
    """
    records = read_records(path)
    data = frame(records)
    known = metric_names(data)
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise UnknownNameError("metric", unknown[0], known)
    chosen = list(dict.fromkeys(metrics)) or [name for name in METRICS if name in known]
    if not chosen:
        raise DataError(f"Expected one of {', '.join(METRICS)} in the records, got none; name a metric of theirs.")
    root = Path(path).parent if Path(path).name == "records" else Path(path)
    grids, rows = [], []
    for table in tables(data):
        runs = runs_of(table, data)
        runs = runs[~runs["superseded"].astype(bool)]
        costs, source = _costs(runs, records, root)
        lines = [_line(table, row, runs, name, wanted, costs) for row, name in _asked(table, chosen)]
        grids.append(_grid(table, lines, wanted, costs, source))
        rows += [{**line, "costs_from": source} for line in lines]
    return grids, pd.DataFrame(rows).drop(columns="name", errors="ignore")


def _asked(table: Table, metrics: Sequence[str]) -> list[tuple[Row, str]]:
    """Methods and those of the metrics that they have; the original and the retrained model are no methods."""
    rows = [row for row in table.rows if not row.reference]
    return [(row, name) for row in rows for name in metrics if name in row.cells and row.cells[name].n]


def _line(
    table: Table, row: Row, runs: pd.DataFrame, metric: str, wanted: float, costs: SeedCosts | None
) -> dict[str, Any]:
    """One method and metric; without numbers of seeds where the study cannot tell them, and then why."""
    mine = runs[(runs["method"] == row.method) & (runs["variant"] == row.variant) & (runs["status"] == "done")]
    found = decompose(mine, metric, replicates=1)
    now = t_interval(training_means(row.cells[metric].points).values()).half_width
    line: dict[str, Any] = {"dataset": table.dataset, "model": table.model, "scenario": table.scenario}
    line |= {"target": table.target or "", "method": row.method, "variant": row.variant, "name": row.name}
    line |= {"metric": metric, "wanted": wanted, "half_width_now": math.nan if now is None else now}
    variances, plan, note = _planned(found, costs, wanted, mine)
    line |= {name: getattr(plan, name, math.nan) for name in ("training", "unlearning", "evaluation", "half_width")}
    line |= {"runs": getattr(plan, "runs", math.nan), "hours": plan.cost_s / HOUR if plan else math.nan}
    for kind in SeedVariances._fields:
        line |= {f"variance_{kind}": getattr(variances, kind, math.nan), f"cost_{kind}_s": getattr(costs, kind, None)}
    return {**line, "matched": any("training+" in one.name for one in found.components), "note": note}


def _planned(
    found: Decomposition, costs: SeedCosts | None, wanted: float, runs: pd.DataFrame
) -> tuple[SeedVariances | None, SeedPlan | None, str]:
    """Variances and the cheapest plan, or in one sentence why there is none."""
    if runs["training_seed"].nunique() < 2:
        return None, None, f"{SINGLE}: the spread over training seeds is not known; run two or more of them."
    if costs is None:
        return None, None, "the costs are not known: no time of a Retrain run; run Retrain in the plan."
    most = MOST if costs.evaluation else int(runs.groupby(list(SEEDS[:2]))[SEEDS[2]].nunique().max())
    try:
        variances = variances_of_mean(found)
        plan = plan_seeds(variances, costs, wanted, most=(MOST_TRAINING, MOST, most))
    except SupremeError as error:
        return None, None, str(error)
    return variances, plan, "" if sum(variances) else UNCHANGED


# --- what seeds cost


def _costs(runs: pd.DataFrame, records: Records, root: Path) -> tuple[SeedCosts | None, str]:
    """Costs of seeds, and where they come from; none where neither stages nor times are known."""
    read = lru_cache(maxsize=None)(partial(_description, root))
    rows = [
        row
        for place, run in zip(runs.index, runs.to_dict("records"), strict=True)
        for row in _stages(records[int(place)], run, read)
    ]
    with suppress(DataError):
        return stage_costs(pd.DataFrame(rows, columns=["kind", "entry", "key", "seconds", *SEEDS])), "stages"
    with suppress(DataError):
        return seed_costs(runs if "time_s" in runs else runs.assign(time_s=math.nan)), "time_s"
    return None, "nothing"


def _stages(record: Mapping[str, Any], run: Mapping[Any, Any], read: Reader) -> Iterator[tuple[Any, ...]]:
    """The stages of a run as rows of what :func:`supreme.experiment.seed_planner.stage_costs` takes."""
    keys: dict[str, str] = {str(name): str(key) for name, key in (record.get("stages") or {}).items()}
    name = " ".join(str(run[column]) for column in ENTRY)
    inputs = read("evaluate", keys.get("evaluate", "")).get("inputs") or {}
    found = [("train", "train", ""), ("importances", "importances", ""), ("retrain", "unlearn", "")]
    if keys.get("unlearn") not in (keys.get("train"), keys.get("retrain")):
        found.append(("unlearn", "unlearn", name))
    evaluation = (AGAIN if "first" in inputs else FIRST, "evaluate", name)
    outputs = [(role, "outputs", "") for role in ("original_outputs", "retrained_outputs")]
    keys |= {role: inputs[role] for role, _, _ in outputs if role in inputs} | {evaluation[0]: keys.get("evaluate", "")}
    for kind, folder, own in (*found, *outputs, evaluation):
        if keys.get(kind):
            seconds = read(folder, keys[kind]).get("seconds")
            yield (kind, own, keys[kind], math.nan if seconds is None else seconds, *(run[seed] for seed in SEEDS))


def _description(root: Path, folder: str, key: str) -> dict[str, Any]:
    """What a stage says of itself, also of a dropped one; nothing where it is not at hand."""
    place = root / "stages" / folder / key
    files = [place / name for name in (STAGE_FILE, DROPPED_FILE) if key and (place / name).is_file()]
    try:
        return read_json(files[0]) if files else {}
    except (OSError, ValueError):
        return {}


# --- the table


def _grid(
    table: Table, lines: Sequence[Mapping[str, Any]], wanted: float, costs: SeedCosts | None, source: str
) -> Grid:
    rows = tuple((str(line["name"]), _fields(line)) for line in lines)
    about = (
        f"The cheapest numbers of seeds whose mean has a 95 % interval of ± {wanted:g} (unit of the records: 0.01 is "
        "one percentage point): training seeds, unlearning seeds per training seed, evaluation seeds per unlearning "
        "seed. Hours are those of one worker for this whole table, with M_o, M_r and every method on every target. The "
        "variances are those of this study and are taken as true: from few seeds they are rough."
    )
    matched = [MATCHED] if any(line["matched"] for line in lines) else []
    return Grid("seeds", table.title, about, HEADER, rows, (*_prices(costs, source), *matched, *_reasons(lines)))


def _reasons(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be known of some rows or of all, each sentence once."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line["note"]:
            found.setdefault(line["note"], []).append(f"{line['name']} ({line['metric']})")
    return [f"{'All rows' if len(names) == len(lines) else listing(names)}: {note}" for note, names in found.items()]


def _prices(costs: SeedCosts | None, source: str) -> list[str]:
    if costs is None:
        return []
    each = ", ".join(f"{kind} seed {_hours(one / HOUR)}" for kind, one in zip(costs._fields, costs, strict=True))
    if source == "stages":
        return [f"Hours per seed, from the seconds of the stages: {each}."]
    return [
        f"Hours per seed, from time_s of the records, since the stages are not at hand: {each}; evaluations are not "
        "counted, and there are no more evaluation seeds than in this study."
    ]


def _fields(line: Mapping[str, Any]) -> tuple[Entry, ...]:
    return (
        Entry(clean(line["metric"])),
        *(_entry(line[kind], "{:.0f}") for kind in SeedVariances._fields),
        _entry(line["half_width"], "{:.3g}"),
        _entry(line["half_width_now"], "{:.3g}"),
        Entry("-") if math.isnan(line["hours"]) else Entry(_hours(line["hours"]), value=line["hours"]),
    )


def _entry(value: float, form: str) -> Entry:
    return Entry("-") if math.isnan(value) else Entry(form.format(value), value=float(value))


def _hours(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 or not value else f"{value:.2g}"
