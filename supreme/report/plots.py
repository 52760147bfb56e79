"""Plots of one result table, each with the numbers that it shows: distributions, gaps, and cost against quality."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from supreme.experiment.statistics import summary
from supreme.report.distributions import distribution_plot, has, names
from supreme.report.figure import ABOVE, BELOW, COLOURS, LINE, MARKERS, TEXT, WIDTH, Plot, drawn, style, themed
from supreme.report.sizes import mean_sizes
from supreme.report.table import Cell, Table, runs_of, training_means

__all__ = ["GAPS", "LINE", "TEXT", "Plot", "plots", "themed"]

GAPS = {
    "forget/accuracy_gap": "forget\naccuracy",
    "retain/accuracy_gap": "retain\naccuracy",
    "whole/accuracy_gap": "whole\naccuracy",
    "mia_gap": "MIA",
    "forget/zrf_gap": "ZRF",
}
SIZED = ("forget/accuracy_gap", "retain/accuracy_gap")


def plots(table: Table, data: pd.DataFrame) -> list[Plot]:
    """All plots of a table for which it has the numbers.

    Args:
        table: one of the result tables.
        data: the frame that it was made of.

    Returns:
        Distributions over seeds, gap heat map, cost against quality; less those without data.
    """
    runs = runs_of(table, data)
    runs = runs[(runs["status"] == "done") & ~runs["superseded"].astype(bool)]
    with style():
        found = [distribution_plot(table), _gaps(table), _cost(table, runs)]
    return [plot for plot in found if plot is not None]


def _gaps(table: Table) -> Plot | None:
    keys = [key for key in GAPS if any(has(row, key) for row in table.rows if row.method != "Retrain")]
    rows = [row for row in table.rows if row.method != "Retrain" and any(has(row, key) for key in keys)]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * len(rows)), layout="constrained")
    axis = figure.subplots()
    data: list[tuple[Any, ...]] = []
    for y, row in enumerate(rows):
        for x, key in enumerate(keys):
            cell = row.cells.get(key)
            if cell is None or not cell.n:
                axis.text(x, y, "-", ha="center", va="center")
                continue
            _tile(axis, x, y, 100 * cell.mean)
            data.append((row.method, row.variant, key, cell.mean, cell.std, cell.n))
    axis.set_xticks(range(len(keys)), [GAPS[key] for key in keys])
    axis.set_yticks(range(len(rows)), names(rows))
    axis.set(xlim=(-0.5, len(keys) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    about = (
        "Mean signed difference to the retrained model M_r in percentage points; red: above M_r, blue: below, pale: "
        "near it on average (gaps of different sign cancel)."
    )
    return drawn("gaps", "Mean signed gaps", about, ("method", "variant", "metric", "mean", "std", "n"), data, figure)


def _tile(axis: Axes, x: int, y: int, points: float) -> None:
    """One cell of the heat map; its strength grows with the logarithm of the gap, so that small gaps differ too."""
    strength = min(1.0, math.log1p(abs(points)) / math.log1p(100.0)) if math.isfinite(points) else 1.0
    colour = ABOVE if points > 0 else BELOW
    axis.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour, alpha=0.7 * strength, linewidth=0))
    text = f"{points:+.1f}" if f"{points:.1f}" not in ("0.0", "-0.0") else "0.0"
    axis.text(x, y, text, ha="center", va="center", fontsize=8.5)


def _cost(table: Table, runs: pd.DataFrame) -> Plot | None:
    found = [(row, mean_sizes(row, runs, SIZED)) for row in table.rows if not row.reference and has(row, "time_s")]
    found = [(row, sizes) for row, sizes in found if sizes and 0 < row.cells["time_s"].mean < math.inf]
    if not found:
        return None
    figure = Figure(figsize=(WIDTH, 3.1 + 0.2 * math.ceil(len(found) / 3)), layout="constrained")
    axis = figure.subplots()
    data: list[tuple[Any, ...]] = []
    for place, (row, sizes) in enumerate(found):
        time, quality = row.cells["time_s"], summary(100 * size for size in training_means(sizes).values())
        style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "ms": 6, "lw": 1}
        style["fmt"] = MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
        bars: dict[str, Any] = {"xerr": _bar(time), "yerr": quality.std or 0.0}
        axis.errorbar(time.mean, quality.mean, **bars, **style, label=f" {names([row])[0]}")
        data.append((row.method, row.variant, time.mean, time.std, quality.mean, quality.std, quality.n))
    _front(axis, data)
    _cost_axes(axis, table, max(point[4] for point in data))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, handletextpad=0.2, columnspacing=1.0)
    front = pareto([(point[2], point[4]) for point in data])
    data = [(*point, int(place in front)) for place, point in enumerate(data)]
    about = (
        "Time of the method against the mean of the absolute accuracy gaps (forget, retain) of its runs; best is lower "
        "left. Dotted: the Pareto front, methods that no other beats in both."
    )
    header = ("method", "variant", "time_s_mean", "time_s_std", "gap_points_mean", "gap_points_std", "n", "pareto")
    return drawn("cost", "Cost against quality", about, header, data, figure)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other is at least as low as in both values and lower in one.

    Args:
        points: pairs of values, both best when low.

    Returns:
        The places, by first value.

    Example:
        >>> pareto([(1.0, 5.0), (2.0, 6.0), (3.0, 1.0)])
        [0, 2]
    """

    def beaten(point: tuple[float, float]) -> bool:
        return any(x <= point[0] and y <= point[1] and (x, y) != point for x, y in points)

    return sorted((place for place, point in enumerate(points) if not beaten(point)), key=lambda place: points[place])


def _front(axis: Axes, data: Sequence[tuple[Any, ...]]) -> None:
    """The Pareto front as steps."""
    points = [(point[2], point[4]) for point in data]
    front = [points[place] for place in pareto(points)]
    if len(front) > 1:
        axis.step(*zip(*front, strict=True), where="post", color=TEXT, lw=1.0, ls=":", zorder=0)


def _cost_axes(axis: Axes, table: Table, highest: float) -> None:
    axis.set_xscale("log")
    axis.set_yscale("symlog", linthresh=1.0, linscale=0.5)
    axis.set_ylim(bottom=0.0, top=max(2.0, highest * 1.6))
    axis.yaxis.set_major_locator(FixedLocator([0, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axis.yaxis.set_minor_locator(FixedLocator([]))
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_major_formatter(plain)
    axis.yaxis.set_major_formatter(plain)
    axis.xaxis.set_minor_formatter(NullFormatter())
    retrain = next((row.cells.get("time_s") for row in table.rows if row.method == "Retrain"), None)
    if retrain and retrain.n and retrain.mean > 0:
        axis.axvline(retrain.mean, color=TEXT, lw=0.8, ls=(0, (4, 3)), zorder=0)
        axis.annotate(
            "M_r",
            (retrain.mean, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -3),
            textcoords="offset points",
            ha="right",
            va="top",
        )
    axis.set_xlabel("time (s)")
    axis.set_ylabel("mean |accuracy gap| of a run (points)")
    axis.grid()
    axis.set_axisbelow(True)


def _bar(cell: Cell) -> float:
    """Half length of an error bar that stays right of zero on a logarithmic axis."""
    return min(cell.std or 0.0, 0.99 * cell.mean)
