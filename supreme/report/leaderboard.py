"""A leaderboard from records: every row says which plan, seeds and records it stands on."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from supreme.errors import DataError
from supreme.experiment.bootstrap import interval_table
from supreme.experiment.run_columns import ENTRY, SEEDS
from supreme.experiment.statistics import SINGLE
from supreme.report.columns import COLUMNS, Column, decimals, number
from supreme.report.grid import Entry, Grid
from supreme.report.intervals import ends
from supreme.report.labels import clean, listing, method_label, natural
from supreme.report.present import hashes
from supreme.report.records import describe, every_record, frame
from supreme.report.table import Row, Table, runs_of, tables

_log = logging.getLogger(__name__)
QUALITY = Column("gap_size", "Mean |gap| (points)", scale=100.0, digits=2, best="low")
SHOWN = ("forget/accuracy_gap", "retain/accuracy_gap", "mia_gap", "time_s")
PLACE = ("dataset", "model", "training", "scenario", "target")
_HERE = ("root", "num_workers")  # arguments of a dataset that say where it lies, not what it is
ORIGIN = ("plan", "plan_hash", "configuration", "seeds", "runs", "records")


def leaders(paths: Sequence[str | Path]) -> tuple[list[Grid], pd.DataFrame]:
    """Methods in order of their mean absolute accuracy gap (forget and retain), from records alone.

    Only models of the same data, network and training are compared: what a plan calls ``ImageFolder`` and ``ResNet18``
    is shown with its arguments. Plans are never mixed in a row: a method that two plans ran has two rows. The plan of a
    record is the one whose hash the run wrote into it, and that plan has to be in ``plans`` beside the records.

    Args:
        paths: output folders of plans; a record that is in two of them counts once. A folder without ``records`` in it
            is skipped, and a line of the log says so.

    Returns:
        One grid per dataset, model, training and scenario, and all rows as a frame: place, method, mean and 95 %
        interval (Student's, over training seeds) of every value, the plan's name and hash, a hash of the
        configurations, the seeds, the number of runs and the keys of the records.

    Raises:
        DataError: if no folder has records, or one cannot be read or is of no plan beside it.
    """
    places: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for (_, digest), records in _by_plan(paths).items():
        data = frame(records)
        found = tables(data)
        data = data.assign(plan_hash=digest, **{QUALITY.key: _quality(data)})
        for table in found:
            given = _given(table, records)
            for line in _lines(table, runs_of(table, data)):
                line |= given
                places.setdefault(tuple(line[name] for name in PLACE), []).append(line)
    grids, rows = [], []
    for place in sorted(places, key=lambda names: [natural(name) for name in names]):
        lines = sorted(places[place], key=_badness)
        alike = [other for other in places if _brief(other) == _brief(place)]
        grids.append(_grid(place if len(alike) > 1 else _brief(place), lines))
        rows += lines
    return grids, pd.DataFrame(rows)


def _brief(place: tuple[str, ...]) -> tuple[str, ...]:
    """A place without its training."""
    return tuple(name for key, name in zip(PLACE, place, strict=True) if key != "training")


def _by_plan(paths: Sequence[str | Path]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Records by the name and the hash of their plan, each record once."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    seen: set[tuple[str, str]] = set()
    for path in _with_records(paths):
        folder = path.parent if path.name == "records" else path
        plans = hashes(folder)
        for record in every_record(path):
            _check(record, plans, folder)
            name = (str(record.get("key")), str(record.get("finished")))
            if name not in seen:
                seen.add(name)
                found.setdefault((str(record.get("plan") or ""), record["plan_hash"]), []).append(record)
    return found


def _with_records(paths: Sequence[str | Path]) -> list[Path]:
    """The folders that hold records; all of them where none does, so that the first is refused."""
    folders = [Path(path) for path in paths]
    empty = [path for path in folders if path.is_dir() and path.name != "records" and not (path / "records").is_dir()]
    if len(empty) == len(folders):
        return folders
    for path in empty:
        _log.warning("Skipped '%s': it has no folder 'records'.", path)
    return [path for path in folders if path not in empty]


def _check(record: Mapping[str, Any], plans: Mapping[str, Path], folder: Path) -> None:
    """Refuse a record that no plan beside it has made as it is now.

    Raises:
        DataError: if its hash of the plan is missing or another one, or its configuration is missing.
    """
    digest = record.get("plan_hash")
    if digest not in plans:
        got = f"plan_hash '{digest}'" if digest else "none"
        raise DataError(
            f"Expected the hash of a plan in '{folder / 'plans'}' in record '{record.get('key')}' (plan "
            f"'{record.get('plan')}'), got {got}; do 'supreme run' with the whole plan, which computes only what is "
            "missing, and take records/ and plans/ of its output folder."
        )
    if not isinstance(record.get("config"), Mapping):
        raise DataError(
            f"Expected the configuration of its run ('config') in record '{record.get('key')}' of '{folder}', got "
            "none; take the records as 'supreme run' wrote them."
        )


def _given(table: Table, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Dataset and network with their arguments, and a hash of the training."""
    name = table.dataset, table.model
    config = next(one["config"] for one in records if (one["run"]["dataset"], one["run"]["model"]) == name)
    training = hashlib.sha256(json.dumps(config.get("training"), sort_keys=True).encode()).hexdigest()[:8]
    dataset, network = ((config.get(part) or {}).get("init_args") or {} for part in ("dataset", "network"))
    dataset = {key: value for key, value in dataset.items() if key not in _HERE}
    return {
        "dataset": f"{table.dataset} ({describe(dataset)})" if dataset else table.dataset,
        "model": f"{table.model} ({describe(network)})" if network else table.model,
        "training": f"training {training}",
    }


def _quality(data: pd.DataFrame) -> "pd.Series[float] | float":
    """The mean absolute gap of every run."""
    gaps = ["forget/accuracy_gap", "retain/accuracy_gap"]
    return data[gaps].abs().mean(axis=1, skipna=False) if set(gaps) <= set(data.columns) else math.nan


def _badness(line: Mapping[str, Any]) -> float:
    size = line.get(f"{QUALITY.key}_mean")
    return math.inf if _missing(size) else float(size or 0.0)


def _lines(table: Table, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """One line per method with at least one successful run."""
    runs = runs[(runs["status"] == "done") & ~runs["superseded"].astype(bool)]
    keys = [key for key in (QUALITY.key, *SHOWN) if key in runs and runs[key].notna().any()]
    if not keys or runs.empty:
        return []
    found = interval_table(runs, keys, by=ENTRY, replicates=0).to_dict("records")
    values = {(line["method"], line["variant"], line["metric"]): line for line in found}
    lines = []
    for row in table.rows:
        mine = runs[(runs["method"] == row.method) & (runs["variant"] == row.variant)]
        if row.reference or mine.empty:
            continue
        line: dict[str, Any] = dict.fromkeys(PLACE, "") | {"scenario": table.scenario, "target": table.target or ""}
        line |= {"method": row.method, "variant": row.variant}
        for key in keys:
            one = values.get((row.method, row.variant, key), {})
            line |= {f"{key}_{name}": one.get(source) for name, source in _STATISTICS.items()}
        lines.append(line | _origin(row, mine))
    return lines


_STATISTICS = {"mean": "mean", "low": "t_low", "high": "t_high", "n": "n"}


def _missing(value: Any) -> bool:
    return value is None or math.isnan(value)


def _origin(row: Row, runs: pd.DataFrame) -> dict[str, Any]:
    """Where a row comes from."""
    configurations = json.dumps(sorted(runs["config_hash"]))
    seeds = sorted(set(runs[list(SEEDS)].itertuples(index=False, name=None)))
    return {
        "plan": " ".join(sorted(set(runs["plan"]))),
        "plan_hash": " ".join(sorted(set(runs["plan_hash"]))),
        "configuration": hashlib.sha256(configurations.encode()).hexdigest()[:16],
        "seeds": " ".join(str(seed[0]) if len(set(seed)) == 1 else "/".join(map(str, seed)) for seed in seeds),
        "runs": f"{row.done}/{row.total}",
        "records": " ".join(sorted(runs["key"])),
    }


def _grid(names: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> Grid:
    known = {column.key: column for column in COLUMNS} | {QUALITY.key: QUALITY}
    columns = [known[key] for key in (QUALITY.key, *SHOWN) if _means(lines, key)]
    digits = {one.key: decimals(one, _means(lines, one.key)) for one in columns}
    rows = tuple(
        (
            f"{place}. {method_label(line['method'], line['variant'])}",
            (
                *(_field(one, digits[one.key], line) for one in columns),
                Entry(_seeds(line["seeds"].split()), f"{line['runs']} runs"),
                Entry(clean(line["plan"], 30), line["plan_hash"]),
                Entry(line["configuration"]),
            ),
        )
        for place, line in enumerate(lines, start=1)
    )
    single = any(len({seed.split("/")[0] for seed in line["seeds"].split()}) == 1 for line in lines)
    about = "In order of the mean absolute accuracy gap to M_r (forget and retain); 95 % intervals over training seeds."
    notes = (f"Rows without an interval stand on a {SINGLE}.",) if single else ()
    header = ("Method", *(one.title for one in columns), "Seeds", "Plan", "Configurations")
    title = ", ".join(clean(name, 90) for name in names if name)
    return Grid("leaderboard", title, about, header, rows, notes)


def _seeds(triples: Sequence[str]) -> str:
    """Training seeds and, of several, how many unlearning and evaluation seeds there are; the CSV has them all.

    Example:
        >>> _seeds(["7", "8"]), _seeds(["7/7000/7000000", "7/7001/7001000", "8/8000/8000000", "8/8001/8001000"])
        ('7, 8', '7, 8; 4 unlearning, 4 evaluation')
    """
    training = list(dict.fromkeys(triple.partition("/")[0] for triple in triples))
    unlearning = {triple.rpartition("/")[0] or triple for triple in triples}
    text = listing(training, 6)
    more = len(triples) > len(training)
    return f"{text}; {len(unlearning)} unlearning, {len(triples)} evaluation" if more else text


def _means(lines: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [line[f"{key}_mean"] for line in lines if not _missing(line.get(f"{key}_mean"))]


def _field(column: Column, digits: int, line: Mapping[str, Any]) -> Entry:
    mean, low, high = (line.get(f"{column.key}_{name}") for name in ("mean", "low", "high"))
    if mean is None or low is None or high is None or _missing(mean):
        return Entry("-")
    small = SINGLE if _missing(low) else ends(low, high, column.scale, digits)
    return Entry(number(mean * column.scale, digits), small, value=float(mean))
