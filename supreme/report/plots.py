"""Plots of one result table, each with the numbers that it shows: accuracies, gaps, and cost against quality."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from supreme.experiment.statistics import summary
from supreme.report.figure import ABOVE, ACCENT, BELOW, COLOURS, LINE, MARKERS, TEXT, WIDTH, Plot, drawn, style, themed
from supreme.report.labels import clean
from supreme.report.table import Cell, Row, Table, training_means

__all__ = ["GAPS", "LINE", "TEXT", "Plot", "plots", "themed"]

GAPS = {
    "forget/accuracy_gap": "forget\naccuracy",
    "retain/accuracy_gap": "retain\naccuracy",
    "whole/accuracy_gap": "whole\naccuracy",
    "mia_gap": "MIA",
    "forget/zrf_gap": "ZRF",
}


def plots(table: Table) -> list[Plot]:
    """All plots of a table for which it has the numbers.

    Args:
        table: one of the result tables.

    Returns:
        Accuracy per method, gap heat map, cost against quality; less those without data.
    """
    with style():
        found = [_accuracy(table), _gaps(table), _cost(table)]
    return [plot for plot in found if plot is not None]


def _accuracy(table: Table) -> Plot | None:
    keys = {"forget": "forget/accuracy", "retain": "retain/accuracy"}
    rows = [row for row in table.rows if any(_has(row, key) for key in keys.values())]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 0.5 + 2 * (0.6 + 0.21 * len(rows))), layout="constrained")
    axes = figure.subplots(len(keys), 1)
    data: list[tuple[Any, ...]] = []
    for axis, (part, key) in zip(axes, keys.items(), strict=True):
        _dots(axis, rows, key)
        axis.set_title(f"{part} set", loc="left", fontweight="bold")
        for row in rows:
            cell = row.cells.get(key)
            points = cell.points if cell else {}
            data += [(row.method, row.variant, part, *seeds, value) for seeds, value in points.items()]
    axes[-1].set_xlabel("accuracy (%)")
    header = ("method", "variant", "set", "training_seed", "unlearning_seed", "evaluation_seed", "accuracy")
    about = "Diamond and bar: mean and standard deviation; dots: single seeds; dashed line: retrained model M_r."
    return drawn("accuracy", "Accuracy per method", about, header, data, figure)


def _dots(axis: Axes, rows: Sequence[Row], key: str) -> None:
    """Seeds, mean and spread of every method on one axis, and where the retrained model stands."""
    for place, row in enumerate(rows):
        cell = row.cells.get(key)
        if cell is None or not cell.n:
            continue
        colour = TEXT if row.reference else ACCENT
        values = [100 * value for value in cell.points.values()]
        axis.plot(values, [place + 0.22] * len(values), "o", color=colour, alpha=0.5, markersize=3.2, markeredgewidth=0)
        axis.errorbar(
            100 * cell.mean, place, xerr=100 * (cell.std or 0.0), fmt="D", color=colour, markersize=4.5, lw=1.2
        )
        if row.method == "Retrain":
            axis.axvline(100 * cell.mean, color=TEXT, lw=0.8, ls=(0, (4, 3)), zorder=0)
    axis.set_yticks(range(len(rows)), _names(rows))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.04)


def _gaps(table: Table) -> Plot | None:
    keys = [key for key in GAPS if any(_has(row, key) for row in table.rows if row.method != "Retrain")]
    rows = [row for row in table.rows if row.method != "Retrain" and any(_has(row, key) for key in keys)]
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
    axis.set_yticks(range(len(rows)), _names(rows))
    axis.set(xlim=(-0.5, len(keys) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    about = "Difference to the retrained model M_r in percentage points; red: above M_r, blue: below, pale: near it."
    return drawn("gaps", "Gaps", about, ("method", "variant", "metric", "mean", "std", "n"), data, figure)


def _tile(axis: Axes, x: int, y: int, points: float) -> None:
    """One cell of the heat map; its strength grows with the logarithm of the gap, so that small gaps differ too."""
    strength = min(1.0, math.log1p(abs(points)) / math.log1p(100.0)) if math.isfinite(points) else 1.0
    colour = ABOVE if points > 0 else BELOW
    axis.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=colour, alpha=0.7 * strength, linewidth=0))
    text = f"{points:+.1f}" if f"{points:.1f}" not in ("0.0", "-0.0") else "0.0"
    axis.text(x, y, text, ha="center", va="center", fontsize=8.5)


def _cost(table: Table) -> Plot | None:
    rows = [
        row for row in table.rows if row.method not in ("Original", "Retrain") and _has(row, "time_s") and _quality(row)
    ]
    rows = [row for row in rows if row.cells["time_s"].mean > 0 and math.isfinite(row.cells["time_s"].mean)]
    if not rows:
        return None
    figure = Figure(figsize=(WIDTH, 3.1 + 0.2 * math.ceil(len(rows) / 3)), layout="constrained")
    axis = figure.subplots()
    data: list[tuple[Any, ...]] = []
    for place, row in enumerate(rows):
        time, quality = row.cells["time_s"], summary(training_means(_quality(row)).values())
        style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "ms": 6, "lw": 1}
        style["fmt"] = MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
        bars: dict[str, Any] = {"xerr": _bar(time), "yerr": quality.std or 0.0}
        axis.errorbar(time.mean, quality.mean, **bars, **style, label=f" {_names([row])[0]}")
        data.append((row.method, row.variant, time.mean, time.std, quality.mean, quality.std, quality.n))
    _front(axis, data)
    _cost_axes(axis, table, max(point[4] for point in data))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, handletextpad=0.2, columnspacing=1.0)
    front = pareto([(point[2], point[4]) for point in data])
    data = [(*point, int(place in front)) for place, point in enumerate(data)]
    about = (
        "Time of the method against its mean absolute accuracy gap (forget, retain); best is lower left. Dotted: the "
        "Pareto front, methods that no other beats in both."
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
    axis.set_ylabel("mean |accuracy gap| (points)")
    axis.grid()
    axis.set_axisbelow(True)


def _quality(row: Row) -> Mapping[Any, float]:
    """Mean of the absolute forget and retain gap of every seed, in percentage points."""
    forget, retain = (row.cells.get(f"{part}/accuracy_gap") for part in ("forget", "retain"))
    if forget is None or retain is None:
        return {}
    seeds = [seed for seed in forget.points if seed in retain.points]
    return {seed: 50.0 * (abs(forget.points[seed]) + abs(retain.points[seed])) for seed in seeds}


def _names(rows: Sequence[Row]) -> list[str]:
    return [clean(row.name, 28) for row in rows]


def _has(row: Row, key: str) -> bool:
    return key in row.cells and row.cells[key].n > 0


def _bar(cell: Cell) -> float:
    """Half length of an error bar that stays right of zero on a logarithmic axis."""
    return min(cell.std or 0.0, 0.99 * cell.mean)
