"""Checkpoints that a plan drops: M_u goes after its last evaluation, M_o and M_r stay, and nothing is done twice."""

import json
from collections import Counter
from collections.abc import Callable

import pytest

from supreme.errors import CheckpointError, ConfigError
from supreme.experiment.checkpoints import Dropping
from supreme.experiment.lease import host_name
from supreme.experiment.plan import Plan
from supreme.experiment.progress import Progress
from supreme.experiment.scheduler import Schedule, Summary, run_plan
from supreme.experiment.selection import select_stages
from supreme.experiment.stage import Stage
from supreme.experiment.status import status
from supreme.experiment.store import DROPPED_FILE, STAGE_FILE, Store
from supreme.experiment.worker import InlineCrew

MakePlan = Callable[..., Plan]
ONE = "[{class_path: FullClass, targets: [3]}]"


def run(plan: Plan, **options: object) -> Summary:
    return run_plan(plan, "tiny_executor:execute", **options)  # type: ignore[arg-type]


def made(plan: Plan) -> Counter[str]:
    """Methods and kinds of the stages that were begun so far."""
    kinds = {
        s.key: s.config.get("method", {}).get("class_path", "").rpartition(".")[2] or s.kind
        for r in plan.runs()
        for s in r.stages()
        if s.kind in ("unlearn", "train")
    }
    lines = (plan.output.parent / "calls").read_text().splitlines()
    return Counter(kinds[line.split()[1]] for line in lines if line.startswith("begin") and line.split()[1] in kinds)


def models(plan: Plan) -> dict[str, Stage]:
    return {r.method: r.stage.inputs["unlearned"] for r in plan.runs()}


@pytest.mark.parametrize("workers", [1, 2])
def test_unlearned_models_go_and_the_others_stay(make_plan: MakePlan, workers: int) -> None:
    plan, store = make_plan(checkpoints="drop"), Store(make_plan().output)
    assert run(plan, workers=workers).exit_code == 0
    for one in plan.runs():
        stage = one.stage.inputs["unlearned"]
        assert store.has(stage) == (one.method in ("Original", "Retrain"))
        assert store.dropped(stage) == (one.method in ("FineTune", "SSD"))
        assert store.has(one.stage)
    assert store.description(models(plan)["SSD"])["seconds"] > 0
    again = run(plan, workers=workers)
    assert (again.done, again.reused, again.stages_done) == (0, 16, 0)
    report = status(plan.output, plan)
    assert report.stages["unlearn"] == (12, 12)
    assert len(report.done) == 16


def test_weights_go_and_their_description_stays(make_plan: MakePlan) -> None:
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]")
    run(plan, only="method=Retrain")
    store = Store(plan.output)
    folder = store.path(models(plan)["Retrain"])
    (folder / "model.safetensors").write_text("weights")
    store.drop(models(plan)["Retrain"])
    assert sorted(path.name for path in folder.iterdir()) == [DROPPED_FILE, "result.json", "weights"]
    assert json.loads((folder / DROPPED_FILE).read_text())["kind"] == "unlearn"
    store.drop(models(plan)["Retrain"])
    store.drop(models(plan)["SSD"])  # was never there
    assert not store.dropped(models(plan)["SSD"])


def test_what_needs_a_dropped_model_computes_it_again(make_plan: MakePlan) -> None:
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]")
    run(plan)
    before = made(plan)
    assert before == {"train": 1, "Retrain": 1, "FineTune": 1, "SSD": 1}
    summary = run(plan, force="stage=evaluate,method=SSD")
    assert summary.stages_done == 2
    assert made(plan) - before == {"SSD": 1}
    assert Store(plan.output).dropped(models(plan)["SSD"])
    other = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]", metrics="{add: [MIA]}")
    assert run(other).exit_code == 0
    assert made(plan) - before == {"SSD": 2, "FineTune": 1}
    kept = make_plan(scenarios=ONE, seeds="[1]")
    run(kept, force="stage=unlearn,method=SSD")
    assert Store(plan.output).has(models(plan)["SSD"])
    run(plan)  # drops what the other settings have kept
    assert Store(plan.output).dropped(models(plan)["SSD"])


def test_a_model_stays_until_all_its_evaluations_are_done(make_plan: MakePlan) -> None:
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="{training: [1], evaluation: 2}", methods="[SSD]")
    store = Store(plan.output)
    run(plan, only="evaluation_seed=1000000")
    assert store.has(models(plan)["SSD"])
    run(plan)
    assert store.dropped(models(plan)["SSD"])
    assert made(plan)["SSD"] == 1
    summary = run(plan, force="stage=evaluate,method=SSD")
    assert summary.stages_done == 3
    assert summary.exit_code == 0
    assert made(plan)["SSD"] == 2


def test_a_failed_evaluation_keeps_its_model(make_plan: MakePlan, package) -> None:  # type: ignore[no-untyped-def]
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]", methods="[SSD]")
    broken = (
        (package.parent / "tiny_executor.py")
        .read_text()
        .replace(
            '    note(store, "begin", stage)\n', '    if stage.kind == "evaluate":\n        raise ValueError("no")\n', 1
        )
    )
    (package.parent / "broken_executor.py").write_text(broken)
    assert run_plan(plan, "broken_executor:execute").exit_code == 1
    assert Store(plan.output).has(models(plan)["SSD"])
    assert run(plan).exit_code == 0
    assert Store(plan.output).dropped(models(plan)["SSD"])


def schedule(plan: Plan, forced: str = "") -> Schedule:
    """A scheduler of the plan that has looked at the store and done nothing yet."""
    store, runs = Store(plan.output).open(), plan.runs()
    chosen = select_stages(runs, forced) if forced else set()
    crew = InlineCrew(store, "tiny_executor:execute", 1)
    return Schedule(runs, store, crew, 1, Progress(), chosen, Dropping(store, runs))


@pytest.mark.parametrize("evaluations", [1, 2])
def test_a_second_scheduler_makes_nothing_of_what_the_first_has_used_and_dropped(
    make_plan: MakePlan, evaluations: int
) -> None:
    plan = make_plan(checkpoints="drop", seeds=f"{{training: [1, 2], evaluation: {evaluations}}}")
    late = schedule(plan)
    summary = run(plan)
    before = made(plan)
    assert before["SSD"] == before["FineTune"] == 4
    late.work()
    assert made(plan) == before
    ended = late.summary((), 0.0)
    assert (ended.stages_done, ended.stages_reused, ended.failed) == (0, summary.stages_done, ())
    assert len(late.open) == 0


def test_a_second_scheduler_makes_what_it_still_needs(make_plan: MakePlan) -> None:
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]")
    late = schedule(plan, "stage=evaluate,method=SSD")
    run(plan)
    before = made(plan)
    late.work()
    assert late.summary((), 0.0).stages_done == 2
    assert made(plan) - before == {"SSD": 1}
    assert Store(plan.output).dropped(models(plan)["SSD"])


def test_what_others_were_at_work_on_and_dropped_is_not_waited_for(make_plan: MakePlan) -> None:
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]")
    late = schedule(plan)
    late._rank()
    late.elsewhere = [models(plan)["SSD"], models(plan)["FineTune"]]
    run(plan, only="method=SSD")
    assert Store(plan.output).dropped(models(plan)["SSD"])
    queued = len(late.queue)
    late._look_elsewhere()
    assert models(plan)["SSD"] not in late.open
    assert models(plan)["FineTune"] in late.open
    assert len(late.queue) == queued + 1


def test_nothing_goes_while_another_plan_is_at_work_beside(make_plan: MakePlan) -> None:
    run(make_plan(name="other", scenarios=ONE, seeds="[1]", methods="[SSD]"))
    plan = make_plan(checkpoints="drop", scenarios=ONE, seeds="[1]", methods="[SSD]")
    store = Store(plan.output)
    lease = store.leases.acquire("0" * 16)
    assert lease is not None
    content = {**json.loads(lease.path.read_text()), "host": f"not {host_name()}"}
    lease.path.write_text(json.dumps(content))
    run(plan)
    assert store.has(models(plan)["SSD"])
    lease.release()
    run(plan)
    assert store.dropped(models(plan)["SSD"])


def test_a_half_dropped_result_is_no_result(make_plan: MakePlan) -> None:
    plan = make_plan(scenarios=ONE, seeds="[1]", methods="[SSD]")
    run(plan)
    store, stage = Store(plan.output), models(plan)["SSD"]
    (store.path(stage) / STAGE_FILE).rename(store.path(stage) / DROPPED_FILE)  # killed before the weights went
    assert not store.has(stage)
    run(plan, force="stage=evaluate,method=SSD")
    assert store.has(stage)
    assert not (store.path(stage) / DROPPED_FILE).exists()


def test_loading_a_dropped_model_says_so(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from supreme.models.build import NetworkSpec, build
    from supreme.models.stored import load_model, save_model

    save_model(tmp_path, build(NetworkSpec("ResNet18", {"width": 8}), 10, 0), {})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="checkpoints: drop"):
        load_model(tmp_path)
    with pytest.raises(CheckpointError, match="Expected a stored model"):
        load_model(tmp_path / "nowhere")


def test_the_choice_is_checked_and_changes_no_key(make_plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match="Expected keep or drop under 'checkpoints', got 'best'"):
        make_plan(checkpoints="best")
    keys = [{run.stage.key for run in make_plan(**given).runs()} for given in ({}, {"checkpoints": "drop"})]
    assert keys[0] == keys[1]
