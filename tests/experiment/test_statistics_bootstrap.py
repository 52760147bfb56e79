import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supreme.errors import ConfigError, DataError
from supreme.experiment.bootstrap import bootstrap_interval, interval_table, nested_bootstrap

SEEDS = ["training_seed", "unlearning_seed", "evaluation_seed"]


def grid(values):
    """A frame of (i, j, k) nested seeds from nested lists."""
    rows = [
        (i, 100 * i + j, 10_000 * i + 100 * j + k, value)
        for i, block in enumerate(values)
        for j, inner in enumerate(block)
        for k, value in enumerate(inner)
    ]
    return pd.DataFrame(rows, columns=[*SEEDS, "x"])


def test_quantiles_are_those_of_all_resamples():
    values = [1.0, 2.5, 4.0, 8.0, 16.0]
    means = [np.mean(pick) for pick in itertools.product(values, repeat=5)]
    got = bootstrap_interval(values, 0.9, expanded=False, replicates=40_000)
    assert (got.low, got.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])), abs=0.1)
    assert (got.mean, got.n, got.kind) == (6.3, 5, "bootstrap")


def test_expanded_quantiles_are_those_of_hesterberg():
    values = np.random.default_rng(0).normal(size=8)
    tail = stats.norm.cdf(-math.sqrt(8 / 7) * stats.t.ppf(0.975, 7))
    got = bootstrap_interval(values, replicates=3000, seed=5)
    want = bootstrap_interval(values, 1 - 2 * tail, expanded=False, replicates=3000, seed=5)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=1e-12)


def test_expanded_intervals_hold_the_mean_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), np.zeros(2)
    for _ in range(500):
        values = rng.normal(size=6)
        for place, expanded in enumerate((True, False)):
            got = bootstrap_interval(values, expanded=expanded, replicates=1000)
            hits[place] += got.low <= 0 <= got.high
    assert 0.92 <= hits[0] / 500 <= 0.98
    assert hits[1] / 500 < 0.9  # why they are expanded


def test_a_seed_gives_the_same_interval_and_another_a_different_one():
    values = [1.0, 2.0, 4.0, 7.0]
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, 0.5, seed=1, replicates=99) != bootstrap_interval(
        values, 0.5, seed=2, replicates=99
    )


@pytest.mark.parametrize(("values", "kind"), [([0.5], "single seed"), ([], "no value"), ([1, math.inf], "not finite")])
def test_no_interval_says_why(values, kind):
    got = bootstrap_interval(values)
    assert (got.low, got.high, got.kind) == (None, None, kind)


def test_one_seed_below_each_is_the_plain_bootstrap():
    values = [1.0, 2.0, 4.0, 7.0]
    nested = nested_bootstrap(grid([[[value]] for value in values]), "x", replicates=20_000)
    plain = bootstrap_interval(values, replicates=20_000)
    assert nested == plain
    many = np.random.default_rng(0).normal(size=200)
    assert nested_bootstrap(grid([[[value]] for value in many]), "x") == bootstrap_interval(many)


def closed_form_variance(tree):
    """Variance of the mean under resampling at every level, by the law of total variance."""
    if not isinstance(tree, list):
        return 0.0
    means = [np.mean(branch) for branch in tree]
    return (np.var(means) + np.mean([closed_form_variance(branch) for branch in tree])) / len(tree)


def test_nested_draws_have_the_variance_of_nested_resampling():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(30, 4, 3)) + 2 * rng.normal(size=(30, 1, 1)) + 3 * rng.normal(size=(30, 4, 1))
    got = nested_bootstrap(grid(values.tolist()), "x", level=0.6827, expanded=False, replicates=20_000)
    assert got.half_width == pytest.approx(math.sqrt(closed_form_variance(values.tolist())), rel=0.03)
    kept = nested_bootstrap(grid(values.tolist()), "x", SEEDS[:1], level=0.6827, expanded=False, replicates=20_000)
    assert kept.half_width == pytest.approx(math.sqrt(np.var(values.mean(axis=(1, 2))) / 30), rel=0.03)


def test_unequal_numbers_of_seeds_count_by_training_seed():
    data = grid([[[1.0, 3.0], [6.0]], [[10.0]]])
    got = nested_bootstrap(data, "x", replicates=4000, expanded=False, level=0.999999)
    assert got.mean == pytest.approx(((2.0 + 6.0) / 2 + 10.0) / 2)
    assert (got.low, got.high) == pytest.approx((1.0, 10.0), abs=0.01)


def test_nested_intervals_hold_the_mean_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(100):
        values = rng.normal(size=(6, 3, 1)) + rng.normal(size=(6, 1, 1))
        got = nested_bootstrap(grid(values.tolist()), "x", replicates=400)
        hits += got.low <= 0 <= got.high
    assert 0.92 <= hits / 100 <= 1.0


def test_targets_of_a_seed_are_averaged_first():
    data = pd.DataFrame({"s": [1, 1, 2, 2], "target": list("abab"), "x": [0.0, 4.0, 6.0, 8.0]})
    got = nested_bootstrap(data, "x", ["s"], expanded=False)
    assert (got.mean, got.low, got.high) == (4.5, 2.0, 7.0)


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="at least one bootstrap replicate"):
        bootstrap_interval([1.0, 2.0], replicates=0)
    with pytest.raises(ConfigError, match="column of seeds"):
        nested_bootstrap(grid([[[1.0]]]), "x", [])
    with pytest.raises(DataError, match="column 'y'"):
        nested_bootstrap(grid([[[1.0]]]), "y")


# --- the table of a study --------------------------------------------------------------------------------------------


def runs():
    """Two methods, three training seeds with two unlearning seeds each, two targets."""
    rng = np.random.default_rng(4)
    rows = [
        ("D", "M", "FullClass", target, method, "", s_t, 1000 * s_t + j, 10**6 * s_t + 1000 * j, rng.normal())
        for method in ("SSD", "JIT")
        for s_t in (1, 2, 3)
        for j in (0, 1)
        for target in "ab"
    ]
    names = ["dataset", "model", "scenario", "target", "method", "variant", *SEEDS, "mia"]
    return pd.DataFrame(rows, columns=names)


def test_the_table_has_means_over_training_seeds():
    data = runs()
    table = interval_table(data, ["mia"]).set_index("method")
    means = data[data["method"] == "JIT"].groupby("training_seed")["mia"].mean()
    row = table.loc["JIT"]
    assert row["mean"] == pytest.approx(means.mean())
    assert row["std"] == pytest.approx(means.std())
    low, high = stats.t.interval(0.95, 2, loc=means.mean(), scale=stats.sem(means))
    assert (row["t_low"], row["t_high"]) == pytest.approx((low, high))
    assert row["bootstrap_low"] < row["mean"] < row["bootstrap_high"]
    assert row[["n", "n_training_seed", "n_unlearning_seed", "n_evaluation_seed", "kind"]].tolist() == [3, 3, 6, 6, "t"]


def test_a_single_seed_has_a_label_and_no_spread():
    data = runs()[lambda frame: frame["training_seed"] == 1]
    row = interval_table(data, ["mia"]).iloc[0]
    assert row["kind"] == "single seed"
    assert row[["std", "t_low", "t_high", "bootstrap_low", "bootstrap_high"]].isna().all()
    assert (row["n"], row["n_unlearning_seed"]) == (1, 2)


def test_what_was_not_measured_is_not_in_the_table():
    data = runs().assign(zrf=math.nan)
    data.loc[data["method"] == "SSD", "zrf"] = 0.5
    table = interval_table(data, ["mia", "zrf"], replicates=0)
    assert table[["method", "metric"]].to_numpy().tolist() == [["SSD", "mia"], ["SSD", "zrf"], ["JIT", "mia"]]
    assert table["bootstrap_low"].isna().all()
    assert table.loc[1, ["std", "t_low", "t_high"]].tolist() == [0.0, 0.5, 0.5]
    assert interval_table(data.iloc[:0], ["mia"]).empty
