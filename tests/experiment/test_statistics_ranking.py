import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supreme.errors import ConfigError, DataError
from supreme.experiment.ranking import (
    block_ranks,
    critical_difference,
    friedman,
    group_letters,
    indistinct_groups,
    mean_ranks,
    nemenyi,
)

# Demsar 2006, table 6: AUC of four classifiers on 14 data sets. The two last values of one row (voting) are equal as
# printed, but the paper ranks them 2 and 3, so one of them has another digit here.
AUC = pd.DataFrame(
    [
        (0.763, 0.768, 0.771, 0.798),
        (0.599, 0.591, 0.590, 0.569),
        (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657),
        (0.882, 0.888, 0.886, 0.898),
        (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685),
        (0.583, 0.583, 0.563, 0.625),
        (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000),
        (0.940, 0.962, 0.965, 0.962),
        (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.975),
        (0.957, 0.978, 0.946, 0.970),
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)


def test_the_example_of_demsar():
    ranks = mean_ranks(AUC, best="high").set_index("method")["mean_rank"]
    assert ranks[AUC.columns].round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    found = nemenyi(AUC, best="high")
    assert found.difference == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.9) == pytest.approx(1.12, abs=0.005)
    assert nemenyi(AUC, best="high").groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    # At 0.10 the differences 3.143 - 1.964 and 3.143 - 2.000 count (section 3.2.2).
    assert nemenyi(AUC, best="high", level=0.9).groups == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+cf", "C4.5"))
    # The paper's 9.28 and 3.69 leave the correction for ties out.
    sums = ranks[AUC.columns].to_numpy() ** 2
    assert 12 * 14 / 20 * (sums.sum() - 4 * 25 / 4) == pytest.approx(9.28, abs=0.01)


def test_ranks_equal_scipy():
    scores = pd.DataFrame(np.random.default_rng(0).integers(-4, 4, (20, 5)).astype(float))
    assert np.array_equal(block_ranks(scores), stats.rankdata(scores, axis=1))
    assert np.array_equal(block_ranks(scores, best="high"), stats.rankdata(-scores, axis=1))
    assert np.array_equal(block_ranks(scores, best="zero"), stats.rankdata(scores.abs(), axis=1))
    with pytest.raises(ConfigError, match="'low', 'high' or 'zero'"):
        block_ranks(scores, best="large")


@pytest.mark.parametrize("digits", [0, 8])
def test_friedman_equals_scipy_with_and_without_ties(digits):
    scores = pd.DataFrame(np.random.default_rng(1).normal([0, 0.5, 1, 1], 1.0, (9, 4)).round(digits))
    got = friedman(scores)
    want = stats.friedmanchisquare(*scores.to_numpy().T)
    assert (got.chi2, got.p) == pytest.approx((want.statistic, want.pvalue), rel=1e-10)
    assert (got.blocks, got.methods, got.df) == (9, 4, 3)


@pytest.mark.parametrize("digits", [0, 8])
def test_iman_davenport_is_the_analysis_of_variance_of_the_ranks(digits):
    scores = np.random.default_rng(2).normal([0, 0.5, 1, 1, 1], 1.0, (8, 5)).round(digits)
    ranks = stats.rankdata(scores, axis=1)
    between = 8 * np.sum((ranks.mean(axis=0) - 3.0) ** 2)
    rest = np.sum((ranks - ranks.mean(axis=0) - ranks.mean(axis=1, keepdims=True) + 3.0) ** 2)
    got = friedman(pd.DataFrame(scores))
    assert got.f == pytest.approx((between / 4) / (rest / 28))
    assert got.f_p == pytest.approx(stats.f.sf(got.f, 4, 28))
    assert (got.f_df, got.exact) == ((4, 28), False)


def test_friedman_at_its_ends():
    agreed = friedman(pd.DataFrame([[1.0, 2.0, 3.0]] * 5))
    assert (agreed.chi2, agreed.f, agreed.exact) == (10.0, math.inf, True)
    assert agreed.f_p == pytest.approx(6.0**-4, rel=1e-9)  # one of the 6^4 ways to arrange four blocks by the first
    tied = friedman(pd.DataFrame([[1.0, 1.0, 1.0]] * 5))
    assert (tied.chi2, tied.p, tied.f, tied.f_p) == (0.0, 1.0, 0.0, pytest.approx(1.0))
    with pytest.raises(DataError, match="two blocks"):
        friedman(pd.DataFrame([[1.0, 2.0]]))


@pytest.mark.parametrize(("methods", "blocks", "want"), [(2, 2, 1 / 2), (2, 5, 1 / 16), (4, 3, 1 / 24**2)])
def test_blocks_that_agree_are_as_likely_as_they_are(methods, blocks, want):
    assert friedman(pd.DataFrame([list(map(float, range(methods)))] * blocks)).f_p == pytest.approx(want, rel=1e-9)


def every_arrangement(ranks):
    """Mean ranks under all rearrangements inside all blocks, one by one."""
    choices = [list(itertools.permutations(block)) for block in ranks.tolist()]
    return np.array([np.mean(rows, axis=0) for rows in itertools.product(*choices)])


@pytest.mark.parametrize(("seed", "shape"), [(0, (4, 3)), (1, (3, 3)), (2, (9, 2)), (3, (3, 4))])
@pytest.mark.parametrize("most", [3, 100])  # with and without ties
def test_few_blocks_have_the_p_value_of_all_arrangements(seed, shape, most):
    scores = pd.DataFrame(np.random.default_rng(seed).integers(0, most, shape).astype(float))
    ranks = stats.rankdata(scores, axis=1)
    centre = (shape[1] + 1) / 2
    spread = np.sum((every_arrangement(ranks) - centre) ** 2, axis=1)
    want = np.mean(spread >= np.sum((ranks.mean(axis=0) - centre) ** 2) - 1e-9)
    got = friedman(scores)
    assert got.exact
    assert got.f_p == pytest.approx(want, rel=1e-9)


def test_many_methods_that_agree_have_no_p_of_zero():
    got = friedman(pd.DataFrame([list(map(float, range(9)))] * 3))
    assert not got.exact
    assert got.f_p == pytest.approx(1 / math.factorial(9) ** 2, rel=1e-9)
    assert friedman(pd.DataFrame([list(map(float, range(20)))] * 60)).f_p > 0


# Demsar 2006, table 5 (a): critical values q of Nemenyi's test for 2 to 10 classifiers.
Q05 = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
Q10 = [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]


@pytest.mark.parametrize(("level", "table"), [(0.95, Q05), (0.9, Q10)])
def test_critical_differences_equal_the_printed_table(level, table):
    for methods, q in enumerate(table, start=2):
        unit = math.sqrt(methods * (methods + 1) / (6 * 11))
        assert critical_difference(methods, 11, level) / unit == pytest.approx(q, abs=0.0011)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ConfigError, match="two methods"):
        critical_difference(1, 5)
    with pytest.raises(ConfigError, match="a block"):
        nemenyi(pd.DataFrame({"A": [math.nan], "B": [1.0]}))


@pytest.mark.parametrize(("blocks", "apart"), [(1, False), (2, False), (4, False), (5, False), (6, True), (12, True)])
def test_two_methods_that_agree_are_apart_where_the_sign_test_says_so(blocks, apart):
    found = nemenyi(pd.DataFrame({"A": [1.0] * blocks, "B": [2.0] * blocks}))
    assert (stats.binomtest(blocks, blocks).pvalue <= 0.05) == apart
    assert (found.groups == (("A",), ("B",))) == apart
    assert math.isfinite(found.difference) == apart


def test_one_block_against_seven_is_not_apart():
    scores = pd.DataFrame({"A": [1.0] * 7 + [2.0], "B": [2.0] * 7 + [1.0]})
    assert critical_difference(2, 8) <= 0.75  # what the approximation would call a difference, though p is 0.0703
    assert stats.binomtest(1, 8).pvalue == pytest.approx(0.0703, abs=1e-4)
    assert nemenyi(scores).groups == (("A", "B"),)
    assert nemenyi(scores).difference == 1.0


@pytest.mark.parametrize(("methods", "blocks"), [(2, 7), (3, 3), (3, 5), (4, 3)])
def test_equal_methods_differ_by_the_difference_as_rarely_as_promised(methods, blocks):
    ranks = pd.DataFrame([list(map(float, range(1, methods + 1)))] * blocks)
    widths = np.ptp(every_arrangement(ranks.to_numpy()), axis=1)
    found = nemenyi(ranks).difference
    assert found >= critical_difference(methods, blocks)
    assert 0 < np.mean(widths >= found - 1e-9) <= 0.05


@pytest.mark.parametrize("methods", [3, 9])
def test_two_blocks_can_be_too_few_for_any_difference(methods):
    assert nemenyi(pd.DataFrame([list(map(float, range(methods)))] * 2)).difference == math.inf


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_all_maximal_sets_without_a_told_pair(seed):
    names = "ABCDEFG"
    rng = np.random.default_rng(seed)
    apart = [pair for pair in itertools.combinations(names, 2) if rng.random() < 0.4]
    free = [
        set(group)
        for size in range(1, 8)
        for group in itertools.combinations(names, size)
        if not any(pair in apart for pair in itertools.combinations(group, 2))
    ]
    want = {"".join(sorted(group)) for group in free if not any(group < other for other in free)}
    groups = indistinct_groups(names, [pair[::-1] if rng.random() < 0.5 else pair for pair in apart])
    assert {"".join(group) for group in groups} == want
    letters = group_letters(groups)
    for a, b in itertools.combinations(names, 2):
        assert bool(set(letters[a]) & set(letters[b])) == ((a, b) not in apart)


def test_mean_rank_intervals_are_quantiles_of_resampled_blocks():
    scores = pd.DataFrame(np.random.default_rng(3).normal([0, 0.3, 0.6], 1.0, (40, 3)), columns=list("ABC"))
    table = mean_ranks(scores, replicates=20_000).set_index("method").loc[list("ABC")]
    ranks = stats.rankdata(scores, axis=1)
    spread = ranks.std(axis=0) * stats.t.ppf(0.975, 39) / math.sqrt(39)  # of nearly normal means
    assert table["mean_rank"].to_numpy() == pytest.approx(ranks.mean(axis=0))
    assert ((table["high"] - table["low"]) / 2).to_numpy() == pytest.approx(spread, rel=0.04)
    assert table[["blocks", "n", "kind"]].iloc[0].tolist() == [40, 40, "bootstrap"]


def test_clusters_are_drawn_whole():
    one = np.random.default_rng(4).normal(size=(6, 3))
    index = pd.MultiIndex.from_product([range(6), ["a", "b"]], names=["training_seed", "target"])
    doubled = pd.DataFrame(np.repeat(one, 2, axis=0), index, columns=list("ABC"))
    clustered = mean_ranks(doubled, cluster="training_seed")
    single = mean_ranks(pd.DataFrame(one, columns=list("ABC")))
    assert np.array_equal(clustered[["mean_rank", "low", "high", "n"]], single[["mean_rank", "low", "high", "n"]])
    assert set(clustered["blocks"]) == {12}
    with pytest.raises(ConfigError, match="'seed'"):
        mean_ranks(doubled, cluster="seed")


def test_a_single_block_has_ranks_without_intervals():
    table = mean_ranks(pd.DataFrame({"A": [2.0], "B": [1.0]}))
    assert table["method"].tolist() == ["B", "A"]
    assert set(table["kind"]) == {"single seed"}
    assert table[["low", "high"]].isna().all(axis=None)


def test_incomplete_blocks_are_left_out():
    scores = pd.DataFrame({"A": [1.0, 2.0, 5.0], "B": [2.0, 1.0, math.nan]})
    assert set(mean_ranks(scores)["blocks"]) == {2}
    assert set(mean_ranks(scores.iloc[2:])["kind"]) == {"no value"}
