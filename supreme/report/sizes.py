"""Sizes of gaps: how far a method is from the retrained model, whichever way, run by run."""

from collections.abc import Mapping, Sequence

import pandas as pd

from supreme.experiment.statistics import seed_means
from supreme.report.records import SEEDS
from supreme.report.table import Row, Seeds


def mean_sizes(row: Row, runs: pd.DataFrame, keys: Sequence[str]) -> Mapping[Seeds, float]:
    """The mean absolute gap of a method by seeds, over its forget targets.

    Absolute values are taken in every run, so that gaps of +10 and -10 points count as 10, not as 0; the paper's
    tables have the mean of the signed gaps instead.

    Args:
        row: the method's row of the result table.
        runs: the successful runs of the table.
        keys: the gaps; of several the mean, and a run that lacks one does not count.
    """
    if not set(keys) <= set(runs.columns):
        return {}
    mine = runs[(runs["method"] == row.method) & (runs["variant"] == row.variant)]
    sizes = mine[list(keys)].abs().mean(axis=1, skipna=False)
    seeds = list(mine[list(SEEDS)].itertuples(index=False, name=None))
    return seed_means(zip(seeds, sizes.tolist(), strict=True))
