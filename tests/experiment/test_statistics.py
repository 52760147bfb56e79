import math

import numpy as np
import pytest
from scipy import stats

from supreme.experiment.statistics import Summary, seed_means, summary


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
