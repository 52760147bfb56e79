"""Result tables: one per dataset, model and scenario, a row per method, a column per metric."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import pandas as pd

from supreme.experiment.run_columns import seed_columns
from supreme.experiment.statistics import Summary, seed_means, summary
from supreme.report.columns import COLUMNS, Column, decimals, extra, is_known, number
from supreme.report.labels import REFERENCES, clean, method_label, method_order, natural
from supreme.report.notes import caption, row_note, table_notes
from supreme.report.records import NOT_APPLICABLE, RUN, SEEDS, metric_names

Seeds: TypeAlias = tuple[int, int, int]
CORE = COLUMNS[:4]


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        mean: mean over seeds in the record's unit, NaN when nothing was measured.
        std: sample standard deviation over training seeds, None for a single one.
        points: the mean over forget targets and draws of every seed (training, unlearning, evaluation).
        text: the mean as printed, "-" when nothing was measured.
        spread: the standard deviation as printed, "" for a single seed.
        best: whether no method of the table has a better printed value.
    """

    mean: float
    std: float | None
    points: Mapping[Seeds, float]
    text: str
    spread: str
    best: bool = False

    @property
    def n(self) -> int:
        """Number of training seeds, the independent ones."""
        return len({training for training, _, _ in self.points})

    @property
    def label(self) -> str:
        """Mean and spread as printed."""
        return f"{self.text} ± {self.spread}" if self.spread else self.text


@dataclass(frozen=True)
class Row:
    """One method (and variant) of a table.

    Attributes:
        method: name in the records.
        variant: tells two entries of the same method apart.
        done: number of runs that succeeded.
        total: number of runs that the method should have (targets times seeds and draws of the table).
        note: number of the row's footnote, None without one.
        cells: by metric key, those that the table does not show included.
    """

    method: str
    variant: str
    done: int
    total: int
    note: int | None
    cells: Mapping[str, Cell]

    @property
    def name(self) -> str:
        """The paper's abbreviation, and the variant."""
        return method_label(self.method, self.variant)

    @property
    def count(self) -> str:
        """The share of runs that succeeded, "" when all did."""
        return f"{self.done}/{self.total}" if self.done < self.total else ""

    @property
    def reference(self) -> bool:
        """Whether the row is the original or the retrained model."""
        return self.method in REFERENCES


@dataclass(frozen=True)
class Table:
    """All methods on one dataset, model and scenario (and forget target, where that is not averaged out).

    Attributes:
        dataset: name of the dataset.
        model: name of the network.
        scenario: name of the scenario.
        target: the forget target, None when the cells are means over targets.
        columns: what is shown, in order.
        hidden: further metrics; in the rows' cells and in the CSV file only.
        rows: original, retrained, then the methods.
        caption: what the numbers are, in one sentence.
        footnotes: what the numbered marks of the rows say, from 1.
        notes: remarks on the whole table.
    """

    dataset: str
    model: str
    scenario: str
    target: str | None
    columns: tuple[Column, ...]
    hidden: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str
    footnotes: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What the table is about."""
        parts = [self.dataset, self.model, self.scenario, *([f"target {self.target}"] if self.target else [])]
        return ", ".join(clean(part, 60) for part in parts)


def tables(data: pd.DataFrame, *, per_target: bool = False) -> list[Table]:
    """Result tables of all runs in a frame.

    Values are first averaged over the forget targets and draws of a seed, then over the evaluation and unlearning seeds
    of a training seed, because runs that share M_o are not independent; mean and sample standard deviation are taken
    over training seeds. The fractions of RandomSample are different experiments, so each has a table of its own.

    Args:
        data: what :func:`supreme.report.records.frame` returns, or any selection of its rows.
        per_target: one table per forget target instead of means over targets.

    Returns:
        One table per dataset, model and scenario, in alphabetical order.
    """
    live = data[~data["superseded"].astype(bool)]
    places: dict[tuple[str, ...], list[int]] = {}
    for place, run in enumerate(live[list(RUN)].to_dict("records")):
        split = per_target or run["scenario"] == "RandomSample"
        key = (run["dataset"], run["model"], run["scenario"], *([run["target"]] if split else []))
        places.setdefault(key, []).append(place)
    order = sorted(places, key=lambda key: [natural(part) for part in key])
    return [_table(key, live.iloc[places[key]], data) for key in order]


def training_means(points: Mapping[Seeds, float]) -> dict[int, float]:
    """Means over the evaluation seeds of an unlearning seed, then over the unlearning seeds of a training seed.

    Args:
        points: a value by training, unlearning and evaluation seed.

    Example:
        >>> training_means({(1, 11, 0): 1.0, (1, 11, 1): 3.0, (1, 12, 0): 4.0, (2, 21, 0): 5.0})
        {1: 3.0, 2: 5.0}
    """
    by_model = seed_means(((training, unlearning), value) for (training, unlearning, _), value in points.items())
    return seed_means((training, value) for (training, _), value in by_model.items())


def runs_of(table: Table, data: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame that belong to a table, superseded ones included."""
    chosen = (data["dataset"] == table.dataset) & (data["model"] == table.model) & (data["scenario"] == table.scenario)
    return data[chosen if table.target is None else chosen & (data["target"] == table.target)]


def _table(key: tuple[str, ...], runs: pd.DataFrame, everything: pd.DataFrame) -> Table:
    counted = runs[runs["status"] != NOT_APPLICABLE]
    names = {(str(method), str(variant)) for method, variant in zip(counted["method"], counted["variant"], strict=True)}
    order = sorted(names, key=lambda name: method_order(*name))
    parts = [counted[(counted["method"] == method) & (counted["variant"] == variant)] for method, variant in order]
    columns, hidden = _columns(_measured(counted))
    cells = _cells(parts, [*columns, *hidden], [method in REFERENCES for method, _ in order])
    rows, footnotes = _rows(order, parts, cells, counted[["target", *seed_columns(counted)]].drop_duplicates())
    return Table(
        dataset=key[0],
        model=key[1],
        scenario=key[2],
        target=key[3] if len(key) > 3 else None,
        columns=columns,
        hidden=hidden,
        rows=rows,
        caption=caption(counted, target_named=len(key) > 3),
        footnotes=footnotes,
        notes=table_notes(runs, everything),
    )


def _measured(runs: pd.DataFrame) -> list[str]:
    done = runs[runs["status"] == "done"]
    return [name for name in metric_names(done) if done[name].notna().any()]


def _columns(measured: Iterable[str]) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Columns to show (unknown metrics at the end) and metrics for the CSV file only."""
    keys = list(measured)
    shown = [column for column in COLUMNS if column.key in keys]
    rest = [extra(key) for key in keys if all(key != column.key for column in COLUMNS)]
    unknown = sorted((column for column in rest if not is_known(column.key)), key=lambda column: column.key)
    return (*(shown or CORE), *unknown), tuple(column for column in rest if is_known(column.key))


def _rows(
    names: Sequence[tuple[str, str]],
    parts: Sequence[pd.DataFrame],
    cells: Sequence[Mapping[str, Cell]],
    expected: pd.DataFrame,
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The rows, and the footnotes that they refer to."""
    rows, footnotes = [], []
    for (method, variant), part, row_cells in zip(names, parts, cells, strict=True):
        text = row_note(method_label(method, variant), part, expected)
        if text:
            footnotes.append(text)
        done = int((part["status"] == "done").sum())
        rows.append(Row(method, variant, done, len(expected), len(footnotes) if text else None, row_cells))
    return tuple(rows), tuple(footnotes)


def _cells(
    parts: Sequence[pd.DataFrame], columns: Sequence[Column], references: Sequence[bool]
) -> list[dict[str, Cell]]:
    """The cells of every row, with decimals and best values chosen column by column."""
    points = [_points(part[part["status"] == "done"], columns) for part in parts]
    stats = [{key: summary(training_means(by_seed).values()) for key, by_seed in row.items()} for row in points]
    means = {column.key: [row[column.key].mean for row in stats] for column in columns}
    rows: list[dict[str, Cell]] = [{} for _ in parts]
    for column in columns:
        digits = decimals(column, means[column.key])
        best = _best(column, digits, means, references)
        for place, row in enumerate(rows):
            cell = _cell(column, digits, points[place][column.key], stats[place][column.key])
            row[column.key] = replace(cell, best=place in best)
    return rows


def _points(runs: pd.DataFrame, columns: Sequence[Column]) -> dict[str, dict[Seeds, float]]:
    """By metric and seed, the mean over targets and draws."""
    seeds = list(runs[list(SEEDS)].itertuples(index=False, name=None))
    present = [column.key for column in columns if column.key in runs]
    values = dict(zip(present, runs[present].to_numpy(dtype="float64").T.tolist(), strict=True))
    return {column.key: seed_means(zip(seeds, values.get(column.key, ()), strict=False)) for column in columns}


def _cell(column: Column, digits: int, points: Mapping[Seeds, float], stats: Summary) -> Cell:
    text = number(stats.mean * column.scale, digits) if stats.n else "-"
    spread = "" if stats.std is None else number(stats.std * column.scale, digits)
    return Cell(stats.mean, stats.std, points, text, spread)


def _best(column: Column, digits: int, means: Mapping[str, Sequence[float]], references: Sequence[bool]) -> set[int]:
    """Places of the rows with the best printed value; ties all win, the reference rows never take part."""
    key = f"{column.key}_gap" if column.best == "retrained" else column.key
    if column.best == "none" or key not in means:
        return set()
    sign = -1.0 if column.best == "high" else 1.0
    printed = {
        place: float(number(mean * column.scale, digits))
        for place, mean in enumerate(means[key])
        if mean == mean and not references[place]
    }
    scores = {place: sign * value if column.best in ("low", "high") else abs(value) for place, value in printed.items()}
    return {place for place, score in scores.items() if score == min(scores.values())}
