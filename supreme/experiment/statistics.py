"""Means and spreads over seeds: what one cell of a result table holds."""

import math
import statistics
from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeVar

Seed = TypeVar("Seed", bound=Hashable)


class Summary(NamedTuple):
    """Mean and spread of one cell.

    Attributes:
        mean: arithmetic mean, NaN when there is no value.
        std: sample standard deviation (divisor n - 1), None when n < 2 or a value is infinite.
        n: number of values.
    """

    mean: float
    std: float | None
    n: int


def summary(values: Iterable[float]) -> Summary:
    """Mean, sample standard deviation and number of values; NaN counts as a missing value.

    The sums are exact, so equal values have a spread of exactly 0.

    Args:
        values: one value per seed.

    Returns:
        The mean, the standard deviation with divisor n - 1, and n.

    Example:
        >>> summary([1.0, 2.0, 3.0])
        Summary(mean=2.0, std=1.0, n=3)
        >>> summary([0.1])
        Summary(mean=0.1, std=None, n=1)
    """
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return Summary(math.nan, None, 0)
    std = statistics.stdev(known) if len(known) > 1 and all(map(math.isfinite, known)) else None
    return Summary(_mean(known), std, len(known))


def seed_means(values: Iterable[tuple[Seed, float]]) -> dict[Seed, float]:
    """The mean of every seed's values (its forget targets); NaN counts as missing, seeds without a value are left out.

    Targets of one seed share an original model, so they are averaged before the spread over seeds is taken.

    Args:
        values: pairs of seed (any hashable) and value.

    Returns:
        The mean by seed, in order of first appearance.

    Example:
        >>> seed_means([(260, 1.0), (260, 3.0), (261, 5.0)])
        {260: 2.0, 261: 5.0}
    """
    by_seed: dict[Seed, list[float]] = {}
    for seed, value in values:
        if not math.isnan(value):
            by_seed.setdefault(seed, []).append(float(value))
    return {seed: _mean(items) for seed, items in by_seed.items()}


def _mean(values: list[float]) -> float:
    """The mean; NaN where both infinities meet."""
    if math.inf in values and -math.inf in values:
        return math.nan
    return statistics.fmean(values)
