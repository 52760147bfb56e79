"""Status is read from the store only."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from supreme.errors import ConfigError
from supreme.experiment.plan import Plan
from supreme.experiment.scheduler import run_plan
from supreme.experiment.status import StatusReport, status
from supreme.experiment.store import Store

MakePlan = Callable[..., Plan]
EXECUTE = "tiny_executor:execute"
FAILING = "[FineTune, {class_path: SSD, init_args: {act: raise}}]"


def files(plan: Plan) -> set[Path]:
    return set(plan.output.rglob("*"))


def counts(report: StatusReport) -> tuple[int, int, int, int]:
    return len(report.done), len(report.running), len(report.queued), len(report.failed)


def test_from_queued_to_done(make_plan: MakePlan) -> None:
    plan = make_plan()
    assert counts(status(plan.output, plan)) == (0, 0, 16, 0)
    assert not plan.output.exists()  # looking writes nothing
    run_plan(plan, EXECUTE, only="seed=1")
    before = files(plan)
    report = status(plan.output, plan)
    assert files(plan) == before
    assert counts(report) == (8, 0, 8, 0)
    assert report.runs == 16
    assert report.stages == {"train": (1, 2), "unlearn": (6, 12), "outputs": (3, 6), "evaluate": (8, 16)}
    assert report.seconds_left is not None
    assert 0 < report.seconds_left < 60
    assert report.other_versions == {}
    first, second = list(report.lines())
    assert first.startswith(f"tiny in {plan.output}: 16 runs: 8 done, 0 running, 8 queued, 0 failed, about ")
    assert second == "stages: train 1/2, unlearn 6/12, outputs 3/6, evaluate 8/16"
    run_plan(plan, EXECUTE)
    report = status(plan.output, plan)
    assert counts(report) == (16, 0, 0, 0)
    assert report.seconds_left is None


def test_running_stages_are_named_with_their_process(make_plan: MakePlan) -> None:
    plan = make_plan()
    store = Store(plan.output).open()
    run = next(run for run in plan.runs() if run.method == "SSD")
    unlearn = run.stage.inputs["unlearned"]
    with store.claim(unlearn):
        report = status(plan.output, plan)
        assert report.running == (run,)
        assert list(report.working) == [unlearn.label]
        assert any(line.startswith(f"running: {unlearn.label} (") for line in report.lines())
    train = unlearn.inputs["original"]
    with store.claim(train):
        assert counts(status(plan.output, plan)) == (0, 8, 8, 0)  # Retrain waits for M_o's outputs too
    assert counts(status(plan.output, plan)) == (0, 0, 16, 0)


def test_failures_have_reasons(make_plan: MakePlan) -> None:
    plan = make_plan(methods=FAILING)
    run_plan(plan, EXECUTE)
    report = status(plan.output, plan)
    assert counts(report) == (12, 0, 0, 4)
    for run in report.failed:
        label = run.stage.inputs["unlearned"].label
        assert report.reasons[run.key] == f"'{label}' failed: ValueError: weights are not finite"
    lines = [line for line in report.lines() if line.startswith("failed: ")]
    assert lines[0].startswith("failed: SSD, FullClass 3, ResNet18 on Digits, seed 1: 'SSD")
    with Store(plan.output).claim(report.failed[0].stage.inputs["unlearned"]):
        assert counts(status(plan.output, plan)) == (12, 1, 0, 3)  # it is being tried again


def test_the_plan_is_found_in_the_folder(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios = "[{class_path: FullClass, targets: [3]}, {class_path: RandomSample, targets: [0.1]}]"
    plan = make_plan(methods="[UNSIR]", scenarios=scenarios)
    run_plan(plan, EXECUTE)
    from supreme.experiment import status as module

    original = module.load_plan
    package = plan.output.parent / "code/fake"
    monkeypatch.setattr(module, "load_plan", lambda path: original(path, package))
    report = status(plan.output)
    assert counts(report) == (2 * 3 + 2 * 2, 0, 0, 0)
    (line,) = [line for line in report.lines() if line.startswith("not applicable")]
    assert line.startswith("not applicable: UNSIR in RandomSample: it needs a class")


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No plan was ever run in"):
        status(tmp_path)


def test_other_versions_are_named(make_plan: MakePlan) -> None:
    plan = make_plan()
    run_plan(plan, EXECUTE)
    path = Store(plan.output).path(plan.runs()[0].stage) / "stage.json"
    content = json.loads(path.read_text())
    content["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(content))
    report = status(plan.output, plan)
    assert report.other_versions == {"torch": ("1.0",)}
    assert any("some results were made with torch 1.0; here it is" in line for line in report.lines())


def test_finished_runs_stay_done_without_their_checkpoints(make_plan: MakePlan) -> None:
    plan = make_plan()
    run_plan(plan, EXECUTE)
    store = Store(plan.output)
    for run in plan.runs():
        for stage in run.stages():
            if stage.kind != "evaluate":
                store.discard(stage)
    assert counts(status(plan.output, plan)) == (16, 0, 0, 0)
    assert run_plan(plan, EXECUTE).stages_done == 0
