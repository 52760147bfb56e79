"""Ranks of methods over many blocks, and which methods cannot be told apart."""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from supreme.errors import ConfigError, DataError
from supreme.experiment.bootstrap import BOOTSTRAP_SEED
from supreme.experiment.statistics import t_quantile

Array: TypeAlias = NDArray[np.float64]

ARRANGED = 20_000  # rank sums per block up to which every arrangement of the ranks is counted


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that all methods have the same ranks on average.

    Attributes:
        chi2: Friedman's statistic, corrected for ties.
        df: its degrees of freedom, methods - 1.
        p: p-value of ``chi2`` for many blocks, the approximation that other software gives.
        f: Iman and Davenport's form of the statistic, infinite when all blocks agree.
        f_df: its degrees of freedom.
        f_p: p-value of ``f``, which orders the outcomes as ``chi2`` does: exact, or the better approximation.
        exact: whether ``f_p`` counts all arrangements of the ranks inside blocks.
        blocks: number of blocks that all methods have.
        methods: number of methods.
    """

    chi2: float
    df: int
    p: float
    f: float
    f_df: tuple[int, int]
    f_p: float
    exact: bool
    blocks: int
    methods: int


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks, the difference that counts as one, and the groups inside which there is none.

    Attributes:
        difference: mean ranks that differ by at least this much are told apart; infinite where none can be.
        ranks: mean rank by method, the best first.
        groups: methods that cannot be told apart, best group first; groups may overlap, and a method that is told
            apart from all others is a group of its own.
        blocks: number of blocks that all methods have.
        level: 1 - the chance that any two equal methods are told apart.
    """

    difference: float
    ranks: Mapping[str, float]
    groups: tuple[tuple[str, ...], ...]
    blocks: int
    level: float


def block_ranks(scores: pd.DataFrame, *, best: str = "low") -> pd.DataFrame:
    """Rank of every method in every block, 1 for the best; ties share their mean rank.

    Args:
        scores: one row per block, one column per method; blocks that a method lacks are left out.
        best: which score is best: "low", "high", or "zero" (nearest to 0, for gaps).

    Raises:
        ConfigError: if ``best`` is something else.

    Reference:
        Demsar 2006, JMLR 7, section 3.2.2.

    Example:
        >>> block_ranks(pd.DataFrame({"SSD": [0.1, 0.3], "JIT": [0.2, 0.3]})).to_numpy().tolist()
        [[1.0, 2.0], [1.5, 1.5]]
    """
    if best not in ("low", "high", "zero"):
        raise ConfigError(f"Expected 'low', 'high' or 'zero' for what is best, got '{best}'.")
    known = scores.dropna()
    return (known.abs() if best == "zero" else known).rank(axis=1, ascending=best != "high")


def mean_ranks(
    scores: pd.DataFrame,
    *,
    best: str = "low",
    cluster: str | None = None,
    level: float = 0.95,
    replicates: int = 4000,
    seed: int = BOOTSTRAP_SEED,
) -> pd.DataFrame:
    """Mean rank of every method over the blocks, with bootstrap intervals over blocks.

    Blocks are drawn with replacement, all methods of a block together. The quantiles are widened for few of them as
    in :func:`supreme.experiment.bootstrap.bootstrap_interval`.

    Args:
        scores: one row per block, one column per method; blocks that a method lacks are left out.
        best: which score is best: "low", "high", or "zero" (nearest to 0).
        cluster: level of the index whose values are drawn instead of rows, because rows inside one are not
            independent (for example the targets of a training seed).
        level: share of intervals that hold the true mean rank.
        replicates: number of draws.
        seed: seed of the draws.

    Returns:
        One row per method, the best first: ``method``, ``mean_rank``, ``low``, ``high``, ``blocks``, ``n`` (rows or
        clusters that were drawn) and ``kind`` ("bootstrap", "single seed" or "no value"; the ends are NaN then).

    Raises:
        ConfigError: if ``best`` or ``cluster`` is not known.

    Reference:
        Demsar 2006, JMLR 7, section 3.2.2 (mean ranks); Efron, Tibshirani 1993, chapter 13; Hesterberg 2015.

    Example:
        >>> table = mean_ranks(pd.DataFrame({"JIT": [0.2, 0.3, 0.5], "SSD": [0.1, 0.2, 0.4]}))
        >>> table[["method", "mean_rank", "low", "high"]].to_numpy().tolist()
        [['SSD', 1.0, 1.0, 1.0], ['JIT', 2.0, 2.0, 2.0]]
    """
    ranks = block_ranks(scores, best=best)
    sums, counts = _cluster_sums(ranks, cluster)
    n, methods, quantile = len(counts), len(ranks.columns), t_quantile(level, max(len(counts) - 1, 1))
    low = high = np.full(methods, math.nan)
    if n > 1:
        picks = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates)
        means = (picks @ sums) / (picks @ counts)[:, None]
        tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * quantile))
        low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    table = pd.DataFrame({"method": ranks.columns, "mean_rank": ranks.mean().to_numpy(), "low": low, "high": high})
    kind = {0: "no value", 1: "single seed"}.get(n, "bootstrap")
    return table.assign(blocks=len(ranks), n=n, kind=kind).sort_values("mean_rank", kind="stable", ignore_index=True)


def friedman(scores: pd.DataFrame, *, best: str = "low") -> Friedman:
    """Friedman's test over blocks, in its own form and in that of Iman and Davenport.

    With N blocks, k methods and the rank sums R_j: ``chi2 = sum_j (R_j - N (k + 1) / 2)^2 / (N s^2)``, where ``s^2`` is
    the mean over blocks of the variance (divisor k - 1) of the ranks in a block; without ties ``s^2 = k (k + 1) / 12``.
    ``F = (N - 1) chi2 / (N (k - 1) - chi2)`` has k - 1 and (k - 1)(N - 1) degrees of freedom.

    Its p-value is exact where the arrangements of the ranks inside blocks can be counted (50 blocks and more for two
    or three methods, ten for four, three for five, two for six or seven). Elsewhere it is that of the F distribution,
    but at least ``(k!)^-(N - 1)``, the chance that all blocks agree.

    Args:
        scores: one row per block, one column per method; blocks that a method lacks are left out.
        best: which score is best; it changes nothing for "low" and "high".

    Raises:
        DataError: if there are fewer than two methods or two common blocks.

    Reference:
        Friedman 1937, JASA 32; Iman, Davenport 1980, Commun. Stat. A 9; Demsar 2006, JMLR 7, section 3.2.2.

    Example:
        >>> test = friedman(pd.DataFrame({"A": [1.0, 1.0, 2.0], "B": [2.0, 3.0, 1.0], "C": [3.0, 2.0, 3.0]}))
        >>> round(test.chi2, 3), test.df, round(test.f, 3), test.f_df
        (2.667, 2, 1.6, (2, 4))
        >>> friedman(pd.DataFrame({"A": [1.0, 1.0], "B": [2.0, 2.0]})).f_p
        0.5
    """
    ranks = block_ranks(scores, best=best).to_numpy(dtype=np.float64)
    blocks, methods = ranks.shape
    if blocks < 2 or methods < 2:
        raise DataError(f"Expected two methods and two blocks that both have, got {methods} and {blocks}; run more.")
    centred = ranks - (methods + 1) / 2
    inside = float(np.sum(centred**2)) / (blocks * (methods - 1))
    chi2 = float(np.sum(centred.sum(axis=0) ** 2)) / blocks / inside if inside else 0.0
    rest = blocks * (methods - 1) - chi2
    f_df = (methods - 1, (methods - 1) * (blocks - 1))
    f = (blocks - 1) * chi2 / rest if rest > 1e-9 * chi2 else math.inf
    p, null = float(special.chdtrc(methods - 1, chi2)), _null(ranks)
    f_p = _friedman_p(ranks, null) if null else max(float(special.fdtrc(*f_df, f)), _agreement(methods, blocks))
    return Friedman(chi2, methods - 1, p, f, f_df, f_p, null is not None, blocks, methods)


def critical_difference(methods: int, blocks: int, level: float = 0.95) -> float:
    """Nemenyi's critical difference of mean ranks, ``q sqrt(k (k + 1) / (6 N))``.

    ``q`` is the ``level`` quantile of the studentised range of k values with infinite degrees of freedom, over
    sqrt(2).

    Args:
        methods: k, at least 2.
        blocks: N, at least 1.
        level: 1 - the chance that any two equal methods are told apart.

    Raises:
        ConfigError: if there is nothing to compare or the level is not inside (0, 1).

    Reference:
        Nemenyi 1963; Demsar 2006, JMLR 7, section 3.2.2 and table 5.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    from scipy.stats import studentized_range

    if methods < 2 or blocks < 1 or not 0 < level < 1:
        raise ConfigError(
            f"Expected two methods, a block and a level inside (0, 1), got {methods}, {blocks} and {level}."
        )
    quantile = float(studentized_range.ppf(level, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * blocks))


def nemenyi(scores: pd.DataFrame, *, best: str = "low", level: float = 0.95) -> CriticalDifference:
    """Nemenyi's test of all pairs of methods: groups that cannot be told apart by their mean ranks.

    Nemenyi's difference is for many blocks; with few it may tell more apart than ``level`` allows (two methods that
    agree in four seeds, exact p 0.125). Where the arrangements of the ranks inside blocks can be counted, the
    difference is therefore raised to the smallest that the largest difference of any two mean ranks reaches with a
    chance of at most ``1 - level``; it is infinite, and all methods are one group, where there is none.

    Args:
        scores: one row per block, one column per method; blocks that a method lacks are left out. Blocks are taken
            as independent, so average those of one training seed first (``unit_means``).
        best: which score is best: "low", "high", or "zero" (nearest to 0).
        level: 1 - the chance that any two equal methods are told apart.

    Raises:
        ConfigError: if there are fewer than two methods or no block that all have.

    Reference:
        Demsar 2006, JMLR 7, section 3.2.2 and figure 1; Eisinga et al. 2017, BMC Bioinformatics 18 (why exact).

    Example:
        >>> scores = pd.DataFrame({"A": [1.0] * 12, "B": [2.0] * 12, "C": [3.0] * 6 + [2.5] * 6})
        >>> nemenyi(scores).groups
        (('A',), ('B',), ('C',))
    """
    ranks = block_ranks(scores, best=best)
    difference = _exact_difference(ranks, critical_difference(len(ranks.columns), len(ranks), level), level)
    means = ranks.mean().sort_values(kind="stable")
    order = {str(name): float(rank) for name, rank in means.items()}
    apart = [(a, b) for a, b in combinations(order, 2) if order[b] - order[a] >= difference - 1e-9]
    return CriticalDifference(difference, order, indistinct_groups(order, apart), len(ranks), level)


def indistinct_groups(names: Iterable[str], apart: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """The largest groups without a pair that is told apart, from any test of pairs.

    They are the maximal cliques of the graph that joins what is not told apart.

    Args:
        names: all methods, in the order in which groups are to be listed.
        apart: pairs that are told apart, in any order.

    Reference:
        Bron, Kerbosch 1973, Algorithm 457, Commun. ACM 16; Piepho 2004, J. Comput. Graph. Stat. 13 (letters).

    Example:
        >>> indistinct_groups("ABC", [("A", "C")])
        (('A', 'B'), ('B', 'C'))
    """
    order = list(dict.fromkeys(names))
    near = {name: set(order) - {name} for name in order}
    for first, second in apart:
        near[first].discard(second)
        near[second].discard(first)
    found: list[tuple[int, ...]] = []

    def grow(group: set[str], open_: set[str], closed: set[str]) -> None:
        if not open_ and not closed:
            found.append(tuple(sorted(order.index(name) for name in group)))
            return
        pivot = max(sorted(open_ | closed), key=lambda name: len(near[name] & open_))
        for name in sorted(open_ - near[pivot]):
            grow(group | {name}, open_ & near[name], closed & near[name])
            open_, closed = open_ - {name}, closed | {name}

    grow(set(), set(order), set())
    return tuple(tuple(order[place] for place in group) for group in sorted(found) if group)


def group_letters(groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Letters for a table: methods that share one cannot be told apart.

    Args:
        groups: what :func:`indistinct_groups` returns.

    Reference:
        Piepho 2004, An algorithm for a letter-based representation of all-pairwise comparisons.

    Example:
        >>> group_letters([("A", "B"), ("B", "C")])
        {'A': 'a', 'B': 'ab', 'C': 'b'}
    """
    letters: dict[str, str] = {}
    for place, group in enumerate(groups):
        letter = chr(ord("a") + place % 26) + str(place // 26 or "")
        for name in group:
            letters[name] = letters.get(name, "") + letter
    return letters


def _cluster_sums(ranks: pd.DataFrame, cluster: str | None) -> tuple[Array, Array]:
    """Sums of ranks and numbers of blocks of what is drawn."""
    values = ranks.to_numpy(dtype=np.float64)
    if cluster is None:
        return values, np.ones(len(values))
    if cluster not in ranks.index.names:
        known = ", ".join(map(repr, ranks.index.names))
        raise ConfigError(f"Expected a level of the index ({known}) as cluster, got '{cluster}'.")
    groups = ranks.groupby(level=cluster, sort=False)
    return groups.sum().to_numpy(dtype=np.float64), np.asarray(groups.size(), dtype=np.float64)


def _null(ranks: Array) -> tuple[NDArray[np.int_], Array] | None:
    """Rank sums, doubled and ascending, under all arrangements of the ranks inside blocks, and their chances.

    All methods are alike, so the first block stays and equal sums in another order are one; None where they are many.
    """
    doubled = np.rint(2 * ranks).astype(int)
    methods = doubled.shape[1]
    if math.factorial(methods) > ARRANGED:
        return None
    orders = np.array(list(permutations(range(methods))))
    sums: NDArray[np.int_] = np.sort(doubled[:1], axis=1)
    chances: Array = np.ones(1)
    for block in doubled[1:]:
        if len(sums) * len(orders) > ARRANGED:
            return None
        arranged = np.sort((sums[:, None] + block[orders]).reshape(-1, methods), axis=1)
        sums, places = np.unique(arranged, axis=0, return_inverse=True)
        shares = np.repeat(chances, len(orders)) / len(orders)
        chances = np.asarray(np.bincount(places.ravel(), shares), dtype=np.float64)
    return sums, chances


def _friedman_p(ranks: Array, null: tuple[NDArray[np.int_], Array]) -> float:
    """Chance of rank sums at least as far from each other as those observed, by their squares."""
    sums, chances = null
    observed = np.rint(2 * ranks).astype(int).sum(axis=0)
    return min(1.0, float(chances[np.sum(sums**2, axis=1) >= np.sum(observed**2)].sum()))


def _agreement(methods: int, blocks: int) -> float:
    """Chance that all blocks rank the methods alike, never 0."""
    orders: int = math.factorial(methods) ** (blocks - 1)
    return max(1 / orders, sys.float_info.min)


def _exact_difference(ranks: pd.DataFrame, difference: float, level: float) -> float:
    """The difference, or the next larger one that equal methods reach rarely enough; infinite without one."""
    null = _null(ranks.to_numpy(dtype=np.float64))
    if null is None:
        return difference if difference <= len(ranks.columns) - 1 else math.inf
    sums, chances = null
    widths = (sums[:, -1] - sums[:, 0]) / (2 * len(ranks))
    wider = [difference, *np.unique(widths[widths >= difference - 1e-9]).tolist()]
    rare = (width for width in wider if chances[widths >= width - 1e-9].sum() <= 1 - level + 1e-12)
    found = next(rare, math.inf)
    return found if widths.max() >= found - 1e-9 else math.inf
