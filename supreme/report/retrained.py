"""M_r as a distribution: gaps in its standard deviations, and what another M_r would get."""

import math
from collections.abc import Sequence

import pandas as pd

from supreme.experiment.retrained_spread import RETRAIN, audit_retrained, audit_summary, gap_z, retrained_spread
from supreme.experiment.run_columns import ENTRY, seed_columns
from supreme.report.columns import Column, decimals, extra, number
from supreme.report.grid import Entry, Grid
from supreme.report.records import metric_names
from supreme.report.table import Row, Table

TARGET = ("target",)


def retrained_grid(table: Table, runs: pd.DataFrame) -> tuple[Grid, dict[str, pd.DataFrame]]:
    """How far every method lies from the retrained models of the other seeds, below what another M_r would have.

    Args:
        table: the result table.
        runs: its successful runs.

    Returns:
        The grid; spread of the retrained models, all models against them and the gaps of all runs as frames.
    """
    columns = _columns(table, runs)
    keys = [column.key for column in columns]
    spread = retrained_spread(runs, keys, by=TARGET)
    audit = audit_retrained(runs, keys, by=TARGET)
    frames = {
        "retrained": spread,
        "retrained_audit": audit,
        "gap_z": pd.concat([runs[["target", *ENTRY, *seed_columns(runs)]], gap_z(runs, keys, by=TARGET)], axis=1),
    }
    models = int(spread["n"].max()) if len(spread) else 0
    header = ("Model", *(column.title for column in columns))
    rows = [("M_r: value", tuple(_value(column, spread) for column in columns))]
    if models > 2:
        gold = [row for row in table.rows if row.method == RETRAIN]
        methods = [row for row in table.rows if row.method != RETRAIN]
        named = [("another M_r", row) for row in gold] + [(row.name, row) for row in methods]
        sizes = audit_summary(audit, by=ENTRY)
        rows += [(f"{name}: |z|", _sizes(row, columns, sizes)) for name, row in named]
    top = 1 + sum(row.method == RETRAIN for row in table.rows) if models > 2 else 1
    title = "Gaps in standard deviations of M_r"
    return Grid("retrained", title, _about(models), header, tuple(rows), _notes(models), top), frames


def _columns(table: Table, runs: pd.DataFrame) -> list[Column]:
    """Metrics with a gap to M_r, those of users among them, that some M_r has a value of."""
    shown = {column.key: column for column in (*table.columns, *table.hidden)}
    gold = runs[runs["method"] == RETRAIN]
    gaps = [key for key in metric_names(runs) if f"{key}_gap" in runs and runs[f"{key}_gap"].notna().any()]
    return [shown.get(key) or extra(key) for key in gaps if gold[key].notna().any()]


def _value(column: Column, spread: pd.DataFrame) -> Entry:
    """Mean over targets of what M_r has, and of its spread."""
    mine = spread[spread["metric"] == column.key]
    mean, std = float(mine["mean"].mean()), float(mine["std"].mean())
    digits = decimals(column, [mean])
    small = "single seed" if math.isnan(std) else f"± {number(std * column.scale, digits)}"
    return Entry(number(mean * column.scale, digits), small)


def _sizes(row: Row, columns: Sequence[Column], sizes: pd.DataFrame) -> tuple[Entry, ...]:
    """The typical size of z of a method, for every metric."""
    mine = sizes[(sizes["method"] == row.method) & (sizes["variant"] == row.variant)].set_index("metric")["z_size"]
    found = [float(mine.get(column.key, math.nan)) for column in columns]
    return tuple(Entry("-") if math.isnan(size) else Entry(_size(size), value=size) for size in found)


def _size(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.1f}" if value < 1000 else f"{value:.1e}"


def _about(models: int) -> str:
    if not models:
        return "There is no retrained model."
    if models == 1:
        return "A single seed: one retrained model per target has no spread, so no gap can be given in units of it."
    value = f"M_r: mean over targets of the mean and standard deviation over {models} retrained models."
    if models == 2:
        return value
    return (
        f"{value} |z|: how far a model's value lies from the mean of the retrained models of other seeds or draws, in "
        "their standard deviations (median over targets and seeds). Another M_r is each M_r held out in this way: a "
        "method that is as good as retraining has what it has."
    )


def _notes(models: int) -> tuple[str, ...]:
    if models == 2:
        return ("Two retrained models are too few to hold one out against the others; three are enough.",)
    same = "∞: M_r is the same in all other seeds (for example 0 % of a forgotten class), and the model is not."
    return (same,) if models > 2 else ()
