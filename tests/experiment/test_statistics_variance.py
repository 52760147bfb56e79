import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.formula.api import mixedlm

from supreme.errors import ConfigError, DataError
from supreme.experiment.mean_squares import mean_squares
from supreme.experiment.random_terms import Term, layout, seed_terms
from supreme.experiment.reml import RandomTerms
from supreme.experiment.variance import decompose, variance_table

SEEDS = ("training_seed", "unlearning_seed", "evaluation_seed")
NESTED = (Term(("a",), ("a",)), Term(("b",), ("a", "b")))
CROSSED = (Term(("a",), ("a",)), Term(("b",), ("b",)))


def study(std, sizes=(5, 2, 2), targets=4, seed=0):
    """Simulated runs with seeds nested as in plans; ``std`` has target, s_t, target x s_t, s_u, s_e, target x s_e."""
    rng = np.random.default_rng(seed)
    i, j, k = sizes
    target, train = rng.normal(0, std[0], targets), rng.normal(0, std[1], i)
    both, unlearn = rng.normal(0, std[2], (targets, i)), rng.normal(0, std[3], (i, j))
    evaluate, rest = rng.normal(0, std[4], (i, j, k)), rng.normal(0, std[5], (targets, i, j, k))
    rows = [
        (
            *(str(c), t, 100 * t + u, 10_000 * t + 100 * u + e),
            target[c] + train[t] + both[c, t] + unlearn[t, u] + evaluate[t, u, e] + rest[c, t, u, e],
        )
        for c in range(targets)
        for t in range(i)
        for u in range(j)
        for e in range(k)
    ]
    data = pd.DataFrame(rows, columns=["target", *SEEDS, "x"])
    return data if targets > 1 else data.drop(columns="target")


def variances(found):
    return {term.name: term.variance for term in found.terms}


# --- mean squares ----------------------------------------------------------------------------------------------------


def test_nested_components_are_those_of_the_textbook():
    data = study((0, 2, 0, 1, 0.5, 0), (6, 3, 2), targets=1)
    cube = data["x"].to_numpy().reshape(6, 3, 2)
    ms_e = cube.var(axis=2, ddof=1).mean()
    ms_u = 2 * cube.mean(axis=2).var(axis=1, ddof=1).mean()
    ms_t = 6 * cube.mean(axis=(1, 2)).var(ddof=1)
    found = decompose(data, "x")
    want = {"training": (ms_t - ms_u) / 6, "unlearning": (ms_u - ms_e) / 2, "evaluation": ms_e}
    assert variances(found) == pytest.approx(want, rel=1e-10)
    assert (found.method, found.n, found.mean) == ("anova", 36, pytest.approx(cube.mean()))
    assert sum(one.share for one in found.components) == pytest.approx(1.0)


def test_crossed_components_are_those_of_the_textbook():
    table = np.random.default_rng(1).normal(size=(4, 7)) + np.random.default_rng(2).normal(0, 3, (4, 1))
    rows = [(a, b, table[a, b]) for a in range(4) for b in range(7)]
    data = pd.DataFrame(rows, columns=["target", "training_seed", "x"])
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    ms_rest = np.sum(rest**2) / 18
    ms_target, ms_train = 7 * table.mean(axis=1).var(ddof=1), 4 * table.mean(axis=0).var(ddof=1)
    got = mean_squares(data["x"].to_numpy(), [one.codes for one in layout(data, "x", seed_terms(data)).varied])
    assert got.values == pytest.approx([ms_target, ms_train, ms_rest])
    assert got.df.tolist() == [3, 6, 18]
    found = variances(decompose(data, "x"))
    assert found["target"] == pytest.approx((ms_target - ms_rest) / 7)
    assert found["target x training"] == pytest.approx(ms_rest)
    assert found["training"] == pytest.approx(max(0.0, (ms_train - ms_rest) / 4))


def test_unbiased_before_truncation():
    truth, got = (1.0, 2.0, 0.7, 1.0, 0.5, 0.3), []
    for seed in range(200):
        data = study(truth, (4, 2, 2), targets=3, seed=seed)
        varied = layout(data, "x", seed_terms(data)).varied
        got.append(mean_squares(data["x"].to_numpy(), [one.codes for one in varied]).estimates())
    names = [one.term.name for one in varied]
    assert names[:4] == ["target", "training", "unlearning", "evaluation"]
    assert names[4:] == ["target x training", "target x unlearning", "target x evaluation"]
    want = np.array([1.0, 4.0, 1.0, 0.25, 0.49, 0.0, 0.09])
    error = np.std(got, axis=0) / math.sqrt(200)
    assert np.all(np.abs(np.mean(got, axis=0) - want) < 3.5 * error)


@pytest.mark.parametrize("seed", range(3))
def test_components_of_a_large_study_are_the_true_ones(seed):
    found = decompose(study((0, 2.0, 0, 1.0, 0.5, 0), (300, 4, 4), targets=1, seed=seed), "x")
    want = {"training": 4.0, "unlearning": 1.0, "evaluation": 0.25}
    assert variances(found) == pytest.approx(want, rel=0.2)
    assert all(one.low < want[one.name] < one.high for one in found.components)


def test_the_interval_of_a_single_component_is_the_chi_squared_one():
    values = np.random.default_rng(3).normal(size=8)
    found = decompose(pd.DataFrame({"training_seed": range(8), "x": values}), "x", replicates=100_000).components[0]
    want = 7 * values.var(ddof=1) / stats.chi2.ppf([0.975, 0.025], 7)
    assert found.variance == pytest.approx(values.var(ddof=1))
    assert (found.low, found.high) == pytest.approx(tuple(want), rel=0.02)


def coverage(truth, want, drop=0):
    hits = dict.fromkeys(want, 0)
    for seed in range(100):
        data = study(truth, (6, 3, 1), targets=3, seed=seed)
        kept = data.drop(np.random.default_rng(seed).choice(len(data), drop, replace=False))
        found = decompose(kept, "x", replicates=400)
        for name, variance in want.items():
            one = found.component(name)
            hits[name] += one.low <= variance * (1 + 1e-9) and variance <= one.high
    return {name: count / 100 for name, count in hits.items()}


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    want = {"target": 1.0, "training": 0.64 + 0.25, "unlearning": 0.36 + 0.16}
    got = coverage((1.0, 0.8, 0.5, 0.6, 0.0, 0.4), want)
    assert all(0.9 <= share <= 0.99 for share in got.values()), got


def test_intervals_of_an_unbalanced_study_hold_the_truth_about_as_often_as_they_say():
    want = {"target": 1.0, "training": 0.64 + 0.25, "unlearning": 0.36 + 0.16}
    got = coverage((1.0, 0.8, 0.5, 0.6, 0.0, 0.4), want, drop=6)
    assert all(0.87 <= share <= 1.0 for share in got.values()), got


def test_a_negative_estimate_is_shown_as_zero_and_said_so():
    data = pd.DataFrame({"training_seed": [1, 1, 2, 2], "unlearning_seed": [1, 2, 3, 4], "x": [0.0, 4.0, 1.5, 3.0]})
    for method in ("anova", "reml"):
        one = decompose(data, "x", method=method).component("training")
        assert (one.variance, one.low, one.note) == (0.0, 0.0, "at 0")
        assert one.high > 0


# --- restricted likelihood -------------------------------------------------------------------------------------------


def dense_deviance(theta, values, covariances):
    """-2 log of the restricted likelihood, from its definition with n x n matrices."""
    n = len(values)
    v = sum(one * matrix for one, matrix in zip(theta, covariances, strict=True))
    inverse, ones = np.linalg.inv(v), np.ones(n)
    mean = ones @ inverse @ values / (ones @ inverse @ ones)
    rest = values - mean
    return (
        np.linalg.slogdet(v)[1]
        + math.log(ones @ inverse @ ones)
        - math.log(n)
        + rest @ inverse @ rest
        + (n - 1) * math.log(2 * math.pi)
    )


def unbalanced(terms, seed=4, rows=30, levels=(5, 8)):
    rng = np.random.default_rng(seed)
    a = rng.integers(levels[0], size=rows)
    b = rng.integers(levels[1], size=rows)
    x = rng.normal(0, 2, levels[0])[a] + rng.normal(0, 1, (levels[0], levels[1]))[a if terms is NESTED else 0, b]
    return pd.DataFrame({"a": a, "b": b, "x": x + rng.normal(size=rows)})


def matrices(data, terms):
    codes = [one.codes for one in layout(data, "x", terms).varied]
    return codes, [(one[:, None] == one[None, :]).astype(float) for one in codes]


@pytest.mark.parametrize("terms", [NESTED, CROSSED], ids=["nested", "crossed"])
def test_the_deviance_is_that_of_the_definition(terms):
    data = unbalanced(terms)
    codes, covariances = matrices(data, terms)
    model, values = RandomTerms(codes[:-1], len(data)), data["x"].to_numpy()

    def profiled(ratios):
        def of(residual):
            return dense_deviance(np.append(ratios, 1.0) * residual, values, covariances)

        return optimize.minimize_scalar(of, bounds=(1e-3, 50), method="bounded", options={"xatol": 1e-10}).fun

    points = [np.array([0.5, 2.0]), np.array([3.0, 0.1]), np.array([0.0, 1.0])]
    ours, want = [model.deviance(one, values)[0] for one in points], [profiled(one) for one in points]
    assert np.diff(ours) == pytest.approx(np.diff(want), abs=1e-7)
    assert want[0] - ours[0] == pytest.approx((len(data) - 1) * (1 + math.log(2 * math.pi)), abs=1e-6)
    numeric = optimize.approx_fprime(points[0], lambda one: model.deviance(one, values)[0], 1e-6)
    assert model.deviance(points[0], values)[1] == pytest.approx(numeric, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("terms", [NESTED, CROSSED], ids=["nested", "crossed"])
def test_the_fit_is_the_best_of_a_direct_search(terms, seed):
    data = unbalanced(terms, seed)
    _, covariances = matrices(data, terms)
    values = data["x"].to_numpy()
    found = decompose(data, "x", terms=terms, replicates=10)
    names = [one.name for one in found.terms]
    ours = dense_deviance([found.component(name).variance for name in names], values, covariances)
    search = optimize.minimize(
        lambda logs: dense_deviance(np.exp(logs), values, covariances), np.zeros(3), method="Nelder-Mead"
    )
    assert found.method == "reml"
    assert ours <= search.fun + 1e-5


def test_the_information_is_that_of_the_definition():
    data = unbalanced(NESTED)
    codes, covariances = matrices(data, NESTED)
    ratios, n = np.array([0.7, 1.3]), len(data)
    inverse = np.linalg.inv(sum(one * m for one, m in zip([*ratios, 1.0], covariances, strict=True)))
    p = inverse - np.outer(inverse.sum(axis=1), inverse.sum(axis=0)) / inverse.sum()
    want = [[np.trace(p @ first @ p @ second) for second in covariances] for first in covariances]
    model = RandomTerms(codes[:-1], n)
    assert model.information(ratios) == pytest.approx(np.array(want), rel=1e-9)
    squares = [data["x"] @ p @ one @ p @ data["x"] for one in covariances]
    step = model.scored(ratios, data["x"].to_numpy()[:, None])[0]
    assert step == pytest.approx(np.linalg.solve(want, squares), rel=1e-8)


def test_scoring_stays_where_the_fit_is():
    data = unbalanced(NESTED, 6)
    codes, _ = matrices(data, NESTED)
    model, values = RandomTerms(codes[:-1], len(data)), data["x"].to_numpy()
    found = model.fit(values)
    assert found.min() > 0
    assert model.scored(found[:-1] / found[-1], values[:, None])[0] == pytest.approx(found, rel=1e-4)


def test_simulated_values_have_the_covariance_of_the_model():
    model = RandomTerms([np.array([0, 0, 1, 1])], 4)
    drawn = model.simulate(np.array([2.0, 0.5]), 60_000, seed=0)
    want = 2.0 * np.kron(np.eye(2), np.ones((2, 2))) + 0.5 * np.eye(4)
    assert np.cov(drawn) == pytest.approx(want, abs=0.06)


@pytest.mark.parametrize("seed", range(3))
def test_reml_of_a_balanced_study_is_the_analysis_of_variance(seed):
    data = study((2.0, 2.0, 1.0, 1.0, 0, 0.5), (5, 3, 1), targets=3, seed=seed)
    anova, reml = (variances(decompose(data, "x", method=method, replicates=10)) for method in ("anova", "reml"))
    assert min(anova.values()) > 0
    assert reml == pytest.approx(anova, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_and_offsets_do_not_matter(scale):
    data = study((1.0, 2.0, 0, 1.0, 0, 0.5), (4, 2, 1), targets=3).drop(3)
    plain = variances(decompose(data, "x", replicates=10))
    scaled = variances(decompose(data.assign(x=scale * (data["x"] + 100)), "x", replicates=10))
    assert {name: one / scale**2 for name, one in scaled.items()} == pytest.approx(plain, rel=1e-3, abs=1e-6)


def mixed(data, groups, formulas):
    """Variances by statsmodels' MixedLM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mixedlm("x ~ 1", data, groups=groups, vc_formula=formulas, re_formula="0")
        fit = model.fit(reml=True, method="lbfgs")
    return dict(zip(sorted(formulas), fit.vcomp, strict=True)) | {"residual": fit.scale}


def test_an_unbalanced_nested_study_is_as_in_statsmodels():
    data = study((0, 2.0, 0, 1.0, 0.7, 0), (8, 3, 3), targets=1).drop([0, 5, 6, 7, 20, 40, 41])
    want = mixed(data, "training_seed", {"training": "1", "unlearning": "0 + C(unlearning_seed)"})
    got = variances(decompose(data, "x", replicates=10))
    assert got["training"] == pytest.approx(want["training"], rel=2e-3)
    assert got["unlearning"] == pytest.approx(want["unlearning"], rel=2e-3)
    assert got["evaluation"] == pytest.approx(want["residual"], rel=2e-3)


def test_an_unbalanced_crossed_study_is_as_in_statsmodels():
    data = study((1.5, 1.0, 0, 0.6, 0, 0.8), (5, 2, 1), targets=4, seed=2).drop([1, 8, 17, 30]).assign(all=1)
    formulas = {name: f"0 + C({name})" for name in ("target", "training_seed", "unlearning_seed")}
    want = mixed(data, "all", formulas)
    got = variances(decompose(data, "x", interactions=False, replicates=10))
    assert got["target"] == pytest.approx(want["target"], rel=5e-3)
    assert got["training"] == pytest.approx(want["training_seed"], rel=5e-3, abs=1e-4)
    assert got["unlearning+evaluation"] == pytest.approx(want["unlearning_seed"], rel=5e-3, abs=1e-4)
    assert got["residual"] == pytest.approx(want["residual"], rel=5e-3)


# --- what a study can tell apart -------------------------------------------------------------------------------------


def test_matched_seeds_are_one_source():
    data = pd.DataFrame({name: [260, 261, 262] for name in SEEDS} | {"x": [1.0, 2.0, 4.0]})
    (one,) = decompose(data, "x").components
    assert (one.name, one.levels, one.note) == ("training+unlearning+evaluation", 3, "")
    assert one.variance == pytest.approx(np.var([1.0, 2.0, 4.0], ddof=1))
    assert decompose(data, "x").component("unlearning") == one
    with pytest.raises(ConfigError, match="'draw'"):
        decompose(data, "x").component("draw")


def test_a_single_seed_has_a_label_and_no_number():
    data = pd.DataFrame({name: [260] for name in SEEDS} | {"target": ["3"], "x": [0.5]})
    found = decompose(data, "x")
    assert [(one.name, one.note) for one in found.components] == [
        ("target", "single target"),
        *((name, "single seed") for name in ("training", "unlearning", "evaluation")),
    ]
    assert found.frame()[["variance", "std", "low", "high", "share"]].isna().all(axis=None)
    assert (found.method, found.n) == ("none", 1)


def test_one_training_seed_with_several_unlearning_seeds():
    data = study((0, 1, 0, 1, 0.1, 0), (1, 4, 2), targets=1)
    found = decompose(data, "x")
    assert math.isnan(found.component("training").variance)
    assert found.component("training").note == "single seed"
    assert found.component("unlearning").variance > 0


def test_a_deterministic_evaluation_has_no_variance():
    data = study((0, 1.0, 0, 1.0, 0, 0), (4, 3, 5), targets=1)
    found = decompose(data, "x")
    one = found.component("evaluation")
    assert (one.variance, one.low, one.high, one.levels, one.note) == (0.0, 0.0, 0.0, 60, "values do not change")
    once = decompose(data.drop_duplicates(list(SEEDS[:2])), "x")
    assert found.component("unlearning").variance == pytest.approx(once.component("unlearning").variance)
    dropped = decompose(data.drop([1, 2, 30]), "x")  # still balanced once the copies are gone
    assert variances(dropped) == pytest.approx(variances(found))


def test_values_that_never_change_have_no_variance_at_all():
    found = decompose(study((0,) * 6), "x")
    assert {(one.variance, one.note) for one in found.components} == {(0.0, "values do not change")}
    matched = pd.DataFrame({name: [260, 261, 262] for name in SEEDS} | {"x": [0.0, 0.0, 0.0]})
    assert {one.variance for one in decompose(matched, "x").components} == {0.0}


def test_a_draw_that_follows_the_unlearning_seed_is_one_source_with_it():
    data = study((0, 1.0, 0, 1.0, 0.5, 0), (4, 3, 2), targets=1)
    names = [one.name for one in decompose(data.assign(draw_seed=data["unlearning_seed"]), "x").components]
    assert names == ["training", "unlearning+draw", "evaluation"]


def test_a_draw_of_its_own_is_told_apart():
    rng = np.random.default_rng(8)
    draw, train = rng.normal(0, 3.0, 40), rng.normal(0, 1.0, 40)
    rows = [(t, t, t, d, draw[d] + train[t] + rng.normal(0, 0.5)) for t in range(40) for d in range(40)]
    found = decompose(pd.DataFrame(rows, columns=[*SEEDS, "draw_seed", "x"]), "x")
    assert {one.name for one in found.components} == {"training+unlearning+evaluation", "draw"}
    assert [one.name for one in found.terms][-1] == "draw x training+unlearning+evaluation"
    assert found.component("draw").variance == pytest.approx(9.0, rel=0.5)
    assert found.component("draw").variance == pytest.approx(np.var(draw, ddof=1), rel=0.02)
    assert found.component("training").variance == pytest.approx(np.var(train, ddof=1) + 0.25, rel=0.05)


def test_draws_inside_training_seeds():
    data = study((0, 2.0, 0, 1.0, 0, 0), (5, 3, 1), targets=1)
    data["draw_seed"], data["unlearning_seed"] = data["unlearning_seed"], data["training_seed"]
    data["evaluation_seed"] = data["training_seed"]
    assert [one.name for one in decompose(data, "x").terms] == ["training+unlearning+evaluation", "draw"]


def test_repeated_runs_leave_a_residual():
    data = pd.DataFrame({"training_seed": [1, 1, 2, 2], "x": [1.0, 3.0, 6.0, 8.0]})
    assert variances(decompose(data, "x")) == {"training": 11.5, "residual": 2.0}


def test_what_the_design_cannot_separate_is_said():
    data = pd.DataFrame({"a": [0, 0, 1, 1, 1], "b": [0, 1, 0, 0, 1], "x": [0.0, 1.0, 5.0, 2.0, 7.0]})
    terms = (*CROSSED, Term(("c",), ("c",)), Term(("b", "a"), ("a", "b")))
    found = decompose(data.assign(c=[0, 1, 2, 2, 3]), "x", terms=terms, replicates=10)
    assert [one.name for one in found.components if not one.note or one.note == "at 0"] == ["a", "b", "c", "residual"]
    few = pd.DataFrame({"a": [0, 0, 1], "b": [0, 1, 1], "c": [0, 1, 0], "x": [0.0, 1.0, 5.0]})
    found = decompose(few, "x", terms=(*CROSSED, Term(("c",), ("c",))), replicates=10)
    assert (found.component("c").note, found.component("a").note) == ("cannot be separated", "")
    assert math.isnan(found.component("c").variance)


def test_missing_values_are_left_out():
    data = study((0, 1.0, 0, 1.0, 0, 0), (4, 3, 1), targets=1)
    more = pd.concat([data, data.iloc[:2].assign(x=[math.nan, math.inf], training_seed=9)])
    assert variances(decompose(more, "x")) == variances(decompose(data, "x"))
    assert decompose(data.assign(x=math.nan), "x").method == "none"


def test_bad_arguments_are_named():
    data = study((0, 1.0, 0, 1.0, 0, 0), (4, 3, 1), targets=1)
    with pytest.raises(ConfigError, match="balanced design"):
        decompose(data.drop(0), "x", method="anova")
    with pytest.raises(ConfigError, match="'auto', 'anova' or 'reml'"):
        decompose(data, "x", method="best")
    with pytest.raises(ConfigError, match="the term 'b'"):
        decompose(data, "x", terms=[Term(("training", "b"), ("training_seed",))])
    with pytest.raises(DataError, match="column 'y'"):
        decompose(data, "y")


def test_the_same_seed_gives_the_same_intervals():
    data = study((1.0, 1.0, 0, 1.0, 0, 0.5), (4, 3, 1), targets=2)
    for kept in (data, data.drop(2)):
        assert decompose(kept, "x", seed=3).frame().equals(decompose(kept, "x", seed=3).frame())


def test_the_table_has_a_row_per_component():
    data = pd.concat([study((1, 1, 0, 1, 0, 0.5), seed=seed).assign(method=str(seed)) for seed in range(2)])
    table = variance_table(data.assign(y=math.nan), ["x", "y"], by=["method"])
    assert table.groupby("method").size().tolist() == [4, 4]
    one = decompose(data[data["method"] == "1"], "x").frame()
    assert table[table["method"] == "1"]["variance"].tolist() == one["variance"].tolist()
    assert set(table["metric"]) == {"x"}
    assert variance_table(data, [], by=["method"]).empty
