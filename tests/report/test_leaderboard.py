import copy
import hashlib
import math
import statistics

import pytest
from rich.console import Console
from scipy import stats

from supreme.errors import DataError
from supreme.report import leaders, print_grids
from supreme.report.leaderboard import plan_hash

METHODS = ("Original", "Retrain", "FineTune", "SSD", "LFSSD")


@pytest.fixture
def runs(plan, write_records):
    records = plan.records(methods=METHODS, seeds=(1, 2, 3))
    folder = write_records(records)
    (folder / "plans").mkdir()
    (folder / "plans" / "quickstart.yaml").write_text("name: quickstart\n", encoding="utf-8")
    return records, folder


def test_rows_in_order_with_intervals_and_origin(runs):
    records, folder = runs
    grids, data = leaders([folder])
    full = data[data["scenario"] == "FullClass"]
    sizes = {}
    for method in METHODS[2:]:
        chosen = [r for r in records if (r["run"]["method"], r["run"]["scenario"]) == (method, "FullClass")]
        by_seed = [
            statistics.fmean(
                (abs(r["metrics"]["forget/accuracy_gap"]) + abs(r["metrics"]["retain/accuracy_gap"])) / 2
                for r in chosen
                if r["run"]["training_seed"] == seed
            )
            for seed in (1, 2, 3)
        ]
        sizes[method] = by_seed
    order = sorted(sizes, key=lambda name: statistics.fmean(sizes[name]))
    assert full["method"].tolist() == order
    for line in full.to_dict("records"):
        values = sizes[line["method"]]
        low, high = stats.t.interval(0.95, 2, statistics.fmean(values), stats.sem(values))
        assert line["gap_size_mean"] == pytest.approx(statistics.fmean(values))
        assert (line["gap_size_low"], line["gap_size_high"]) == pytest.approx((low, high))
        assert line["plan_hash"] == hashlib.sha256(b"name: quickstart\n").hexdigest()[:16]
        assert line["seeds"] == "1 2 3"
        assert line["runs"] == "6/6"
        keys = {r["key"] for r in records if r["run"]["method"] == line["method"]}
        assert len(line["records"].split()) == 6
        assert set(line["records"].split()) <= keys
    assert [grid.title for grid in grids] == ["Digits, ResNet18, FullClass", "Digits, ResNet18, RandomSample, 0.05"]


def test_a_method_without_a_successful_run_has_no_row(plan, write_records):
    records = plan.records(methods=METHODS, scenarios=("FullClass",))
    for record in records:
        if record["run"]["method"] == "SSD":
            plan.fail(record)
    _, data = leaders([write_records(records)])
    assert set(data["method"]) == {"FineTune", "LFSSD"}
    assert set(data["plan_hash"]) == {""}


def test_two_plans_are_never_mixed_and_a_record_counts_once(runs, plan, write_records):
    records, folder = runs
    _, once = leaders([folder])
    _, twice = leaders([folder, folder])
    assert once.equals(twice)
    other = copy.deepcopy(records)
    for record in other:
        record["plan"], record["key"] = "other", "o" + record["key"][1:]
    _, both = leaders([folder, write_records(other, "second")])
    full = both[both["scenario"] == "FullClass"]
    assert full["method"].value_counts().to_dict() == {"FineTune": 2, "SSD": 2, "LFSSD": 2}
    assert set(full["plan"]) == {"quickstart", "other"}


def test_a_single_seed_is_labelled(plan, write_records):
    grids, data = leaders([write_records(plan.records(methods=METHODS, seeds=(7,), scenarios=("FullClass",)))])
    assert "single seed" in grids[0].notes[0]
    assert all(math.isnan(value) for value in data["gap_size_low"])
    console = Console(record=True, width=200)
    print_grids(grids, console)
    assert "single seed" in console.export_text()


def test_no_records_no_leaderboard(tmp_path):
    with pytest.raises(DataError):
        leaders([tmp_path])


def test_a_plan_name_never_leads_out_of_the_folder(tmp_path):
    (tmp_path / "x.yaml").write_text("name: x", encoding="utf-8")
    assert plan_hash(tmp_path / "runs", {"plan": "../../x"}) == ""
