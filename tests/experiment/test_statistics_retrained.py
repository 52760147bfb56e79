import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supreme.errors import DataError
from supreme.experiment.retrained_spread import (
    audit_retrained,
    audit_summary,
    gap_z,
    retrained_spread,
)

SEEDS = ["training_seed", "unlearning_seed", "evaluation_seed"]


def runs(seeds=5, unlearning=1, evaluation=1, seed=0):
    """Records of M_r and one method; every M_r has a value of its own, whatever the evaluation seed."""
    rng = np.random.default_rng(seed)
    rows = []
    for target in "ab":
        for t in range(seeds):
            for u in range(unlearning):
                model = rng.normal()
                for e in range(evaluation):
                    place = ("D", "M", "FullClass", target, t, 100 * t + u, 10_000 * t + 100 * u + e)
                    rows += [(*place, "Retrain", model), (*place, "SSD", model + rng.normal())]
    return pd.DataFrame(rows, columns=["dataset", "model", "scenario", "target", *SEEDS, "method", "mia"])


def models(data, target):
    chosen = data[(data["method"] == "Retrain") & (data["target"] == target)]
    return chosen.drop_duplicates(SEEDS[:2])["mia"].to_numpy()


@pytest.mark.parametrize(("unlearning", "evaluation"), [(1, 1), (2, 3)])
def test_the_spread_is_over_models_not_over_evaluations(unlearning, evaluation):
    data = runs(4, unlearning, evaluation)
    spread = retrained_spread(data, ["mia"]).set_index("target")
    values = models(data, "b")
    assert spread.loc["b", "n"] == len(values) == 4 * unlearning
    assert spread.loc["b", "mean"] == pytest.approx(values.mean())
    assert spread.loc["b", "std"] == pytest.approx(values.std(ddof=1))


def test_gaps_are_those_of_the_same_run_in_spreads_of_the_target():
    data = runs(5, 2, 2)
    got = gap_z(data, ["mia"])["mia_gap_z"]
    for place, run in data.iterrows():
        same = data[(data["method"] == "Retrain") & (data["target"] == run["target"])]
        same = same[(same[SEEDS] == run[SEEDS].tolist()).all(axis=1)]["mia"].item()
        want = (run["mia"] - same) / models(data, run["target"]).std(ddof=1)
        assert got[place] == pytest.approx(want)


def test_gaps_keep_the_order_of_the_rows():
    data = runs()
    shuffled = data.sample(frac=1.0, random_state=1)
    assert gap_z(shuffled, ["mia"])["mia_gap_z"].sort_index().equals(gap_z(data, ["mia"])["mia_gap_z"])


def test_a_single_retrained_model_has_no_spread():
    data = runs(1)
    spread = retrained_spread(data, ["mia"])
    assert set(spread["kind"]) == {"single seed"}
    assert spread["std"].isna().all()
    assert gap_z(data, ["mia"])["mia_gap_z"].isna().all()
    audit = audit_retrained(data, ["mia"])
    assert set(audit["kind"]) == {"single seed"}
    assert audit[["others_mean", "gap", "z", "p"]].isna().all(axis=None)
    assert not audit["flagged"].any()
    assert math.isnan(audit_summary(audit)["flagged"].iloc[0])


def test_a_metric_that_retrained_models_agree_on():
    data = pd.DataFrame({"method": ["Retrain"] * 3 + ["SSD"] * 3, "mia": [0.0, 0.0, 0.0, 0.0, 0.5, -0.5]})
    data = data.assign(target="3", **{name: [1, 2, 3] * 2 for name in SEEDS})
    assert gap_z(data, ["mia"], by=["target"])["mia_gap_z"].tolist() == [0, 0, 0, 0, math.inf, -math.inf]


def test_a_method_without_its_retrained_model_has_no_gap():
    data = runs(4)
    without = data[~((data["method"] == "Retrain") & (data["training_seed"] == 2))]
    missing = gap_z(without, ["mia"])["mia_gap_z"].isna()
    assert missing.equals(without["training_seed"] == 2)


def test_held_out_models_are_compared_with_the_others():
    data = runs(6)
    values = models(data, "a")
    audit = audit_retrained(data, ["mia"])
    for method, own in (
        ("Retrain", values),
        ("SSD", data.query("method == 'SSD' and target == 'a'")["mia"].to_numpy()),
    ):
        found = audit[(audit["target"] == "a") & (audit["method"] == method)].reset_index(drop=True)
        for place in range(6):
            others = np.delete(values, place)
            row = found.loc[place]
            assert row["value"] == own[place]
            assert row["gap"] == pytest.approx(own[place] - others.mean())
            assert row["z"] == pytest.approx((own[place] - others.mean()) / others.std(ddof=1))
            # The two-sample t-test of one value against the others is the same test.
            assert row["p"] == pytest.approx(stats.ttest_ind(others, own[place : place + 1]).pvalue)
    assert (audit["n"] == 6).all()
    assert (audit["kind"] == "audit").all()


def test_retrained_models_are_flagged_as_often_as_they_should_be():
    data = runs(1000, seed=3).assign(target=lambda frame: frame["training_seed"] // 8)
    audit = audit_retrained(data[data["method"] == "Retrain"], ["mia"])
    assert audit["n"].value_counts().index.tolist() == [8]
    assert audit["flagged"].mean() == pytest.approx(0.05, abs=0.012)
    summary = audit_summary(audit)
    assert summary["flagged"].mean() == pytest.approx(audit["flagged"].mean())
    one = audit[audit["target"] == 7]
    row = summary[summary["target"] == 7].iloc[0]
    assert row["gap_size"] == pytest.approx(one["gap"].abs().median())
    assert row["largest_gap"] == one["gap"].abs().max()


def test_with_three_seeds_a_method_as_good_as_retraining_has_the_size_of_another_retrained_model():
    rng = np.random.default_rng(5)
    names = ["target", *SEEDS, "method", "mia"]
    rows = [
        (target, seed, seed, seed, method, rng.normal(loc=3.0 * (method == "Far")))
        for target in range(1500)
        for seed in range(3)
        for method in ("Retrain", "Perfect", "Far")
    ]
    audit = audit_retrained(pd.DataFrame(rows, columns=names), ["mia"], by=["target"])
    sizes = audit_summary(audit, by=["method"]).set_index("method")["z_size"]
    # z is sqrt(3/2) times Student's t with one degree of freedom, whose |t| has the median 1 and no mean.
    assert sizes["Retrain"] == pytest.approx(math.sqrt(1.5), rel=0.08)
    assert sizes["Perfect"] == pytest.approx(math.sqrt(1.5), rel=0.08)
    assert sizes["Far"] > 2.5
    shares = audit.groupby("method")["flagged"].mean()
    assert shares["Perfect"] == pytest.approx(0.05, abs=0.015)


def drawn(seeds=3, draws=4, seed=0):
    """Three seeds crossed with four draws, each with a value of its own, in a frame that holds FullClass too."""
    rng = np.random.default_rng(seed)
    rows = []
    for scenario, found in (("RandomSample", range(draws)), ("FullClass", [None])):
        for t in range(seeds):
            for draw in found:
                place = ("D", "M", scenario, "0.1", t, t, t, draw)
                rows += [(*place, method, rng.normal(0 if draw is None else draw)) for method in ("Retrain", "SSD")]
    names = ["dataset", "model", "scenario", "target", *SEEDS, "draw_seed", "method", "mia"]
    return pd.DataFrame(rows, columns=names).astype({"draw_seed": "Int64"})


def test_models_of_different_draws_are_different_models():
    data = drawn()
    values = data.query("scenario == 'RandomSample' and method == 'Retrain'")["mia"]
    spread = retrained_spread(data, ["mia"]).set_index("scenario")
    assert spread.loc["RandomSample", "n"] == 12
    assert spread.loc["RandomSample", "std"] == pytest.approx(values.std(ddof=1))
    assert spread.loc["FullClass", "n"] == 3
    gaps = data.assign(z=gap_z(data, ["mia"])["mia_gap_z"])
    gaps = gaps.set_index(["scenario", "training_seed", "draw_seed"]).sort_index()
    assert (gaps.query("method == 'Retrain'")["z"] == 0).all()
    m_r, m_u = (gaps.query(f"method == '{name}'")["mia"] for name in ("Retrain", "SSD"))
    got = gaps.query("method == 'SSD'").loc["RandomSample", "z"]
    assert got.to_numpy() == pytest.approx(((m_u - m_r).loc["RandomSample"] / values.std(ddof=1)).to_numpy())
    audit = audit_retrained(data, ["mia"])
    counts = audit.groupby(["scenario", "method"])["n"].agg(["size", "max"])
    assert counts.to_numpy().tolist() == [[3, 3]] * 2 + [[12, 12]] * 2
    assert audit.query("method == 'Retrain'")["draw_seed"].tolist()[:12] == [0, 1, 2, 3] * 3


def test_two_models_are_too_few_to_judge():
    audit = audit_retrained(runs(2), ["mia"])
    assert set(audit["kind"]) == {"too few seeds"}
    assert audit["gap"].notna().all()
    assert audit[["z", "p"]].isna().all(axis=None)


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="'zrf'"):
        gap_z(runs(), ["zrf"])
    assert audit_retrained(runs().iloc[:0], ["mia"]).empty
