"""Paired comparison of methods over the same seeds, with control of false discoveries."""

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from supreme.errors import ConfigError, DataError
from supreme.experiment.bootstrap import BOOTSTRAP_SEED
from supreme.experiment.run_columns import DRAW, ENTRY, entry_labels, require, seed_columns
from supreme.experiment.statistics import summary, t_interval

Array: TypeAlias = NDArray[np.float64]

ENUMERATED = 20  # differences whose 2^n signs are all tried
RANKED = 100  # differences whose rank sums are counted exactly


class Verdict(NamedTuple):
    """What a test says.

    Attributes:
        statistic: the value that is tested.
        p: two-sided p-value; NaN without a difference to test.
        smallest_p: the smallest p-value that so few differences can have.
        exact: whether ``p`` comes from all cases instead of an approximation or a sample of them.
        n: number of differences that take part.
    """

    statistic: float
    p: float
    smallest_p: float
    exact: bool
    n: int


def wilcoxon(differences: Iterable[float]) -> Verdict:
    """Wilcoxon's signed-rank test that paired differences are symmetric about 0.

    The statistic is ``W = sum of the ranks of |d_i| with d_i > 0``; equal sizes share their mean rank and zero
    differences are left out. Up to 100 differences the p-value is exact, ties included: the distribution of W over
    all 2^n signs is counted rank by rank, and ``p = 2 min(P(W <= w), P(W >= w))``, at most 1. Beyond, W is taken as
    normal, with the variance ``sum of squared ranks / 4`` and a continuity correction of 1/2.

    Args:
        differences: one per pair; NaN counts as missing.

    Reference:
        Wilcoxon 1945, Individual comparisons by ranking methods, Biometrics Bulletin 1; Demsar 2006, Statistical
        Comparisons of Classifiers over Multiple Data Sets, JMLR 7, section 3.1.3 (why it suits such comparisons).

    Example:
        >>> wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0])
        Verdict(statistic=15.0, p=0.0625, smallest_p=0.0625, exact=True, n=5)
    """
    known = _known(differences)
    known = known[known != 0]
    n, exact = len(known), len(known) <= RANKED
    if not n:
        return Verdict(0.0, 1.0, 1.0, True, 0)
    ranks = pd.Series(np.abs(known)).rank().to_numpy()
    statistic = float(ranks[known > 0].sum())
    if exact:
        chances = _rank_sum_chances(np.rint(2 * ranks).astype(int))
        place = round(2 * statistic)
        p = 2 * min(chances[: place + 1].sum(), chances[place:].sum())
    else:
        distance = max(abs(statistic - ranks.sum() / 2) - 0.5, 0.0)
        p = math.erfc(distance / math.sqrt(float(ranks @ ranks) / 2))
    return Verdict(statistic, min(1.0, float(p)), 2.0 ** (1 - n), exact, n)


def sign_flip(differences: Iterable[float], *, draws: int = 20_000, seed: int = BOOTSTRAP_SEED) -> Verdict:
    """Permutation test that paired differences are symmetric about 0, by flipping their signs.

    The statistic is the mean difference; the p-value is the share of sign patterns whose mean is at least as far from
    0. Up to 20 differences all 2^n patterns are tried; beyond, ``draws`` random ones and the observed one are.

    Args:
        differences: one per pair; NaN counts as missing.
        draws: number of random patterns where not all can be tried.
        seed: seed of those patterns.

    Reference:
        Fisher 1935, The Design of Experiments, section 21; Phipson, Smyth 2010, Permutation p-values should never be
        zero, arXiv:1603.05766 (the observed pattern counts as one of the draws).

    Example:
        >>> sign_flip([1.0, 2.0, 3.0, 4.0])
        Verdict(statistic=2.5, p=0.125, smallest_p=0.125, exact=True, n=4)
    """
    known = _known(differences)
    n, exact = len(known), len(known) <= ENUMERATED
    if not n:
        return Verdict(math.nan, math.nan, 1.0, True, 0)
    wanted = abs(known.sum()) - 1e-9 * np.abs(known).sum()  # sums that differ by rounding are equal
    if exact:
        share = float(np.mean(np.abs(_all_sums(known)) >= wanted))
    else:
        signs = np.random.default_rng(seed).integers(0, 2, size=(draws, n)) * 2 - 1
        share = (1 + int(np.sum(np.abs(signs @ known) >= wanted))) / (1 + draws)
    smallest = 2.0 ** (1 - n) if exact else 1 / (1 + draws)
    return Verdict(float(known.mean()), share, smallest, exact, n)


def benjamini_hochberg(p_values: Iterable[float], *, dependent: bool = False) -> Array:
    """Adjusted p-values: those at most q are discoveries of which a share of at most q is false, on average.

    ``q_(i) = min over j >= i of min(1, m p_(j) / j)`` with the p-values in ascending order.

    Args:
        p_values: p-values of one family of tests; NaN stays NaN and does not count.
        dependent: multiply by ``1 + 1/2 + ... + 1/m``, which holds under any dependence of the tests.

    Returns:
        The adjusted values, in the given order.

    Raises:
        DataError: if a p-value is outside [0, 1].

    Reference:
        Benjamini, Hochberg 1995, Controlling the False Discovery Rate, J. R. Stat. Soc. B 57; Benjamini, Yekutieli
        2001, Ann. Stat. 29, theorem 1.3 (dependent tests).

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
        [0.04, 0.0533, 0.0533, 0.5]
    """
    values = np.array(list(p_values), dtype=np.float64)
    places = np.flatnonzero(~np.isnan(values))
    if np.any((values[places] < 0) | (values[places] > 1)):
        raise DataError(f"Expected p-values in [0, 1], got {values[places].tolist()}; give p-values, not statistics.")
    order = places[np.argsort(-values[places], kind="stable")]
    rank = np.arange(len(order), 0, -1)
    factor = len(order) * (np.sum(1 / rank) if dependent else 1.0)
    values[order] = np.minimum(1.0, np.minimum.accumulate(factor * values[order] / rank))
    return values


def score_table(
    data: pd.DataFrame, value: str, *, blocks: Sequence[str] | None = None, entry: Sequence[str] = ENTRY
) -> pd.DataFrame:
    """One row per block (target and seeds) and one column per method: the form that comparisons start from.

    Args:
        data: one row per run.
        value: the column of values.
        blocks: columns whose values tell blocks apart; methods are compared inside a block. None takes the target, the
            three seeds, and the seed of the draw where it has one of its own.
        entry: the column of the method's name, then those that tell apart entries of the same name.

    Returns:
        The values, NaN where a method has none; runs with the same block and method are averaged. Methods stand in
        the order of their first row.

    Raises:
        DataError: if a column is missing.

    Example:
        >>> data = pd.DataFrame({"seed": [1, 1, 2], "method": ["SSD", "JIT", "SSD"], "mia": [0.5, 0.25, 0.75]})
        >>> score_table(data, "mia", blocks=["seed"], entry=["method"])["SSD"].tolist()
        [0.5, 0.75]
    """
    blocks = ("target", *seed_columns(data)) if blocks is None else blocks
    require(data, [value, *blocks, *entry])
    names = entry_labels(data, entry)
    long = data[list(blocks)].assign(_entry=names.to_numpy(), _value=data[value].to_numpy(dtype=np.float64))
    if DRAW in blocks and "unlearning_seed" in long:
        long[DRAW] = long[DRAW].fillna(long["unlearning_seed"])  # scenarios without a draw beside those with one
    wide = long.pivot_table(index=list(blocks), columns="_entry", values="_value", aggfunc="mean", dropna=True)
    return wide.reindex(columns=list(dict.fromkeys(names))).rename_axis(columns=None)


def compare(
    scores: pd.DataFrame,
    *,
    unit: str | Sequence[str] | None = "training_seed",
    absolute: bool = False,
    level: float = 0.95,
    dependent: bool = False,
    seed: int = BOOTSTRAP_SEED,
) -> pd.DataFrame:
    """Every pair of methods, compared over the blocks that both have.

    Blocks of one unit are averaged first, because runs that share a training seed share M_o and are not independent;
    the differences a - b of the units are then tested against 0.

    Args:
        scores: what :func:`score_table` returns.
        unit: levels of its index whose values tell independent units apart; None takes every row as one.
        absolute: compare sizes, for gaps, where 0 is best; they are taken before the mean over a unit's blocks, so
            that gaps of different sign do not cancel.
        level: level of the interval of the mean difference (Student's).
        dependent: adjust for false discoveries under any dependence of the pairs (Benjamini-Yekutieli).
        seed: seed of the permutation test where it draws.

    Returns:
        One row per pair: ``a``, ``b``, ``n`` (units), ``difference`` (mean of a - b), ``low``, ``high``, ``effect``
        (mean over standard deviation of the differences), ``wilcoxon_p``, ``permutation_p``, ``wilcoxon_q`` and
        ``permutation_q`` (adjusted over all pairs), ``smallest_p`` (what the permutation test can reach), ``exact``
        (both tests), ``kind`` ("t", or "single seed": no interval and no test).

    Raises:
        ConfigError: if a unit is no level of the index.

    Reference:
        Demsar 2006, JMLR 7; the functions above; Cohen 1988, Statistical Power Analysis (effect d_z).

    Example:
        >>> scores = pd.DataFrame({"SSD": [1.0, 2.0, 3.0, 4.0], "JIT": [0.0, 0.5, 1.0, 1.5]})
        >>> compare(scores, unit=None)[["a", "b", "difference", "permutation_p"]].to_numpy().tolist()
        [['SSD', 'JIT', 1.75, 0.125]]
    """
    pairs = combinations(scores.columns, 2)
    rows = [{"a": a, "b": b, **_pair(scores[[a, b]].dropna(), unit, absolute, level, seed)} for a, b in pairs]
    names = ("a", "b", "n", "difference", "low", "high", "effect", "wilcoxon_p", "permutation_p")
    table = pd.DataFrame(rows, columns=[*names, "smallest_p", "exact", "kind"])
    for place, test in ((9, "wilcoxon"), (10, "permutation")):
        table.insert(place, f"{test}_q", benjamini_hochberg(table[f"{test}_p"], dependent=dependent))
    return table


def unit_means(scores: pd.DataFrame, unit: str | Sequence[str] | None) -> pd.DataFrame:
    """Means over the blocks of each independent unit.

    Args:
        scores: what :func:`score_table` returns.
        unit: levels of its index whose values tell units apart; None leaves the rows as they are.

    Raises:
        ConfigError: if a unit is no level of the index.

    Example:
        >>> index = pd.MultiIndex.from_tuples([(1, 1), (1, 2), (2, 1)], names=["training_seed", "target"])
        >>> unit_means(pd.DataFrame({"SSD": [0.0, 1.0, 4.0]}, index), "training_seed")["SSD"].tolist()
        [0.5, 4.0]
    """
    if unit is None:
        return scores
    names = [unit] if isinstance(unit, str) else list(unit)
    missing = [name for name in names if name not in scores.index.names]
    if missing:
        known = ", ".join(map(repr, scores.index.names))
        raise ConfigError(f"Expected a level of the index ({known}) as unit, got '{missing[0]}'; None takes each row.")
    return scores.groupby(level=names, sort=False).mean()


def _pair(
    both: pd.DataFrame, unit: str | Sequence[str] | None, absolute: bool, level: float, seed: int
) -> dict[Hashable, Any]:
    """The comparison of the two columns of a frame."""
    means = unit_means(both.abs() if absolute else both, unit).to_numpy(dtype=np.float64)
    differences = means[:, 0] - means[:, 1]
    differences = differences[np.isfinite(differences)]
    interval, std = t_interval(differences, level), summary(differences).std
    ranks, flips = wilcoxon(differences), sign_flip(differences, seed=seed)
    tested = len(differences) > 1
    return {
        "n": len(differences),
        "difference": interval.mean,
        "low": math.nan if interval.low is None else interval.low,
        "high": math.nan if interval.high is None else interval.high,
        "effect": interval.mean / std if std else math.nan,
        "wilcoxon_p": ranks.p if tested else math.nan,
        "permutation_p": flips.p if tested else math.nan,
        "smallest_p": flips.smallest_p,
        "exact": ranks.exact and flips.exact,
        "kind": interval.kind,
    }


def _known(values: Iterable[float]) -> Array:
    known = np.array(list(values), dtype=np.float64)
    return known[~np.isnan(known)]


def _rank_sum_chances(ranks: NDArray[np.int_]) -> Array:
    """P(sum of the ranks with a positive sign = 0, 1, ...) when all signs are equally likely."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[:-rank]
        chances = (chances + shifted) / 2
    return chances


def _all_sums(values: Array) -> Array:
    """The sums under all signs of all values but the first; the others are their negatives."""
    sums = values[:1]
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums
