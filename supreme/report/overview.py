"""Forgetting, utility, privacy and cost of every method side by side, each with its place among the methods."""

import math

import pandas as pd

from supreme.experiment.statistics import SINGLE, summary
from supreme.report.columns import number
from supreme.report.grid import Entry, Grid
from supreme.report.intervals import entry
from supreme.report.sizes import mean_sizes
from supreme.report.table import Row, Table, training_means

ASPECTS = (
    ("forgetting", "Forgetting: mean |gap| (points)", "forget/accuracy_gap"),
    ("utility", "Utility: mean |gap| (points)", "retain/accuracy_gap"),
    ("privacy", "Privacy: mean |MIA gap| (points)", "mia_gap"),
    ("cost", "Cost: time (% of Retrain)", "time_s"),
)
ABOUT = (
    "How far each method is from the retrained model M_r: in accuracy on the forget set (forgetting) and on the retain "
    "set (utility), and in the share that a membership attack takes for training images (privacy), as the mean of the "
    "absolute gaps of single runs in percentage points, so that gaps of different sign do not cancel; and what it "
    "costs. 0 is best throughout; small: place among the methods."
)


def overview_grid(table: Table, runs: pd.DataFrame) -> tuple[Grid, dict[str, pd.DataFrame]]:
    """Four numbers per method: means over targets, then over seeds, as in the result table; of gaps the sizes.

    Args:
        table: the result table.
        runs: its successful runs.

    Returns:
        The grid, and its numbers as a frame ``"overview"``: method, aspect, value in percent, place (1 is best).
    """
    gold = next((_time(row) for row in table.rows if row.method == "Retrain"), math.nan)
    lines, columns = [], []
    for aspect, title, key in ASPECTS:
        values = {entry(row): _percent(row, runs, key, gold) for row in table.rows if not row.reference}
        ranked = pd.Series(values, dtype=float).round(6).rank(method="min")
        if ranked.notna().any():
            columns.append((aspect, title))
            lines += [(name, aspect, value, ranked[name]) for name, value in values.items()]
    frame = pd.DataFrame(lines, columns=["method", "aspect", "percent", "place"]).dropna()
    found = {(line.method, line.aspect): line for line in frame.itertuples()}
    rows = tuple(
        (row.name, tuple(_field(found.get((entry(row), aspect))) for aspect, _ in columns))
        for row in table.rows
        if any((entry(row), aspect) in found for aspect, _ in columns)
    )
    header = ("Method", *(title for _, title in columns))
    about = ABOUT + (f" Values of a {SINGLE}." if runs["training_seed"].nunique() == 1 else "")
    return Grid("overview", "Forgetting, utility, privacy, cost", about, header, rows), {"overview": frame}


def _time(row: Row) -> float:
    return row.cells["time_s"].mean if "time_s" in row.cells else math.nan


def _percent(row: Row, runs: pd.DataFrame, key: str, gold: float) -> float:
    if key == "time_s":
        return 100 * _time(row) / gold if gold else math.nan
    return 100 * summary(training_means(mean_sizes(row, runs, [key])).values()).mean


def _field(line: object) -> Entry:
    if line is None:
        return Entry("-")
    value, place = float(getattr(line, "percent")), int(getattr(line, "place"))  # noqa: B009 - a named tuple of pandas
    return Entry(number(value, 2 if value < 10 else 1), str(place), "", place == 1, value)
