import shutil
import time

import pytest
import yaml

from supreme.cli import run
from supreme.experiment.plan import load_plan

PLAN = {
    "name": "small",
    "datasets": ["Digits"],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "training": {"epochs": 1, "lr": 0.01},
    "scenarios": [{"class_path": "FullClass", "targets": [3]}],
    "methods": ["SSD"],
    "seeds": [5],
    "trainer": {"accelerator": "cpu"},
}
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


@pytest.fixture
def plan(inside):
    def write(**changes):
        (inside / "small.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
        return "small.yaml"

    return write


def test_a_plan_from_start_to_report(plan, results, supreme):
    result = supreme("run", plan(), "--workers=1", "--output", results)
    assert result.code == 0, result.err
    assert "3 runs done, 0 were there before, 0 failed" in result.err
    assert all(word in result.out for word in ("SSD", "Retrain", "Original", "FullClass"))
    assert (results / "report" / "index.html").stat().st_size > 10_000
    assert f"Report: {results / 'report' / 'index.html'}" in result.out


def test_a_second_time_there_is_nothing_to_do(plan, results, process):
    started = time.monotonic()
    result = process("run", plan(), "--output", results)
    assert time.monotonic() - started < 10
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
        methods=["SSD", "UNSIR"], scenarios=[*PLAN["scenarios"], {"class_path": "RandomSample", "targets": [0.1]}]
    )
    before = sorted(inside.rglob("*"))
    result = supreme("run", name, "--dry_run", "--only=method=SSD")
    assert result.code == 0
    assert "queued   SSD, FullClass 3, ResNet18 on Digits, seed 5" in result.out
    assert "left out UNSIR in RandomSample" in result.out
    assert "2 runs, 0 of them done already; results go to runs/small" in result.out
    assert sorted(inside.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "words", "text"),
    [
        ({"metods": ["SSD"]}, (), "'methods'"),
        ({"methods": ["SDD"]}, (), "'SSD'"),
        ({"methods": [{"class_path": "SSD", "init_args": {"selecton_weight": 1}}]}, (), "'selection_weight'"),
        ({"scenarios": [{"class_path": "FullClas", "targets": [1]}]}, (), "'FullClass'"),
        ({"scenarios": [{"class_path": "RandomSample", "targets": [1.0]}]}, (), "inside (0, 1)"),
        ({"training": {"epoch": 1}}, (), "'epochs'"),
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


@pytest.mark.parametrize(("visible", "expected"), [("", []), ("-1", []), ("0,2", ["0", "2"]), ("GPU-a", ["GPU-a"])])
def test_visible_devices(visible, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert run._devices() == expected
