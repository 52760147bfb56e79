"""Mean ranks of the methods over seeds, and which of them a critical difference tells apart."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from supreme.experiment.comparison import unit_means
from supreme.experiment.ranking import friedman, group_letters, mean_ranks, nemenyi
from supreme.report.columns import Column
from supreme.report.figure import ACCENT, TEXT, WIDTH, Plot, drawn, style
from supreme.report.grid import Entry, Grid
from supreme.report.intervals import REPLICATES, compared, ends, entry, judged, method_scores
from supreme.report.labels import clean
from supreme.report.table import Table

LEVEL = 0.95
DRAWN = 3
COLUMNS = ("metric", "method", "mean_rank", "low", "high", "blocks", "n", "kind", "group", "critical_difference")


def rank_grid(table: Table, runs: pd.DataFrame) -> tuple[Grid, dict[str, pd.DataFrame]]:
    """Mean rank of every method in every metric, with intervals, groups and the tests behind them.

    Blocks are training seeds; the targets of a seed are averaged first, because they share M_o.

    Args:
        table: the result table.
        runs: its successful runs.
    """
    columns = compared(table, runs)
    found = {judged(column): _ranks(table, runs, column) for column in columns}
    frames = [frame for frame, _ in found.values() if len(frame)]
    ranks = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    shown = [column for column in columns if len(found[judged(column)][0])]
    lines = {(line["metric"], line["method"]): line for line in ranks.to_dict("records")}
    rows = [
        (row.name, tuple(_field(lines.get((judged(column), entry(row)))) for column in shown))
        for row in table.rows
        if not row.reference and any((judged(column), entry(row)) in lines for column in shown)
    ]
    rows += _tests([found[judged(column)] for column in shown])
    seeds = int(ranks["blocks"].max()) if len(ranks) else 0
    title = ("Method", *(column.title for column in shown))
    grid = Grid("ranks", "Mean ranks", _about(seeds), title, tuple(rows) if shown else (), (), 0, folded=True)
    return grid, {"ranks": ranks}


def _ranks(table: Table, runs: pd.DataFrame, column: Column) -> tuple[pd.DataFrame, dict[str, float]]:
    """Ranks in one metric, and the numbers of the tests."""
    scores = unit_means(method_scores(table, runs, column), "training_seed")
    best = "high" if column.best == "high" else "low"
    blocks = len(scores.dropna())
    if len(scores.columns) < 2 or not blocks:
        return pd.DataFrame(columns=COLUMNS), {}
    found = mean_ranks(scores, best=best, replicates=REPLICATES, level=LEVEL)
    critical = nemenyi(scores, best=best, level=LEVEL)
    letters = group_letters(critical.groups) if math.isfinite(critical.difference) else {}
    test = friedman(scores, best=best).f_p if blocks > 1 else math.nan
    difference = critical.difference if blocks > 1 else math.nan
    groups = [letters.get(name, "") for name in found["method"]]
    frame = found.assign(metric=judged(column), group=groups, critical_difference=difference)
    return frame[list(COLUMNS)], {"difference": difference, "friedman_p": test}


def _tests(found: list[tuple[pd.DataFrame, dict[str, float]]]) -> list[tuple[str, tuple[Entry, ...]]]:
    names = {"difference": "Critical difference", "friedman_p": "Friedman test: p"}
    rows = []
    for key, name in names.items():
        values = [test.get(key, math.nan) for _, test in found]
        if not all(map(math.isnan, values)):
            digits = ".2f" if key == "difference" else ".2g"
            rows.append((name, tuple(Entry(_test_text(value, digits)) for value in values)))
    return rows


def _test_text(value: float, digits: str) -> str:
    return "-" if math.isnan(value) else "none" if math.isinf(value) else format(value, digits)


def _field(line: Mapping[Any, Any] | None) -> Entry:
    if line is None:
        return Entry("-")
    small = "" if math.isnan(line["low"]) else ends(line["low"], line["high"], 1.0, 2)
    return Entry(f"{line['mean_rank']:.2f}", small, line["group"], False, line["mean_rank"])


def _about(seeds: int) -> str:
    if not seeds:
        return "There are no two methods with values of the same seeds to rank."
    if seeds == 1:
        return "Ranks of a single seed (1 is best): without intervals, tests and groups."
    return (
        f"Rank of each method (1 is best), mean over {seeds} training seeds with 95 % bootstrap interval. Methods "
        "whose mean ranks differ by less than the critical difference (Nemenyi, 5 %, raised for few seeds by the exact "
        "distribution) share a letter: this test cannot tell them apart. None: with so few seeds no difference counts "
        "as one. Gaps are ranked by their sizes, averaged over the runs of a seed."
    )


def rank_plot(table: Table, ranks: pd.DataFrame) -> Plot | None:
    """Mean ranks with intervals and, as a bar, the critical difference.

    Args:
        table: the result table.
        ranks: the frame of :func:`rank_grid`.
    """
    metrics = [key for key in dict.fromkeys(ranks["metric"]) if (ranks[ranks["metric"] == key]["blocks"] > 1).any()]
    metrics = [key for key in metrics if not key.startswith(("time", "speedup", "peak"))][:DRAWN]
    if not metrics:
        return None
    labels = {entry(row): clean(row.name, 28) for row in table.rows}
    titles = {judged(column): column.title for column in table.columns}
    most = max(int((ranks["metric"] == key).sum()) for key in metrics)
    with style():
        figure = Figure(figsize=(WIDTH, 0.3 + len(metrics) * (0.7 + 0.2 * most)), layout="constrained")
        axes = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
        for axis, key in zip(axes, metrics, strict=True):
            part = ranks[ranks["metric"] == key].reset_index(drop=True)
            for place, line in enumerate(part.to_dict("records")):
                axis.plot([line["low"], line["high"]], [place, place], color=ACCENT, lw=1.2)
                axis.plot(line["mean_rank"], place, "D", color=ACCENT, markersize=4.5)
            first, width = part["mean_rank"].min(), part["critical_difference"].iloc[0]
            width = width if math.isfinite(width) else 0.0  # no bar where no difference counts
            axis.plot([first, first + width], [-0.8, -0.8], color=TEXT, lw=2.5, solid_capstyle="butt")
            axis.set_yticks(range(len(part)), [labels.get(name, name) for name in part["method"]])
            axis.set(ylim=(len(part) - 0.5, -1.3), xlim=(0.8, max(len(part), first + width) + 0.2))
            axis.set_title(clean(titles.get(key, key), 40), loc="left", fontweight="bold")
            axis.grid(axis="x")
        about = (
            "Diamond and line: mean rank over seeds (1 is best) and 95 % interval; black bar: critical difference, "
            "from which on two methods are told apart (none with very few seeds)."
        )
        data = list(ranks[ranks["metric"].isin(metrics)].itertuples(index=False, name=None))
        return drawn("ranks", "Mean ranks", about, COLUMNS, data, figure)
