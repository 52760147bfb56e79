"""Means, spreads and intervals over seeds: what one cell of a result table holds."""

import math
import statistics
from collections.abc import Hashable, Iterable
from typing import NamedTuple, TypeVar

from scipy import special

from supreme.errors import ConfigError

Seed = TypeVar("Seed", bound=Hashable)

SINGLE = "single seed"
NOTHING = "no value"
INFINITE = "not finite"


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


class Interval(NamedTuple):
    """A mean and where the true one may lie.

    Attributes:
        mean: arithmetic mean, NaN when there is no value.
        low: lower end, None where there is no interval.
        high: upper end, None where there is no interval.
        n: number of independent values.
        kind: how it was found ("t", "bootstrap"), or why there is none ("single seed", "no value", "not finite").
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    kind: str

    @property
    def half_width(self) -> float | None:
        """Half of the interval's length, None where there is no interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def single(self) -> bool:
        """Whether a single seed is all there is."""
        return self.kind == SINGLE


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


def t_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean and Student's interval, ``mean ± t(n - 1, (1 + level) / 2) std / sqrt(n)``; NaN counts as missing.

    Exact for independent normal values. Values that share a training seed are not independent: average them first.

    Args:
        values: one value per independent seed.
        level: share of such intervals that hold the true mean.

    Returns:
        The interval; without one (and so labelled) for a single seed.

    Raises:
        ConfigError: if the level is not inside (0, 1).

    Reference:
        Student 1908, The probable error of a mean, Biometrika 6.

    Example:
        >>> interval = t_interval([1.0, 2.0, 3.0])
        >>> interval.mean, round(interval.low, 3), round(interval.high, 3), interval.kind
        (2.0, -0.484, 4.484, 't')
        >>> t_interval([0.25])
        Interval(mean=0.25, low=None, high=None, n=1, kind='single seed')
    """
    mean, std, n = summary(values)
    quantile = t_quantile(level, max(n - 1, 1))
    if std is None:
        return Interval(mean, None, None, n, without_interval(n))
    half = quantile * std / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, "t")


def t_quantile(level: float, df: float) -> float:
    """What the standard error is multiplied by in a two-sided interval: the (1 + level) / 2 quantile of Student's t.

    Args:
        level: share of intervals that hold the true value.
        df: degrees of freedom; infinity gives the normal quantile.

    Raises:
        ConfigError: if the level is not inside (0, 1).

    Example:
        >>> round(t_quantile(0.95, 4), 3), round(t_quantile(0.95, float("inf")), 3)
        (2.776, 1.96)
    """
    if not 0 < level < 1:
        raise ConfigError(f"Expected a level inside (0, 1), got {level}; 0.95 gives 95 % intervals.")
    part = (1 + level) / 2
    return float(special.ndtri(part) if math.isinf(df) else special.stdtrit(df, part))


def without_interval(n: int) -> str:
    """Why ``n`` independent values have no interval.

    Example:
        >>> without_interval(0), without_interval(1), without_interval(5)
        ('no value', 'single seed', 'not finite')
    """
    return {0: NOTHING, 1: SINGLE}.get(n, INFINITE)


def _mean(values: list[float]) -> float:
    """The mean; NaN where both infinities meet."""
    if math.inf in values and -math.inf in values:
        return math.nan
    return statistics.fmean(values)
