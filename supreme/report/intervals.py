"""Intervals of every mean over seeds, and letters for what cannot be told apart."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from supreme.experiment.bootstrap import interval_table
from supreme.experiment.comparison import compare, score_table, unit_means
from supreme.experiment.ranking import group_letters, indistinct_groups
from supreme.experiment.run_columns import ENTRY, SEEDS
from supreme.experiment.statistics import SINGLE
from supreme.report.columns import Column, decimals, number
from supreme.report.grid import Entry, Grid
from supreme.report.labels import clean, listing
from supreme.report.table import Row, Table

LEVEL = 0.95
REPLICATES = 2000
FEWEST = 400
WHOLE = 20  # training seeds up to which seeds nested in them are drawn REPLICATES times; time grows with both


def entry(row: Row) -> str:
    """Name of a row in the statistics: method and variant as the records have them."""
    return f"{row.method} ({row.variant})" if row.variant else row.method


def judged(column: Column) -> str:
    """The values that a column's methods are judged by: its own, or its gap where the retrained model is best."""
    return f"{column.key}_gap" if column.best == "retrained" else column.key


def compared(table: Table, runs: pd.DataFrame) -> list[Column]:
    """Columns in which one value is better than another, without those that repeat the values of another.

    Args:
        table: the result table.
        runs: its runs.
    """
    found: dict[str, Column] = {}
    for column in table.columns:
        if column.best != "none" and judged(column) in runs and runs[judged(column)].notna().any():
            found.setdefault(judged(column), column)
    return list(found.values())


def method_scores(table: Table, runs: pd.DataFrame, column: Column) -> pd.DataFrame:
    """What methods are ranked and compared by, by target and seeds: their values; of gaps the size in every run.

    Gaps are sized before anything is averaged, so that none cancel. The original and the retrained model and empty
    methods are left out.

    Args:
        table: the result table.
        runs: its runs.
        column: the metric.
    """
    scores = score_table(runs, judged(column))
    names = [entry(row) for row in table.rows if not row.reference]
    found = scores[[name for name in names if name in scores]].dropna(axis=1, how="all")
    return found.abs() if column.best in ("zero", "retrained") else found


def interval_grid(table: Table, runs: pd.DataFrame) -> tuple[Grid, dict[str, pd.DataFrame]]:
    """Mean and 95 % interval of every cell of a table, with letters: methods that share one cannot be told apart.

    Args:
        table: the result table.
        runs: its successful runs.

    Returns:
        The grid; the intervals and the comparisons of all pairs as frames.
    """
    keys = [column.key for column in table.columns if column.key in runs]
    found = interval_table(runs, keys, by=ENTRY, level=LEVEL, replicates=_replicates(runs))
    pairs = _pairs(table, runs)
    letters = {
        column.key: _letters(_order(table, runs, column), pairs[judged(column)]) for column in _with_pairs(table, pairs)
    }
    lines = {(line["method"], line["variant"], line["metric"]): line for line in found.to_dict("records")}
    means = {key: [line["mean"] for name, line in lines.items() if name[2] == key] for key in keys}
    digits = {column.key: decimals(column, means.get(column.key, [])) for column in table.columns}
    rows = tuple(
        (
            row.name,
            tuple(
                _field(column, digits[column.key], lines.get((row.method, row.variant, column.key)), row, letters)
                for column in table.columns
            ),
        )
        for row in table.rows
    )
    grid = Grid(
        "intervals",
        "Intervals and groups",
        _about(found, letters),
        ("Method", *(column.title for column in table.columns)),
        rows,
        _notes(found, pairs) + _unlettered(table, pairs, letters),
        sum(row.reference for row in table.rows),
    )
    return grid, {"intervals": found, "comparison": _long(pairs)}


def _replicates(runs: pd.DataFrame) -> int:
    """Bootstrap means of a cell: fewer where many training seeds have several seeds below them."""
    training = runs["training_seed"].nunique()
    nested = len(runs[list(SEEDS)].drop_duplicates()) > training
    return max(FEWEST, REPLICATES * WHOLE // training) if nested and training > WHOLE else REPLICATES


def _pairs(table: Table, runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Comparisons of all pairs of methods by metric, with false discoveries controlled over the pairs of a metric."""
    found = {}
    for column in compared(table, runs):
        scores = method_scores(table, runs, column)
        if len(scores.columns) > 1:
            found[judged(column)] = compare(scores, level=LEVEL)
    return found


def _with_pairs(table: Table, pairs: Mapping[str, pd.DataFrame]) -> list[Column]:
    return [column for column in table.columns if column.best != "none" and judged(column) in pairs]


def _order(table: Table, runs: pd.DataFrame, column: Column) -> list[str]:
    """Methods from best to worst."""
    means = unit_means(method_scores(table, runs, column), "training_seed").mean()
    return [str(name) for name in means.sort_values(ascending=column.best != "high", kind="stable").index]


def _letters(order: Sequence[str], pairs: pd.DataFrame) -> dict[str, str]:
    """Letters by method; none where no pair could have been told apart, or for a method without a test.

    Args:
        order: methods, the best first.
        pairs: their comparisons.
    """
    if not (pairs["smallest_p"] <= 1 - LEVEL).any():
        return {}
    known = [name for name in order if name not in _untested(pairs)]
    tested = zip(pairs["a"], pairs["b"], pairs["permutation_q"], strict=True)
    apart = [(a, b) for a, b, q in tested if q <= 1 - LEVEL and {a, b} <= set(known)]
    return group_letters(indistinct_groups(known, apart)) if len(known) > 1 else {}


def _untested(pairs: pd.DataFrame) -> set[str]:
    """Methods that share fewer than two seeds with others: those with most such pairs, until every pair has a test."""
    left, found = pairs[pairs["permutation_q"].isna()], set()
    while len(left):
        counts = pd.concat([left["a"], left["b"]]).value_counts()
        found |= {str(name) for name in counts.index[counts == counts.max()]}
        left = left[~left["a"].isin(found) & ~left["b"].isin(found)]
    return found


def _field(
    column: Column,
    digits: int,
    line: Mapping[Any, Any] | None,
    row: Row,
    letters: Mapping[str, Mapping[str, str]],
) -> Entry:
    if line is None:
        return Entry("-")
    text = number(line["mean"] * column.scale, digits)
    cell = row.cells.get(column.key)
    best = cell is not None and cell.best
    mark = letters.get(column.key, {}).get(entry(row), "")
    small = "" if math.isnan(line["t_low"]) else ends(line["t_low"], line["t_high"], column.scale, digits)
    return Entry(text, small, mark, best, float(line["mean"]))


def ends(low: float, high: float, scale: float, digits: int) -> str:
    """Both ends of an interval as printed.

    Example:
        >>> ends(0.012, float("inf"), 100, 1)
        '[1.2, ∞]'
    """
    texts = ["∞" if math.isinf(end) and end > 0 else number(end * scale, digits) for end in (low, high)]
    return f"[{texts[0]}, {texts[1]}]"


def _about(found: pd.DataFrame, letters: Mapping[str, Mapping[str, str]]) -> str:
    most = int(found["n"].max()) if len(found) else 0
    if most < 2:
        return f"Values of a {SINGLE}: there are no intervals, and no comparison of methods says anything."
    text = "Mean and 95 % interval (Student's t) over training seeds."
    if any(letters.values()):
        text += (
            " Letters are per column: methods that share one cannot be told apart (paired permutation test of all pairs"
            " over training seeds, share of false discoveries held at 5 %). Gaps are compared by their sizes in single"
            " runs."
        )
    return text


def _notes(found: pd.DataFrame, pairs: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    notes = []
    most = int(found["n"].max()) if len(found) else 0
    smallest = min((float(table["smallest_p"].min()) for table in pairs.values()), default=math.nan)
    if most > 1 and smallest > 1 - LEVEL:
        notes.append(
            f"No letters: with {most} seeds the paired test gives no p-value below {smallest:g}, so it tells no two "
            "methods apart at 5 %; with six seeds or more it can."
        )
    elif most > 1 and pairs:
        notes.append(f"Smallest p-value that the paired test can give with {most} seeds: {smallest:.2g}.")
    single = int((found["n"] == 1).sum())
    if most > 1 and single:
        notes.append(f"{single} value(s) come from a {SINGLE} and have no interval.")
    return tuple(notes)


def _unlettered(
    table: Table, pairs: Mapping[str, pd.DataFrame], letters: Mapping[str, Mapping[str, str]]
) -> tuple[str, ...]:
    """Which methods have no letter where others have."""
    lettered = {judged(column) for column in table.columns if letters.get(column.key)}
    missing = set().union(*(_untested(pairs[key]) for key in lettered))
    names = [clean(row.name, 40) for row in table.rows if entry(row) in missing]
    if not names:
        return ()
    return (
        f"Not in all groups: {listing(names, 8)}, with fewer than two training seeds in common with another method.",
    )


def _long(pairs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    tables = [table.assign(metric=key)[["metric", *table.columns]] for key, table in pairs.items()]
    names = ["metric", "a", "b", "n", "difference", "low", "high"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
