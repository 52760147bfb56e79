import math

import numpy as np
import pytest
from scipy import stats

from supreme.errors import ConfigError
from supreme.experiment.statistics import Interval, Summary, seed_means, summary, t_interval, t_quantile


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_mean_and_sample_std_equal_scipy(n):
    values = np.random.default_rng(n).normal(3.0, 0.2, n)
    got = summary(values)
    assert got.mean == pytest.approx(values.mean(), rel=1e-13)
    assert got.std == pytest.approx(stats.tstd(values), rel=1e-12)
    assert got.n == n


def test_equal_values_have_no_spread_at_all():
    assert summary([0.1] * 7) == Summary(0.1, 0.0, 7)


def test_a_small_spread_on_a_large_mean_is_kept():
    assert summary([1e9 + 1, 1e9 + 2, 1e9 + 3]).std == pytest.approx(1.0, rel=1e-12)


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert summary([2.5]) == Summary(2.5, None, 1)
    empty = summary([])
    assert math.isnan(empty.mean)
    assert empty[1:] == (None, 0)


def test_nan_is_a_missing_value():
    assert summary([1.0, math.nan, 3.0]) == Summary(2.0, math.sqrt(2.0), 2)
    assert summary([math.nan]).n == 0


def test_infinite_values_show_and_have_no_spread():
    assert summary([1.0, math.inf]) == Summary(math.inf, None, 2)
    both = summary([math.inf, -math.inf])
    assert math.isnan(both.mean)
    assert both.std is None


def test_targets_are_averaged_before_seeds():
    means = seed_means([(1, 0.0), (2, 10.0), (1, 2.0), (2, 14.0), (2, math.nan)])
    assert means == {1: 1.0, 2: 12.0}
    assert summary(means.values()).std == pytest.approx(11.0 / math.sqrt(2.0))
    assert seed_means([(1, math.nan)]) == {}


def test_seeds_may_be_any_key():
    assert seed_means([((1, 2, 3), 4.0)]) == {(1, 2, 3): 4.0}


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_t_intervals_equal_scipy(n, level):
    values = np.random.default_rng(n).normal(3.0, 0.2, n)
    got = t_interval(values, level)
    want = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (got.low, got.high) == pytest.approx(want, rel=1e-12)
    assert (got.n, got.kind) == (n, "t")
    assert got.half_width == pytest.approx((want[1] - want[0]) / 2)


def test_t_intervals_hold_the_mean_as_often_as_they_say():
    values = np.random.default_rng(0).normal(1.0, 2.0, (2000, 4))
    hits = sum(interval.low <= 1.0 <= interval.high for interval in map(t_interval, values.tolist()))
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_where_there_is_no_interval_it_says_why():
    one = t_interval([0.25, math.nan])
    assert one == Interval(0.25, None, None, 1, "single seed")
    assert one.single
    assert one.half_width is None
    assert t_interval([])[1:] == (None, None, 0, "no value")
    assert t_interval([1.0, math.inf])[1:] == (None, None, 2, "not finite")


def test_the_quantile_for_known_variances_is_the_normal_one():
    assert t_quantile(0.95, math.inf) == pytest.approx(stats.norm.ppf(0.975))
    assert t_quantile(0.9, 7) == pytest.approx(stats.t.ppf(0.95, 7))


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_is_a_share(level):
    with pytest.raises(ConfigError, match="level inside"):
        t_interval([1.0, 2.0], level)
