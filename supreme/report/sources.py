"""Where the spread of a value comes from, as a table and as stacked bars."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from supreme.experiment.run_columns import ENTRY, seed_columns
from supreme.experiment.variance import variance_table
from supreme.report.columns import COLUMNS, Column, extra
from supreme.report.figure import COLOURS, LINE, TEXT, WIDTH, Plot, drawn, style
from supreme.report.grid import Entry, Grid
from supreme.report.intervals import entry
from supreme.report.labels import clean
from supreme.report.table import Row, Table

_VALUES = ("forget/accuracy", "retain/accuracy", "mia", "mia_auc")  # the last draws on the evaluation seed
METRICS = (*_VALUES, *(f"{key}_gap" for key in _VALUES))
REPLICATES = 1000
JOINT = " Joint names such as training+unlearning: the seeds are matched, so they cannot be told apart."
HEADER = ("method", "variant", "metric", "component", "variance", "share", "low", "high", "levels", "note")


def source_grid(table: Table, runs: pd.DataFrame) -> tuple[Grid, dict[str, pd.DataFrame]]:
    """Variance components of every method: which part of the spread each kind of seed and the target make.

    Args:
        table: the result table.
        runs: its successful runs.
    """
    known = [key for key in METRICS if key in runs and runs[key].notna().any()]
    several = len(runs[[*seed_columns(runs), "target"]].drop_duplicates()) > 1
    found = variance_table(runs, known if several else [], by=ENTRY, replicates=REPLICATES)
    columns = {column.key: column for column in COLUMNS}
    found = found[(found["method"] != "Retrain") | ~found["metric"].str.endswith("_gap")].reset_index(drop=True)
    parts: dict[Any, list[Any]] = {}
    for line in found.to_dict("records"):
        parts.setdefault((line["method"], line["variant"]), []).append(line)
    rows = [
        (row.name, _fields(columns.get(line["metric"]) or extra(line["metric"]), line))
        for row in table.rows
        for line in parts.get((row.method, row.variant), ())
        if line["metric"] in _drawn(known)
    ]
    header = ("Method", "Metric", "Source", "Standard deviation", "Share", "Levels", "Note")
    about = _about(found)
    return Grid("variance", "Sources of spread", about, header, tuple(rows), (), 0, folded=True), {"variance": found}


def _drawn(known: Sequence[str]) -> list[str]:
    """Gaps where they were measured, else the values themselves."""
    return [key for key in known if f"{key}_gap" not in known]


def _about(found: pd.DataFrame) -> str:
    if found.empty:
        return "A single seed and target: nothing can be said about where spread comes from."
    joint = any("+" in str(name) for name in found["component"])
    return (
        "Random-effects variance components (mean squares where balanced, else REML) with 95 % intervals of the "
        "standard deviation; shares are of the summed variance." + (JOINT if joint else "")
    )


def _fields(column: Column, line: Mapping[str, Any]) -> tuple[Entry, ...]:
    std, low, high = (_root(line[name], column.scale) for name in ("variance", "low", "high"))
    interval = "" if math.isnan(low) else f"[{_plain(low)}, {_plain(high)}]"
    share = line["share"]
    return (
        Entry(column.title),
        Entry(line["component"]),
        Entry("-" if math.isnan(std) else _plain(std), interval, value=std),
        Entry("-" if math.isnan(share) else f"{100 * share:.0f} %", value=share),
        Entry(str(line["levels"]), value=float(line["levels"])),
        Entry(line["note"] or ""),
    )


def _root(variance: float, scale: float) -> float:
    return math.nan if math.isnan(variance) else scale * math.sqrt(variance)


def _plain(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.2f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def source_plot(table: Table, found: pd.DataFrame) -> Plot | None:
    """Stacked bars: how much of each method's variance every source makes.

    Args:
        table: the result table.
        found: the frame of :func:`source_grid`.
    """
    keys = _drawn(list(dict.fromkeys(found["metric"])))
    known = found[found["metric"].isin(keys) & (found["variance"] > 0)]
    rows = [row for row in table.rows if entry(row) in set(_entries(known))]
    if known.empty:
        return None
    names = list(dict.fromkeys(known["component"]))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    columns = {column.key: column for column in COLUMNS}
    with style():
        figure = Figure(figsize=(WIDTH, 1.1 + len(keys) * (0.6 + 0.24 * len(rows))), layout="constrained")
        axes = figure.subplots(len(keys), 1, squeeze=False)[:, 0]
        for axis, key in zip(axes, keys, strict=True):
            column = columns.get(key) or extra(key)
            _bars(axis, rows, found[found["metric"] == key], colours, column)
            axis.set_title(clean(column.title, 40), loc="left", fontweight="bold")
        axes[-1].set_xlabel("share of the variance (%)")
        handles = [Patch(facecolor=colour) for colour in colours.values()]
        figure.legend(handles, names, loc="outside lower center", ncols=2 if len(names) > 1 else 1, fontsize=8.5)
        about = (
            "How much of the variance of a value each source makes; on the right the whole standard deviation, in the "
            "unit of the metric. Hatched: the values do not change."
        )
        data = list(found[found["metric"].isin(keys)][list(HEADER)].itertuples(index=False, name=None))
        return drawn("variance", "Sources of spread", about, HEADER, data, figure)


def _entries(found: pd.DataFrame) -> list[str]:
    pairs = zip(found["method"], found["variant"], strict=True)
    return [f"{method} ({variant})" if variant else str(method) for method, variant in pairs]


def _bars(axis: Axes, rows: Sequence[Row], found: pd.DataFrame, colours: Mapping[str, str], column: Column) -> None:
    for place, row in enumerate(rows):
        mine = found[(found["method"] == row.method) & (found["variant"] == row.variant)]
        total = float(np.nansum(mine["variance"].to_numpy(dtype=np.float64)))
        left = 0.0
        for line in mine.to_dict("records"):
            if line["variance"] > 0:
                share = 100 * line["variance"] / total
                axis.barh(place, share, left=left, color=colours[line["component"]], height=0.7)
                left += share
        if not total and len(mine):
            axis.barh(place, 100, color="none", edgecolor=LINE, hatch="////", height=0.7, linewidth=0.5)
        axis.text(101.5, place, f"{_plain(column.scale * math.sqrt(total))}", va="center", color=TEXT, fontsize=8)
    axis.set_yticks(range(len(rows)), [clean(row.name, 28) for row in rows])
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 110))
    axis.set_xticks([0, 25, 50, 75, 100])
    axis.tick_params(axis="y", length=0)
