"""M_r as a distribution: gaps in its standard deviations, and what another M_r would get."""

import math
from collections.abc import Sequence

import pandas as pd

from supreme.experiment.retrained_spread import audit_retrained, audit_summary, gap_z, retrained_spread
from supreme.experiment.run_columns import ENTRY, SEEDS
from supreme.report.columns import Column, decimals, extra, number
from supreme.report.grid import Entry, Grid
from supreme.report.table import Row, Table

TARGET = ("target",)


def retrained_grid(table: Table, runs: pd.DataFrame) -> tuple[Grid, dict[str, pd.DataFrame]]:
    """Gaps of every method in standard deviations of M_r, below what M_r itself does.

    Args:
        table: the result table.
        runs: its successful runs.

    Returns:
        The grid; spread and audit of the retrained models and the gaps of all runs as frames.
    """
    columns = _columns(table, runs)
    keys = [column.key for column in columns]
    spread = retrained_spread(runs, keys, by=TARGET)
    audit = audit_retrained(runs, keys, by=TARGET)
    scaled = gap_z(runs, keys, by=TARGET)
    frames = {
        "retrained": spread,
        "retrained_audit": audit,
        "gap_z": pd.concat([runs[["target", *ENTRY, *SEEDS]], scaled], axis=1),
    }
    seeds = int(spread["n"].max()) if len(spread) else 0
    header = ("Model", *(column.title for column in columns))
    rows = _retrained_rows(columns, spread, audit)
    top = len(rows)
    if seeds > 1:
        rows += [_method(row, columns, runs, scaled) for row in table.rows if row.method != "Retrain"]
    grid = Grid(
        "retrained", "Gaps in standard deviations of M_r", _about(seeds), header, tuple(rows), _notes(seeds), top
    )
    return grid, frames


def _columns(table: Table, runs: pd.DataFrame) -> list[Column]:
    """Metrics with a gap that the tables show, values of M_r among them."""
    shown = {column.key: column for column in (*table.columns, *table.hidden)}
    wanted = ["forget/accuracy", "retain/accuracy", "forget/loss", "retain/loss", "mia", "forget/zrf"]
    known = [key for key in wanted if key in runs and runs[key].notna().any()]
    found = [shown.get(key) or extra(key) for key in known]
    gold = runs[runs["method"] == "Retrain"]
    return [column for column in found if gold[column.key].notna().any()]


def _retrained_rows(
    columns: Sequence[Column], spread: pd.DataFrame, audit: pd.DataFrame
) -> list[tuple[str, tuple[Entry, ...]]]:
    sizes = audit_summary(audit, by=TARGET)
    values, others = [], []
    for column in columns:
        mine = spread[spread["metric"] == column.key]
        mean, std = float(mine["mean"].mean()), float(mine["std"].mean())
        digits = decimals(column, [mean])
        small = "single seed" if math.isnan(std) else f"± {number(std * column.scale, digits)}"
        values.append(Entry(number(mean * column.scale, digits), small))
        held = sizes[sizes["metric"] == column.key]["z_size"].median()
        others.append(Entry("-" if math.isnan(held) else _size(held), value=held))
    rows = [("M_r: value", tuple(values))]
    judged = not all(entry.text == "-" for entry in others)
    return [*rows, ("another M_r: |z|", tuple(others))] if judged else rows


def _method(
    row: Row, columns: Sequence[Column], runs: pd.DataFrame, scaled: pd.DataFrame
) -> tuple[str, tuple[Entry, ...]]:
    mine = (runs["method"] == row.method) & (runs["variant"] == row.variant)
    fields = []
    for column in columns:
        sizes = scaled.loc[mine, f"{column.key}_gap_z"].abs()
        middle = sizes.median()  # a mean would be infinite where one target's M_r does not vary
        fields.append(Entry("-") if math.isnan(middle) else Entry(_size(middle), value=float(middle)))
    return f"{row.name}: |z|", tuple(fields)


def _size(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.1f}" if value < 1000 else f"{value:.1e}"


def _about(seeds: int) -> str:
    if not seeds:
        return "There is no retrained model."
    if seeds == 1:
        return "A single seed: one retrained model per target has no spread, so no gap can be given in units of it."
    return (
        f"M_r: mean over targets of the mean and standard deviation over {seeds} retrained models. Below: the size of "
        "the gap to M_r of the same seeds over that standard deviation (median over targets and seeds); around 1 is as "
        "near as M_r is to itself."
    )


def _notes(seeds: int) -> tuple[str, ...]:
    notes = []
    if seeds > 1:
        notes.append("∞: M_r is the same in all seeds (for example 0 % of a forgotten class), and the model is not.")
    if seeds > 2:
        notes.append("Another M_r: each retrained model against the others of its target; what perfect looks like.")
    elif seeds == 2:
        notes.append("Two retrained models are too few to hold one out against the others; three are enough.")
    return tuple(notes)
