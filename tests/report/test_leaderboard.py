import copy
import hashlib
import json
import logging
import math
import statistics

import pytest
from rich.console import Console
from scipy import stats

from supreme.errors import DataError
from supreme.report import leaders, print_grids

METHODS = ("Original", "Retrain", "FineTune", "SSD", "LFSSD")


def hashed(name, **content):
    text = json.dumps({"name": name, **content}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def add_plan(folder, name):
    (folder / "plans").mkdir(exist_ok=True)
    text = f"# a comment\nthreads: 1\nname: {name}\n"
    (folder / "plans" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return hashed(name, threads=1)


@pytest.fixture
def written(write_records):
    """Write records of a plan that lies beside them."""

    def write(records, name="out"):
        for record in records:
            record["plan_hash"] = hashed(record["plan"], threads=1)
        folder = write_records(records, name)
        for one in {record["plan"] for record in records}:
            add_plan(folder, one)
        return folder

    return write


@pytest.fixture
def runs(plan, written):
    records = plan.records(methods=METHODS, seeds=(1, 2, 3))
    return records, written(records)


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
        assert line["plan_hash"] == hashed("quickstart", threads=1)
        assert line["seeds"] == "1 2 3"
        assert line["runs"] == "6/6"
        keys = {r["key"] for r in records if r["run"]["method"] == line["method"]}
        assert len(line["records"].split()) == 6
        assert set(line["records"].split()) <= keys
    assert [grid.title for grid in grids] == ["Digits, ResNet18, FullClass", "Digits, ResNet18, RandomSample, 0.05"]


def test_a_method_without_a_successful_run_has_no_row(plan, written):
    records = plan.records(methods=METHODS, scenarios=("FullClass",))
    for record in records:
        if record["run"]["method"] == "SSD":
            plan.fail(record)
    _, data = leaders([written(records)])
    assert set(data["method"]) == {"FineTune", "LFSSD"}


def test_two_plans_are_never_mixed_and_a_record_counts_once(runs, written):
    records, folder = runs
    _, once = leaders([folder])
    _, twice = leaders([folder, folder])
    assert once.equals(twice)
    other = copy.deepcopy(records)
    for record in other:
        record["plan"], record["key"] = "other", "o" + record["key"][1:]
    _, both = leaders([folder, written(other, "second")])
    full = both[both["scenario"] == "FullClass"]
    assert full["method"].value_counts().to_dict() == {"FineTune": 2, "SSD": 2, "LFSSD": 2}
    assert set(full["plan"]) == {"quickstart", "other"}


def test_a_single_seed_is_labelled(plan, written):
    grids, data = leaders([written(plan.records(methods=METHODS, seeds=(7,), scenarios=("FullClass",)))])
    assert "single seed" in grids[0].notes[0]
    assert all(math.isnan(value) for value in data["gap_size_low"])
    console = Console(record=True, width=200)
    print_grids(grids, console)
    assert "single seed" in console.export_text()


def test_no_records_no_leaderboard(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found none"):
        leaders([tmp_path / "empty"])
    with pytest.raises(DataError, match="absent"):
        leaders([runs[1], tmp_path / "absent"])  # a slip, not a folder of something else


def test_folders_without_records_are_skipped_and_named(runs, tmp_path, caplog):
    other = tmp_path / "measurements"
    other.mkdir()
    (other / "speed.json").write_text("{}", encoding="utf-8")
    _, alone = leaders([runs[1]])
    with caplog.at_level(logging.WARNING):
        _, beside = leaders([other, runs[1]])
    assert beside.equals(alone)
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(other) in line


def refusal(folder):
    with pytest.raises(DataError) as caught:
        leaders([folder])
    text = str(caught.value)
    assert "\n" not in text
    assert "supreme run" in text
    return text


def test_a_plan_that_was_edited_since_is_no_origin(runs):
    folder = runs[1]
    _, before = leaders([folder])
    file = folder / "plans" / "quickstart.yaml"
    file.write_text("name: quickstart\nthreads: 1\n", encoding="utf-8")  # the same in another order
    assert leaders([folder])[1].equals(before)
    file.write_text("name: quickstart\nthreads: 2\n", encoding="utf-8")
    assert hashed("quickstart", threads=1) in refusal(folder)
    file.unlink()
    refusal(folder)


def test_a_record_without_a_hash_is_refused_by_name(runs):
    records, folder = runs
    file = folder / "records" / f"{records[3]['key']}.json"
    record = json.loads(file.read_text())
    for change in ({}, {"plan_hash": None}, {"plan_hash": ""}, {"plan_hash": "0" * 16}):
        del record["plan_hash"]
        record |= change
        file.write_text(json.dumps(record))
        assert records[3]["key"] in refusal(folder)
        record |= {"plan_hash": "x"}


def test_a_record_without_its_configuration_is_refused_by_name(runs):
    records, folder = runs
    file = folder / "records" / f"{records[3]['key']}.json"
    record = json.loads(file.read_text())
    del record["config"]
    file.write_text(json.dumps(record))
    assert records[3]["key"] in refusal(folder)


@pytest.mark.parametrize("part", ["dataset", "network", "training"])
def test_other_data_networks_and_trainings_are_other_boards(part, plan, written):
    """Two plans may call two folders of images by one name."""
    folders = []
    for name in ("faces", "birds"):
        records = plan.records(methods=METHODS, seeds=(1, 2))
        for record in records:
            record["plan"], record["key"] = name, f"{name}{record['key']}"
            record["config"] |= {"dataset": {"init_args": {"path": "x"}}, "network": {}, "training": {"epochs": 3}}
            record["config"][part] = {"init_args": {"path": name, "root": f"/{name}"}}
        folders.append(written(records, name))
    grids, data = leaders(folders)
    assert len(grids) == 2 * len(leaders(folders[:1])[0])
    assert all(len(set(group["plan"])) == 1 for _, group in data.groupby(["dataset", "model", "training"]))
    assert any("training" in grid.title for grid in grids) is (part == "training")
    if part == "dataset":
        assert {grid.title.partition(")")[0] for grid in grids} == {"Digits (path faces", "Digits (path birds"}
