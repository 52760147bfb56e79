"""How the values of every method spread over seeds: a panel per headline metric."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from supreme.report.columns import COLUMNS, Column
from supreme.report.figure import ACCENT, TEXT, WIDTH, Plot, drawn, plain_ticks
from supreme.report.labels import clean
from supreme.report.records import SEEDS
from supreme.report.table import Row, Table

PANELS = (
    *("forget/accuracy", "retain/accuracy"),
    *("forget/activation_distance", "retain/activation_distance"),
    *("forget/js_divergence", "retain/js_divergence"),
    *("mia", "speedup"),
)
LOGARITHMIC = ("speedup",)


def distribution_plot(table: Table) -> Plot | None:
    """Every seed, mean and spread of every method in the headline metrics; None where none was measured.

    Args:
        table: one of the result tables.
    """
    known = {column.key: column for column in COLUMNS}
    panels = [known[key] for key in PANELS if any(has(row, key) for row in table.rows)]
    rows = [row for row in table.rows if any(has(row, panel.key) for panel in panels)]
    if not rows:
        return None
    lines = -(-len(panels) // 2)
    figure = Figure(figsize=(WIDTH, 0.3 + lines * (0.55 + 0.19 * len(rows))), layout="constrained")
    axes = figure.subplots(lines, 2, squeeze=False, sharey=True).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, rows, panel)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    data: list[tuple[Any, ...]] = [
        (row.method, row.variant, panel.key, *seeds, value)
        for panel in panels
        for row in rows
        if has(row, panel.key)
        for seeds, value in row.cells[panel.key].points.items()
    ]
    about = (
        "Diamond and bar: mean and standard deviation over training seeds; dots: single seeds, means over their "
        "targets; dashed line: retrained model M_r."
    )
    header = ("method", "variant", "metric", *SEEDS, "value")
    return drawn("distributions", "Distributions over seeds", about, header, data, figure)


def _panel(axis: Axes, rows: Sequence[Row], panel: Column) -> None:
    """Seeds, mean and spread of every method in one metric, and where the retrained model stands."""
    for place, row in enumerate(rows):
        if not has(row, panel.key):
            continue
        cell, colour = row.cells[panel.key], TEXT if row.reference else ACCENT
        values = [panel.scale * value for value in cell.points.values()]
        axis.plot(values, [place + 0.25] * len(values), "o", color=colour, alpha=0.5, markersize=3, markeredgewidth=0)
        mean, spread = panel.scale * cell.mean, panel.scale * (cell.std or 0.0)
        axis.errorbar(mean, place, xerr=spread, fmt="D", color=colour, markersize=4, lw=1.2)
        if row.method == "Retrain":
            axis.axvline(mean, color=TEXT, lw=0.8, ls=(0, (4, 3)), zorder=0)
    if panel.key in LOGARITHMIC:
        axis.set_xscale("log", nonpositive="mask")
        plain_ticks(axis.xaxis, 4)
    axis.set_yticks(range(len(rows)), names(rows))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_title(panel.title, loc="left", fontweight="bold", fontsize=8.5)
    axis.grid(axis="y")
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.06)


def names(rows: Sequence[Row]) -> list[str]:
    """Names of methods as an axis has room for.

    Args:
        rows: rows of a table.
    """
    return [clean(row.name, 28) for row in rows]


def has(row: Row, key: str) -> bool:
    """Whether a method has values of a metric.

    Args:
        row: a row of a table.
        key: the metric.
    """
    return key in row.cells and row.cells[key].n > 0
