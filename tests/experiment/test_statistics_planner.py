import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supreme.errors import ConfigError, DataError
from supreme.experiment.seed_planner import (
    SeedCosts,
    SeedVariances,
    half_width,
    plan_seeds,
    seed_costs,
    stage_costs,
    variances_of_mean,
)
from supreme.experiment.variance import decompose


@pytest.mark.parametrize("sizes", [(5, 1, 1), (8, 3, 1), (4, 2, 5)])
def test_the_half_width_is_that_of_the_interval_of_training_means(sizes):
    variances, (i, j, k) = SeedVariances(1.0, 2.0, 4.0), sizes
    rng = np.random.default_rng(0)
    train, unlearn = rng.normal(0, 1, (20_000, i)), rng.normal(0, math.sqrt(2), (20_000, i, j)).mean(axis=2)
    means = train + unlearn + rng.normal(0, 2, (20_000, i, j, k)).mean(axis=(2, 3))
    measured = math.sqrt(np.mean(means.var(axis=1, ddof=1)) / i) * stats.t.ppf(0.975, i - 1)
    assert half_width(variances, i, j, k) == pytest.approx(measured, rel=0.02)
    covered = np.abs(means.mean(axis=1)) <= means.std(axis=1, ddof=1) / math.sqrt(i) * stats.t.ppf(0.975, i - 1)
    assert covered.mean() == pytest.approx(0.95, abs=0.006)


def test_the_normal_approximation_takes_the_normal_quantile():
    got = half_width(SeedVariances(1.0, 2.0, 4.0), 1, 2, 4, quantile="normal", level=0.9)
    assert got == pytest.approx(stats.norm.ppf(0.95) * math.sqrt(1 + 2 / 2 + 4 / 8))
    assert math.isnan(half_width(SeedVariances(1.0), 1))
    with pytest.raises(ConfigError, match="'t' or 'normal'"):
        half_width(SeedVariances(1.0), 2, quantile="best")


CASES = [
    (SeedVariances(1.0, 0.0, 0.0), SeedCosts(10.0, 1.0, 1.0), 0.8),
    (SeedVariances(1.0, 4.0, 0.0), SeedCosts(100.0, 10.0, 1.0), 1.2),
    (SeedVariances(0.2, 1.0, 5.0), SeedCosts(100.0, 20.0, 1.0), 0.9),
    (SeedVariances(0.0, 1.0, 2.0), SeedCosts(50.0, 5.0, 3.0), 0.6),
    (SeedVariances(0.5, 0.1, 9.0), SeedCosts(5.0, 5.0, 0.0), 1.0),
    (SeedVariances(0.3, 0.3, 0.3), SeedCosts(0.0, 1.0, 1.0), 0.7),
    (SeedVariances(0.0, 0.0, 0.0), SeedCosts(1.0, 1.0, 1.0), 0.1),
]


@pytest.mark.parametrize("quantile", ["t", "normal"])
@pytest.mark.parametrize(("variances", "costs", "wanted"), CASES)
def test_no_numbers_of_seeds_are_cheaper(variances, costs, wanted, quantile):
    found = plan_seeds(variances, costs, wanted, quantile=quantile, most=(40, 15, 15))
    least = (math.inf,)
    for i, j, k in itertools.product(range(1, 41), range(1, 16), range(1, 16)):
        if half_width(variances, i, j, k, quantile=quantile) <= wanted:
            least = min(least, (i * (costs.training + j * (costs.unlearning + k * costs.evaluation)), i * j * k))
    assert (found.cost_s, found.runs) == pytest.approx(least)
    seeds = (found.training, found.unlearning, found.evaluation)
    assert found.runs == math.prod(seeds)
    assert found.half_width == half_width(variances, *seeds, quantile=quantile) <= wanted * (1 + 1e-9)
    assert found.df == (found.training - 1 if quantile == "t" else math.inf)


def test_many_seeds_come_near_the_classical_optimum():
    found = plan_seeds(SeedVariances(1.0, 16.0), SeedCosts(90.0, 10.0, 0.0), 0.2, quantile="normal")
    least = (math.sqrt(90) + math.sqrt(160)) ** 2 * (stats.norm.ppf(0.975) / 0.2) ** 2  # without whole numbers
    assert least <= found.cost_s <= 1.005 * least
    assert abs(found.unlearning - math.sqrt(16 / 1 * 90 / 10)) <= 1
    assert found.evaluation == 1


def test_what_cannot_be_planned_is_said():
    with pytest.raises(ConfigError, match="can reach"):
        plan_seeds(SeedVariances(1.0), SeedCosts(1.0, 1.0, 1.0), 0.1, most=(10, 10, 10))
    for variances, wanted in ((SeedVariances(-1.0), 1.0), (SeedVariances(math.nan), 1.0), (SeedVariances(1.0), 0.0)):
        with pytest.raises(ConfigError, match="not negative"):
            plan_seeds(variances, SeedCosts(1.0, 1.0, 1.0), wanted)


# --- from a study to a plan ------------------------------------------------------------------------------------------


def study(targets=3, seed=0):
    rng = np.random.default_rng(seed)
    train, both, unlearn = rng.normal(0, 2, 6), rng.normal(0, 1, (targets, 6)), rng.normal(0, 1, (6, 3))
    rows = [
        (str(c), t, 10 * t + u, 10 * t + u, train[t] + both[c, t] + unlearn[t, u] + 10 * c + rng.normal(0, 0.5))
        for c in range(targets)
        for t in range(6)
        for u in range(3)
    ]
    return pd.DataFrame(rows, columns=["target", "training_seed", "unlearning_seed", "evaluation_seed", "x"])


def test_variances_of_the_mean_over_targets_are_those_of_averaged_values():
    data = study(seed=1)
    averaged = data.groupby(["training_seed", "unlearning_seed", "evaluation_seed"], as_index=False)["x"].mean()
    direct, mean = decompose(averaged, "x"), variances_of_mean(decompose(data, "x"))
    assert min(term.variance for term in decompose(data, "x").terms) > 0
    assert mean.training == pytest.approx(direct.component("training").variance)
    assert mean.unlearning == pytest.approx(direct.component("unlearning").variance)
    assert mean.evaluation == 0.0


def test_draws_count_with_the_seed_that_makes_them():
    rng = np.random.default_rng(2)
    draw, train, both = rng.normal(0, 2, 6), rng.normal(0, 1, 6), rng.normal(0, 1, (6, 6))
    rows = [(t, t, t, d, draw[d] + train[t] + both[t, d]) for t in range(6) for d in range(6)]
    names = ["training_seed", "unlearning_seed", "evaluation_seed", "draw_seed", "x"]
    found = decompose(pd.DataFrame(rows, columns=names), "x")
    terms = {term.name.split("+")[0]: term.variance for term in found.terms}
    mean = variances_of_mean(found)
    assert mean.training == terms["training"]
    assert mean.unlearning == pytest.approx(terms["draw"] + terms["draw x training"])


def test_repeats_count_with_the_evaluation():
    data = pd.DataFrame({"training_seed": [1, 1, 2, 2], "x": [1.0, 3.0, 6.0, 8.0]})
    assert variances_of_mean(decompose(data, "x")) == SeedVariances(11.5, 0.0, 2.0)


def test_a_single_training_seed_says_nothing_about_more():
    data = study()[lambda frame: frame["training_seed"] == 0]
    with pytest.raises(DataError, match="single seed"):
        variances_of_mean(decompose(data, "x"))


def test_costs_are_the_measured_times():
    rows = [
        (target, method, variant, time)
        for target, factor in (("3", 1.0), ("8", 2.0))
        for method, variant, time in (
            ("Original", "", math.nan),
            ("Retrain", "", 50 * factor),
            ("SSD", "a", 1.0),
            ("SSD", "a", 3.0),
            ("SSD", "b", 4.0),
        )
    ]
    data = pd.DataFrame(rows, columns=["target", "method", "variant", "time_s"])
    got = seed_costs(data, evaluation_s=0.5)
    assert got == SeedCosts(training=75.0, unlearning=150.0 + 2 * (2.0 + 4.0), evaluation=0.5 * 2 * 4)
    with pytest.raises(DataError, match="Retrain"):
        seed_costs(data[data["method"] == "SSD"])


def stages(rows, *, targets=("3", "8")):
    """Rows of stage_costs for two training seeds; ``rows`` gives kind, entry, seconds by target and unlearning seed."""
    names = ["kind", "entry", "key", "seconds", "training_seed", "unlearning_seed", "evaluation_seed"]
    found = [
        (kind, entry, f"{kind} {entry} {place}", seconds, t, u, e)
        for t in (1, 2)
        for u in (10 * t, 10 * t + 1)
        for target in targets
        for kind, entry, seconds, place, e in rows(t, u, target)
    ]
    return pd.DataFrame(found, columns=names)


def shared_work(t, u, target):
    yield from ((kind, "", 100.0 * t, t, u) for kind in ("train", "importances"))  # one for all targets and methods
    yield "original_outputs", "", 3.0, t, u
    yield "retrain", "", 80.0, (u, target), u
    yield "retrained_outputs", "", 2.0, (u, target), u
    for entry, seconds in (("SSD", 5.0), ("FT", 10.0)):
        failed = (entry, u, target) == ("FT", 11, "8")
        yield "unlearn", entry, math.nan if failed else seconds, (u, target), u
        for e in (100 * u, 100 * u + 1, 100 * u + 2):
            again = e > 100 * u
            seconds = math.nan if failed else 0.5 if again else 4.0
            yield "evaluate_again" if again else "evaluate", entry, seconds, (e, target), e


def test_costs_of_stages_count_what_is_shared_once_and_what_failed_as_if_it_had_not():
    got = stage_costs(stages(shared_work))
    training = 150.0 + 150.0 + 3.0  # the mean of 100 and 200 s twice; outputs of M_o for both targets
    unlearning = 2 * (80.0 + 2.0 + 5.0 + 10.0)
    first, again = 2 * 2 * 4.0, 2 * 2 * 0.5  # two targets, two methods
    assert got == pytest.approx(SeedCosts(training, unlearning + first - again, again))
    one = stages(shared_work)[lambda frame: frame["kind"] != "evaluate_again"]
    assert stage_costs(one) == pytest.approx(SeedCosts(training, unlearning, first))


def test_costs_need_the_time_of_a_retrained_model():
    found = stages(shared_work)
    with pytest.raises(DataError, match="'retrain'"):
        stage_costs(found[found["kind"] != "retrain"])
