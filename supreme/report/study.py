"""What several seeds say about a result table: intervals, ranks, sources of spread, M_r as a distribution."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from supreme.report.distances import distance_grid
from supreme.report.figure import Plot
from supreme.report.grid import Grid
from supreme.report.intervals import interval_grid
from supreme.report.overview import overview_grid
from supreme.report.ranks import rank_grid, rank_plot
from supreme.report.retrained import retrained_grid
from supreme.report.sources import source_grid, source_plot
from supreme.report.table import Table, runs_of

Frames = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Study:
    """The statistics of one result table.

    Attributes:
        grids: what is printed.
        plots: what is drawn.
        frames: the numbers at full precision, by file name.
    """

    grids: tuple[Grid, ...]
    plots: tuple[Plot, ...]
    frames: Frames = field(default_factory=dict)


def study(table: Table, data: pd.DataFrame) -> Study:
    """The statistics of a result table.

    Args:
        table: the table.
        data: the frame that it was made of.

    Returns:
        The overview, intervals with groups that cannot be told apart, mean ranks, gaps in standard deviations of M_r,
        and sources of spread, which the page folds; with a single seed each says so.
    """
    runs = runs_of(table, data)
    live = runs[(runs["status"] == "done") & ~runs["superseded"].astype(bool)]
    if live.empty:
        return Study((), ())
    parts = [
        overview_grid(table, live),
        interval_grid(table, live),
        rank_grid(table, live),
        retrained_grid(table, live),
        source_grid(table, live),
    ]
    grids = tuple(grid for grid, _ in parts)
    frames = {name: frame for _, found in parts for name, frame in found.items()}
    drawn = [rank_plot(table, frames["ranks"]), source_plot(table, frames["variance"])]
    return Study(grids, tuple(plot for plot in drawn if plot is not None), frames)


def with_distances(
    found: Study, table: Table, data: pd.DataFrame, records: Sequence[Mapping[str, Any]], root: Path
) -> Study:
    """The statistics, and the distances between retrained models where their outputs were kept.

    Args:
        found: the statistics so far.
        table: the result table.
        data: the frame that it was made of.
        records: the records in the order of the rows of ``data``.
        root: the output folder of the plan.
    """
    distances = distance_grid(table, data, records, root)
    if distances is None:
        return found
    grid, frame = distances
    *shown, folded = found.grids
    return replace(found, grids=(*shown, grid, folded), frames={**found.frames, "retrained_distances": frame})


def joined(studies: Sequence[Study], tables: Sequence[Table]) -> Frames:
    """The frames of all tables, one file for each kind, with the table's names in front.

    Args:
        studies: statistics by table.
        tables: the tables.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for one, table in zip(studies, tables, strict=True):
        for name, frame in one.frames.items():
            found.setdefault(name, []).append(_placed(frame, table))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in found.items()}


def _placed(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """A frame with the table's names in front; targets that the table averages over stay as they are."""
    names = {"dataset": table.dataset, "model": table.model, "scenario": table.scenario}
    if table.target is not None or "target" not in frame:
        names["target"] = table.target or ""
    own = frame.drop(columns=[*names], errors="ignore")
    for place, (column, value) in enumerate(names.items()):
        own.insert(place, column, value)
    return own[["dataset", "model", "scenario", "target", *own.columns.drop([*names, "target"], errors="ignore")]]
