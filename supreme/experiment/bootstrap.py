"""Bootstrap intervals over seeds, nested as the seeds are, and the table of all intervals of a study.

All draws of a report's statistics come from one fixed seed, :data:`BOOTSTRAP_SEED`, unless another is given: the same
records always give the same intervals. No seed of a plan has a part in them; an evaluation seed drives the metrics that
draw, and no metric of this package draws a bootstrap.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from supreme.errors import ConfigError
from supreme.experiment.run_columns import ENTRY, PLACE, SEEDS, require
from supreme.experiment.statistics import Interval, summary, t_interval, t_quantile, without_interval

Array: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]
Tree: TypeAlias = "Array | list[Tree]"

BOOTSTRAP_SEED = 0


def bootstrap_interval(
    values: Iterable[float],
    level: float = 0.95,
    *,
    expanded: bool = True,
    replicates: int = 4000,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Mean and bootstrap interval: seeds are drawn with replacement, and quantiles of the drawn means are taken.

    Plain quantiles are too narrow for few seeds. The expanded ones are taken at ``Phi(-sqrt(n / (n - 1)) t)`` and its
    complement, where ``t`` is the (1 + level) / 2 quantile of Student's t with n - 1 degrees of freedom, so that the
    interval of normal values has the width of Student's.

    Args:
        values: one value per independent seed; NaN counts as missing.
        level: share of such intervals that hold the true mean.
        expanded: whether to widen the interval for few seeds.
        replicates: number of drawn means.
        seed: seed of the draws.

    Returns:
        The interval; without one (and so labelled) for a single seed.

    Raises:
        ConfigError: if the level is not inside (0, 1) or there are no replicates.

    Reference:
        Efron, Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile interval); Hesterberg 2015,
        What Teachers Should Know About the Bootstrap, The American Statistician 69 (expanded percentiles).

    Example:
        >>> interval = bootstrap_interval([1.0, 2.0, 3.0, 4.0], expanded=False)
        >>> interval.mean, interval.low, interval.high, interval.kind
        (2.5, 1.5, 3.5, 'bootstrap')
        >>> bootstrap_interval([1.0]).kind
        'single seed'
    """
    known = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    return _interval(known, len(known), level, expanded, replicates, seed)


def nested_bootstrap(
    data: pd.DataFrame,
    value: str,
    levels: Sequence[str] = SEEDS,
    *,
    level: float = 0.95,
    expanded: bool = True,
    replicates: int = 4000,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Mean and bootstrap interval of values with nested seeds: every level is drawn with replacement inside its parent.

    Training seeds are drawn, inside each drawn one as many unlearning seeds as it has, inside those evaluation seeds.
    The mean is the mean over training seeds of the mean over unlearning seeds, and so on, so that every training seed
    counts the same. Rows with the same seeds (forget targets) are averaged first. Where every seed has one seed below
    it, this is :func:`bootstrap_interval`. Drawing lower levels again makes the interval a little too wide (their
    variance is in the spread of training seeds already); ``levels=("training_seed",)`` keeps them whole.

    Args:
        data: one row per value.
        value: the column of values; NaN counts as missing.
        levels: columns of seeds, the outermost first.
        level: share of such intervals that hold the true mean.
        expanded: whether to widen the interval for few outermost seeds.
        replicates: number of drawn means.
        seed: seed of the draws.

    Returns:
        The interval; ``n`` counts the outermost seeds, and with one of them there is no interval.

    Raises:
        ConfigError: if the level is not inside (0, 1) or there are no replicates or levels.
        DataError: if a column is missing.

    Reference:
        Davison, Hinkley 1997, Bootstrap Methods and their Application, section 3.8; Saravanan, Berman, Sober 2020,
        Application of the hierarchical bootstrap to multi-level data in neuroscience, arXiv:2007.07797.

    Example:
        >>> data = pd.DataFrame({"s": [1, 1, 2, 2], "u": [11, 12, 21, 22], "x": [1.0, 3.0, 5.0, 7.0]})
        >>> interval = nested_bootstrap(data, "x", ["s", "u"], expanded=False)
        >>> interval.mean, interval.low, interval.high, interval.n
        (4.0, 1.5, 6.5, 2)
    """
    if not levels:
        raise ConfigError("Expected at least one column of seeds for the bootstrap, got none; give levels=('seed',).")
    require(data, [value, *levels])
    known = data[data[value].notna()]
    if known.empty:
        return Interval(math.nan, None, None, 0, without_interval(0))
    means = known.groupby(list(levels), sort=False, dropna=False)[value].mean().reset_index()
    tree = _tree(means[value].to_numpy(dtype=np.float64), _codes(means, levels))
    return _interval(tree, len(tree), level, expanded, replicates, seed)


def interval_table(
    data: pd.DataFrame,
    metrics: Sequence[str],
    *,
    by: Sequence[str] = (*PLACE, *ENTRY),
    levels: Sequence[str] = SEEDS,
    level: float = 0.95,
    replicates: int = 4000,
    seed: int = BOOTSTRAP_SEED,
) -> pd.DataFrame:
    """Mean, spread and intervals of every metric in every group of runs.

    Values are averaged over the forget targets of a seed, then inside a training seed; the spread and both intervals
    are over training seeds, the independent units of a study. With fewer than two of them ``std`` and the ends of
    the intervals are NaN and ``kind`` says "single seed".

    Args:
        data: one row per run.
        metrics: columns of values.
        by: columns whose values tell groups apart; add the target where it is not to be averaged over.
        levels: columns of seeds, the outermost first.
        level: share of intervals that hold the true mean.
        replicates: number of bootstrap means; 0 leaves the bootstrap out.
        seed: seed of the bootstrap.

    Returns:
        One row per group and metric that was measured: the group, ``metric``, ``mean``, ``std``, ``t_low``,
        ``t_high``, ``bootstrap_low``, ``bootstrap_high``, ``kind``, ``n`` (outermost seeds) and ``n_<level>`` for the
        number of different seeds of every level.

    Raises:
        DataError: if a column is missing.

    Reference:
        :func:`supreme.experiment.statistics.t_interval` and :func:`nested_bootstrap`.

    Example:
        >>> data = pd.DataFrame({"method": ["SSD"] * 2, "training_seed": [1, 2], "mia": [0.25, 0.75]})
        >>> table = interval_table(data, ["mia"], by=["method"], levels=["training_seed"])
        >>> table["mean"].tolist(), table["n"].tolist(), table["kind"].tolist()
        ([0.5], [2], ['t'])
    """
    require(data, [*by, *levels, *metrics])
    means = data.groupby([*by, *levels], sort=False, dropna=False)[list(metrics)].mean().reset_index()
    rows: list[dict[Hashable, Any]] = []
    for names, runs in means.groupby(list(by), sort=False, dropna=False):
        group: dict[Hashable, Any] = dict(zip(by, names, strict=True))
        codes = _codes(runs, levels)
        for metric in metrics:
            values = runs[metric].to_numpy(dtype=np.float64)
            known = ~np.isnan(values)
            if known.any():
                found = _row(values[known], codes[known], levels, level, replicates, seed)
                rows.append({**group, "metric": metric, **found})
    counts = [f"n_{name}" for name in levels]
    ends = ("t_low", "t_high", "bootstrap_low", "bootstrap_high")
    return pd.DataFrame(rows, columns=[*by, "metric", "mean", "std", *ends, "kind", "n", *counts])


def _row(
    values: Array, codes: Codes, levels: Sequence[str], level: float, replicates: int, seed: int
) -> dict[Hashable, Any]:
    tree = _tree(values, codes)
    means = [_centre(branch) for branch in tree]
    student, std = t_interval(means, level), summary(means).std
    drawn = _interval(tree, len(tree), level, True, replicates, seed) if replicates else Interval(0, None, None, 0, "")
    numbers: dict[Hashable, Any] = {
        f"n_{name}": len(np.unique(codes[:, : place + 1], axis=0)) for place, name in enumerate(levels)
    }
    return {
        "mean": student.mean,
        "std": math.nan if std is None else std,
        "t_low": _end(student.low),
        "t_high": _end(student.high),
        "bootstrap_low": _end(drawn.low),
        "bootstrap_high": _end(drawn.high),
        "kind": student.kind,
        "n": student.n,
        **numbers,
    }


def _end(value: float | None) -> float:
    return math.nan if value is None else value


def _codes(means: pd.DataFrame, levels: Sequence[str]) -> Codes:
    """A number for every seed, one column per level."""
    return np.stack([pd.factorize(means[name], use_na_sentinel=False)[0] for name in levels], axis=1)


def _tree(values: Array, codes: Codes) -> Tree:
    """Values by seed: an array over the innermost seeds, lists of such above it.

    Where every seed has one below it, drawing that one changes nothing, so the level is left out.
    """
    if codes.shape[1] == 1:
        return values
    parts = [codes[:, 0] == code for code in dict.fromkeys(codes[:, 0].tolist())]
    branches = [_tree(values[part], codes[part, 1:]) for part in parts]
    arrays = [branch for branch in branches if isinstance(branch, np.ndarray) and len(branch) == 1]
    return np.concatenate(arrays) if len(arrays) == len(branches) else branches


def _centre(tree: "Tree | float") -> float:
    """The mean of means."""
    if isinstance(tree, list):
        return float(np.mean([_centre(branch) for branch in tree]))
    return float(np.mean(tree))


def _drawn_means(tree: Tree, size: int, rng: np.random.Generator) -> Array:
    """``size`` means of values drawn with replacement at every level."""
    count = len(tree)
    picks = rng.integers(count, size=(size, count))
    if isinstance(tree, np.ndarray):
        return np.asarray(tree[picks].mean(axis=1), dtype=np.float64)
    total = np.zeros(size)
    drawn = np.argsort(picks, axis=None, kind="stable") // count  # rows of the means, by the seed that was drawn
    ends = np.cumsum(np.bincount(picks.ravel(), minlength=count))[:-1]
    for branch, rows in zip(tree, np.split(drawn, ends), strict=True):
        total += np.bincount(rows, weights=_drawn_means(branch, len(rows), rng), minlength=size)
    return np.asarray(total / count, dtype=np.float64)


def _interval(tree: Tree, n: int, level: float, expanded: bool, replicates: int, seed: int) -> Interval:
    quantile = t_quantile(level, max(n - 1, 1))
    if replicates < 1:
        raise ConfigError(f"Expected at least one bootstrap replicate, got {replicates}; 4000 is usual.")
    mean = _centre(tree) if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return Interval(mean, None, None, n, without_interval(n))
    means = _drawn_means(tree, replicates, np.random.default_rng(seed))
    tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * quantile)) if expanded else (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), n, "bootstrap")
