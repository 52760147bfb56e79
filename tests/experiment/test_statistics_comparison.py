import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supreme.errors import ConfigError, DataError
from supreme.experiment.comparison import benjamini_hochberg, compare, score_table, sign_flip, unit_means, wilcoxon


def all_signs(n):
    return np.array(list(itertools.product((-1, 1), repeat=n)))


@pytest.mark.parametrize("n", [3, 5, 10, 25])
def test_wilcoxon_equals_scipy_without_ties(n):
    differences = np.random.default_rng(n).normal(0.5, 1.0, n)
    want = stats.wilcoxon(differences, method="exact")
    got = wilcoxon(differences)
    assert got.p == pytest.approx(want.pvalue, rel=1e-12)
    assert min(got.statistic, n * (n + 1) / 2 - got.statistic) == want.statistic
    assert got.exact


@pytest.mark.parametrize("seed", range(6))
def test_wilcoxon_with_ties_equals_the_count_of_all_signs(seed):
    differences = np.random.default_rng(seed).integers(-3, 5, 9).astype(float)
    known = differences[differences != 0]
    ranks = stats.rankdata(np.abs(known))
    observed = ranks[known > 0].sum()
    sums = (all_signs(len(known)) > 0) @ ranks
    want = min(1.0, 2 * min(np.mean(sums <= observed), np.mean(sums >= observed)))
    assert wilcoxon(differences).p == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(("n", "critical"), [(6, 0), (8, 3), (10, 8), (15, 25), (20, 52), (25, 89)])
def test_wilcoxon_has_the_critical_values_of_the_printed_tables(n, critical):
    # Largest T with a two-sided p of at most 0.05; Wilcoxon 1945 and later tables.
    def p(rank_sum):
        signs, left = np.ones(n), rank_sum
        for rank in range(n, 0, -1):
            if rank <= left:
                signs[rank - 1], left = -1.0, left - rank
        return wilcoxon(signs * np.arange(1, n + 1)).p

    assert p(critical) <= 0.05 < p(critical + 1)


@pytest.mark.parametrize("digits", [9, 1])
def test_wilcoxon_of_many_differences_is_that_of_scipy(digits):
    differences = np.random.default_rng(0).normal(0.1, 1.0, 150).round(digits)
    got = wilcoxon(differences)
    assert got.p == pytest.approx(stats.wilcoxon(differences, correction=True, method="asymptotic").pvalue, rel=1e-9)
    assert not got.exact


def test_equal_methods_are_not_told_apart():
    assert wilcoxon([0.0, 0.0])[1:] == (1.0, 1.0, True, 0)
    assert sign_flip([0.0, 0.0, 0.0]).p == 1.0
    assert math.isnan(sign_flip([math.nan]).p)


def test_sign_flip_equals_scipy():
    differences = np.random.default_rng(1).normal(0.4, 1.0, 10)
    want = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    got = sign_flip(differences)
    assert got.p == pytest.approx(want.pvalue, rel=1e-12)
    assert got.statistic == pytest.approx(differences.mean())
    assert got.exact


@pytest.mark.parametrize("seed", range(5))
def test_sign_flip_counts_ties_as_they_are(seed):
    differences = np.random.default_rng(seed).integers(-3, 4, 8) * 0.1  # sums that are equal but for rounding
    sums = all_signs(8) @ np.rint(differences * 10)
    assert sign_flip(differences).p == np.mean(np.abs(sums) >= abs(round(differences.sum() * 10)))


def test_sign_flip_of_many_differences_is_drawn():
    differences = np.random.default_rng(2).normal(0.25, 1.0, 60)
    got = sign_flip(differences, draws=20_000, seed=3)
    assert got.p == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, rel=0.1)
    assert got == sign_flip(differences, draws=20_000, seed=3)
    assert not got.exact
    assert sign_flip(np.ones(40), draws=999).p == 1 / 1000


def test_exact_tests_err_as_often_as_they_may():
    rng = np.random.default_rng(4)
    samples = rng.normal(size=(1500, 7))
    for test in (wilcoxon, sign_flip):
        share = np.mean([test(sample).p <= 0.0625 for sample in samples])
        assert share == pytest.approx(0.0625 if test is sign_flip else 0.047, abs=0.02)


@pytest.mark.parametrize(("dependent", "name"), [(False, "bh"), (True, "by")])
def test_adjusted_p_values_equal_scipy(dependent, name):
    values = np.random.default_rng(5).uniform(size=40) ** 2
    values[:4] = values[4]
    got = benjamini_hochberg(values, dependent=dependent)
    assert got == pytest.approx(stats.false_discovery_control(values, method=name), rel=1e-12)


def test_missing_p_values_do_not_count():
    got = benjamini_hochberg([0.02, math.nan, 0.03])
    assert got[[0, 2]] == pytest.approx([0.03, 0.03])
    assert math.isnan(got[1])
    assert benjamini_hochberg([]).size == 0
    with pytest.raises(DataError, match="p-values in"):
        benjamini_hochberg([1.5])


def test_false_discoveries_are_as_rare_as_promised():
    rng, shares = np.random.default_rng(6), []
    for _ in range(400):
        shift = np.repeat([0.0, 3.0], [15, 5])
        found = benjamini_hochberg(2 * stats.norm.sf(np.abs(rng.normal(shift)))) <= 0.1
        shares.append(found[:15].sum() / max(found.sum(), 1))
    assert np.mean(shares) == pytest.approx(0.1 * 15 / 20, abs=0.02)


# --- pairs of methods ------------------------------------------------------------------------------------------------


def runs():
    rng = np.random.default_rng(7)
    rows = [
        (target, seed, seed, seed, method, "5" if method == "SSD" else "", rng.normal(place, 0.5) + seed)
        for seed in range(6)
        for target in "ab"
        for place, method in enumerate(("JIT", "SSD", "FineTune"))
    ]
    names = ["target", "training_seed", "unlearning_seed", "evaluation_seed", "method", "variant", "mia"]
    return pd.DataFrame(rows, columns=names)


def test_scores_have_a_row_per_block_and_a_column_per_method():
    data = runs()
    scores = score_table(data, "mia")
    assert list(scores.columns) == ["JIT", "SSD (5)", "FineTune"]
    one = data[(data["target"] == "b") & (data["training_seed"] == 3) & (data["method"] == "SSD")]
    assert scores.loc[("b", 3, 3, 3), "SSD (5)"] == one["mia"].item()
    with pytest.raises(DataError, match="column 'nothing'"):
        score_table(data, "nothing")


def test_draws_of_the_forget_set_are_blocks_of_their_own():
    data = runs()
    draws = [data.assign(draw_seed=100 * data["training_seed"] + draw, mia=data["mia"] + draw) for draw in (1, 2)]
    both = pd.concat(draws)
    scores = score_table(both, "mia")
    assert len(scores) == 2 * len(score_table(data, "mia"))
    assert scores.loc[("b", 3, 3, 3, 302), "JIT"] - scores.loc[("b", 3, 3, 3, 301), "JIT"] == pytest.approx(1)
    mixed = score_table(pd.concat([both, data.assign(draw_seed=None, target="c")]), "mia")  # two scenarios in a frame
    assert mixed.loc[("c", 3, 3, 3, 3)].notna().all()


def test_pairs_are_tested_over_means_of_training_seeds():
    data = runs()
    table = compare(score_table(data, "mia")).set_index(["a", "b"])
    means = data.groupby(["method", "training_seed"])["mia"].mean()
    differences = (means["JIT"] - means["FineTune"]).to_numpy()
    row = table.loc[("JIT", "FineTune")]
    assert len(table) == 3
    assert row["n"] == 6
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["low"], row["high"]) == pytest.approx(
        stats.t.interval(0.95, 5, loc=differences.mean(), scale=stats.sem(differences))
    )
    assert row["effect"] == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert row["wilcoxon_p"] == pytest.approx(stats.wilcoxon(differences).pvalue)
    assert row["permutation_p"] == sign_flip(differences).p
    assert row["smallest_p"] == 2 / 2**6
    for test in ("wilcoxon", "permutation"):
        assert table[f"{test}_q"].to_numpy() == pytest.approx(stats.false_discovery_control(table[f"{test}_p"]))


def test_only_blocks_that_both_have_are_compared():
    scores = score_table(runs(), "mia")
    scores.iloc[0, 0] = math.nan  # target a of seed 0: target b is left
    both = scores[["JIT", "FineTune"]].dropna().groupby(level="training_seed").mean()
    row = compare(scores).iloc[1]
    assert row["difference"] == pytest.approx((both["JIT"] - both["FineTune"]).mean())
    assert row["n"] == 6


def test_gaps_are_compared_by_size():
    scores = pd.DataFrame({"A": [-2.0, -2.0, -2.0], "B": [1.0, 1.0, 1.0]})
    assert compare(scores, unit=None, absolute=True)["difference"].item() == 1.0
    assert compare(scores, unit=None)["difference"].item() == -3.0


def test_gaps_of_different_sign_in_a_unit_do_not_cancel():
    index = pd.MultiIndex.from_product([range(3), list("ab")], names=["training_seed", "target"])
    scores = pd.DataFrame({"A": [10.0, -10.0] * 3, "B": [1.0, 1.0] * 3}, index)
    assert compare(scores, absolute=True)["difference"].item() == 9.0
    assert compare(scores)["difference"].item() == -1.0


def test_a_single_seed_is_not_tested():
    row = compare(pd.DataFrame({"A": [1.0], "B": [2.0]}), unit=None).iloc[0]
    assert (row["kind"], row["difference"], row["n"]) == ("single seed", -1.0, 1)
    assert row[["low", "high", "effect", "wilcoxon_p", "permutation_p", "wilcoxon_q"]].isna().all()


def test_one_method_has_no_pairs():
    assert compare(pd.DataFrame({"A": [1.0]}), unit=None).empty


def test_an_unknown_unit_is_named():
    with pytest.raises(ConfigError, match="'seeds'"):
        unit_means(score_table(runs(), "mia"), "seeds")
