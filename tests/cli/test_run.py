import json
import os
import pickle
import shutil

import pytest
import torch

from supreme.cli import run
from supreme.evaluation import Outputs
from supreme.experiment.plan import load_plan
from supreme.experiment.progress import duration
from supreme.models.stored import load_model

BROKEN = """
from supreme.methods import LFSSD

class Broken(LFSSD):
    '''Fails.'''

    def finish(self):
        raise RuntimeError("no luck today")
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def test_a_plan_from_start_to_report(plan, results, supreme):
    result = supreme("run", plan(), "--workers=1", "--output", results)
    assert result.code == 0, result.err
    assert "3 runs done, 0 were there before, 0 failed" in result.err
    assert all(word in result.out for word in ("SSD", "Retrain", "Original", "FullClass"))
    assert (results / "report" / "index.html").stat().st_size > 10_000
    assert f"Report: {results / 'report' / 'index.html'}" in result.out


def test_a_second_time_there_is_nothing_to_do(plan, results, process):
    page, before = results / "report" / "index.html", os.times().children_user
    written = page.stat().st_mtime_ns
    result = process("run", plan(), "--output", results)
    assert os.times().children_user - before < 10  # of the processor, whatever else it does
    assert page.stat().st_mtime_ns == written
    assert f"Report: {page}" in result.out
    assert result.code == 0, result.err
    assert "Nothing to do: all 3 runs have their result" in result.err
    assert "SSD" in result.out


def test_status_of_folder_and_plan(plan, results, process, supreme):
    by_folder = process("status", results)
    assert by_folder.code == 0
    assert "3 runs: 3 done, 0 running, 0 queued, 0 failed" in by_folder.out
    assert supreme("status", plan(), "--output", results).out == by_folder.out
    assert "69 runs: 0 done" in supreme("status", "quickstart").out


def test_report_elsewhere(results, process, inside):
    result = process("report", results, "--output", "there", "--per_target")
    assert result.code == 0, result.err
    assert (inside / "there" / "tables.csv").exists()
    assert "SSD" in result.out


def test_a_failed_run_is_shown_and_counts(plan, inside, supreme, results, monkeypatch):
    """All but the broken method is there from before."""
    (inside / "my_broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(inside)
    shutil.copytree(results, inside / "runs" / "small")
    result = supreme("run", plan(methods=["SSD", "my_broken.Broken"]), "--workers=1")
    assert result.code == 1
    assert "no luck today" in result.err
    assert "0 runs done, 3 were there before, 1 failed" in result.err
    assert "SSD" in result.out
    status = supreme("status", "runs/small")
    assert (status.code, "no luck today" in status.out) == (1, True)


def test_a_dry_run_lists_and_writes_nothing(plan, supreme, inside):
    name = plan(
        methods=["SSD", "UNSIR"],
        scenarios=[{"class_path": "FullClass", "targets": [3]}, {"class_path": "RandomSample", "targets": [0.1]}],
    )
    before = sorted(inside.rglob("*"))
    result = supreme("run", name, "--dry_run", "--only=method=SSD")
    assert result.code == 0
    assert "queued   SSD, FullClass 3, ResNet18 on Digits, seed 5" in result.out
    assert "left out UNSIR in RandomSample" in result.out
    assert "shared   train ResNet18 on Digits, seed 5: 2 runs" in result.out
    rows = [" ".join(line.split()) for line in result.out.splitlines()]
    assert "unlearn 4 0 4 0 unknown" in rows
    assert "importances 1 0 1 1 unknown" in rows  # of D, for both requests
    assert "outputs 3 0 3 1 unknown" in rows  # of M_o for both, of M_r for each
    assert any(row.startswith("in all 11 0 11 3 unknown with") for row in rows), rows
    assert "The time is not known" in result.out
    assert "2 runs, 0 of them done already; results go to runs/small" in result.out
    assert sorted(inside.rglob("*")) == before


def test_a_dry_run_knows_the_time_from_other_plans(plan, supreme, inside, finished):
    """The plan beside it has the same stages but for the seed."""
    shutil.copytree(finished, inside / "runs" / "finished")
    result = supreme("run", plan(seeds=[6, 7]), "--dry_run", "--workers=2")
    rows = {line.split()[0]: line for line in result.out.splitlines()}
    assert "unknown" not in result.out
    times = [json.loads(path.read_text())["seconds"] for path in (finished / "stages" / "train").glob("*/stage.json")]
    assert rows["train"].endswith(f"about {duration(2 * times[0])}")
    assert rows["in"].endswith("with 2 workers")


def test_what_each_metric_costs_is_in_the_records_and_in_no_table(finished, supreme, inside):
    records = [json.loads(path.read_text()) for path in (finished / "records").iterdir()]
    assert len(records) == 3
    for record in records:
        costs = record["evaluation_costs"]
        metrics = {key.partition("/")[2] for key in costs}
        assert {"accuracy", "loss", "js_divergence", "layerwise_distance", "zrf", "mia"} <= metrics
        assert set(costs) == {f"{kind}/{m}" for kind in ("metric_time_s", "metric_peak_memory_bytes") for m in metrics}
        assert all(0 < costs[f"metric_time_s/{metric}"] < 60 for metric in metrics)
        assert all(costs[f"metric_peak_memory_bytes/{metric}"] >= 0 for metric in metrics)
        assert not any("metric_" in key for key in record["metrics"])
    shown = supreme("report", finished, "--output", "there")
    assert shown.code == 0
    assert "metric_time_s" not in shown.out + (inside / "there" / "tables.csv").read_text()


def test_checkpoints_are_dropped_and_evaluate_says_so(plan, supreme, inside):
    result = supreme("run", plan(checkpoints="drop"), "--workers=1")
    assert result.code == 0, result.err
    (dropped,) = (inside / "runs/small/stages/unlearn").glob("*/dropped.json")
    assert sorted(path.name for path in dropped.parent.iterdir()) == ["dropped.json", "model.json"]
    assert len(list((inside / "runs/small/stages").glob("*/*/model.safetensors"))) == 2  # M_o and M_r
    again = supreme("run", plan(checkpoints="drop"), "--workers=1")
    assert "Nothing to do: all 3 runs have their result" in again.err
    assert "unlearn 2/2" in supreme("status", "runs/small").out
    asked = supreme("evaluate", "--unlearned", dropped.parent)
    assert asked.code == 2
    assert len(asked.err.splitlines()) == 1
    assert "a plan with 'checkpoints: drop' removes them after evaluation" in asked.err


def test_nothing_in_a_run_folder_needs_pickle(finished, monkeypatch):
    """Weights and outputs are safetensors, all else is text; they are read with pickle out of action."""

    def refuse(*_):
        raise AssertionError("something was unpickled")

    files = [path for path in finished.rglob("*") if path.is_file() and path.relative_to(finished).parts[0] != "report"]
    assert {path.suffix for path in files if not path.name.startswith(".")} == {
        ".json",
        ".csv",
        ".yaml",
        ".safetensors",
    }
    for path in files:
        if path.suffix == ".safetensors":
            length = int.from_bytes(path.read_bytes()[:8], "little")
            json.loads(path.read_bytes()[8 : 8 + length])  # the header of the format
        else:
            path.read_text(encoding="utf-8")
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    weights = list(finished.glob("stages/*/*/model.safetensors"))
    assert len(weights) == 3
    for path in weights:
        assert load_model(path.parent)[0].num_classes == 10
    outputs = [path for path in files if path.name in ("outputs.safetensors", "incompetent.safetensors")]
    assert len(outputs) == 2 + 1 + 3
    for path in outputs:
        assert Outputs.load(path).logits.shape[1] == 10


@pytest.mark.parametrize(
    ("changes", "words", "text"),
    [
        ({"metods": ["SSD"]}, (), "'methods'"),
        ({"methods": ["SDD"]}, (), "'SSD'"),
        ({"methods": [{"class_path": "SSD", "init_args": {"selecton_weight": 1}}]}, (), "'selection_weight'"),
        ({"scenarios": [{"class_path": "FullClas", "targets": [1]}]}, (), "'FullClass'"),
        ({"scenarios": [{"class_path": "RandomSample", "targets": [1.0]}]}, (), "inside (0, 1)"),
        ({"training": {"epoch": 1}}, (), "'epochs'"),
        ({"checkpoints": "drop it"}, (), "Expected keep or drop"),
        ({"seeds": {"training": [1, 1000], "unlearning": 2}}, (), "1000 is a training seed and an unlearning seed"),
        ({"seeds": {"training": [1], "draw": [3]}}, (), "No scenario of the plan draws"),
        ({}, ("--workers=0",), "at least one worker"),
        ({}, ("--only=mehod=SSD",), "'method'"),
        ({}, ("--output=file/x",), "file/x"),
        ({}, ("--forse=x",), "'--force'"),
    ],
)
def test_wrong_plans_and_words(changes, words, text, plan, supreme, inside):
    (inside / "file").write_text("")
    name = plan(**changes)
    before = sorted(inside.rglob("*"))
    result = supreme("run", name, *words)
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert text in result.err
    assert sorted(inside.rglob("*")) == before


def test_a_plan_that_is_not_there(process, refused):
    refused(process("run", "quickstrat"), "did you mean 'quickstart'")


def test_status_and_report_of_nothing(supreme, refused):
    refused(supreme("status", "nowhere"), "'nowhere'")
    refused(supreme("report", "nowhere"), "nowhere")


@pytest.mark.parametrize(
    ("trainer", "devices", "expected"),
    [
        ({"accelerator": "cpu"}, ["0", "1"], None),
        ({}, [], None),
        ({}, ["0", "1"], ["0", "1"]),
        ({"accelerator": "gpu", "devices": 2}, ["0", "1"], []),
    ],
)
def test_workers_by_device(trainer, devices, expected, plan, monkeypatch, inside):
    monkeypatch.setattr(run, "_devices", lambda: devices)
    monkeypatch.setattr(run, "_metal", lambda: False)
    given = load_plan(plan(trainer=trainer, threads=1))
    gpus = run._gpus(given)
    assert gpus == expected
    assert run._workers(given, gpus) == (max(1, len(expected)) if expected is not None else run._workers(given, None))


@pytest.mark.parametrize(
    ("trainer", "threads", "workers", "fits"),
    [
        ({"accelerator": "cpu"}, 1, 4, ""),
        ({"accelerator": "cpu"}, 2, 2, ""),
        ({"accelerator": "cpu"}, 1, 8, "--workers 4 fits"),
        ({"accelerator": "cpu"}, 2, 3, "--workers 2 fits"),
        ({"accelerator": "cpu"}, 8, 1, "--workers 1 and threads: 4 fits"),
        ({"accelerator": "cpu", "devices": 2}, 2, 2, "--workers 1 fits"),
        ({"accelerator": "gpu"}, 1, 8, ""),
    ],
)
def test_more_threads_than_cores_are_warned_of(trainer, threads, workers, fits, plan, supreme, monkeypatch):
    monkeypatch.setattr(run, "_devices", lambda: ["0"])
    monkeypatch.setattr(run, "_cores", lambda: 4)
    result = supreme("run", plan(trainer=trainer, threads=threads), "--dry_run", "--workers", workers)
    assert result.code == 0
    lines = result.err.splitlines()
    assert len(lines) == bool(fits)
    assert all(line.startswith("warning: ") and line.endswith(f"{fits}.") for line in lines)


def test_the_work_itself_warns_too(plan, monkeypatch, capsys):
    """Before anything is started; the run is stopped there."""
    monkeypatch.setattr(run, "_cores", lambda: 2)
    monkeypatch.setattr(run, "run_plan", lambda *_, **__: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        run.main("run", [plan(), "--workers=8"])
    assert capsys.readouterr().err.startswith("warning: 8 stages at a time with 1 thread each on 2 cores")


@pytest.mark.parametrize(("visible", "expected"), [("", []), ("-1", []), ("0,2", ["0", "2"]), ("GPU-a", ["GPU-a"])])
def test_visible_devices(visible, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert run._devices() == expected
