"""Importances of D: computed once per M_o, taken over by all targets, with the weights of a method on its own."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from supreme import methods
from supreme.datasets import Digits
from supreme.distributed import hushed, quiet_trainer
from supreme.experiment.garbage import Garbage
from supreme.experiment.plan import Plan, load_plan
from supreme.experiment.preview import preview
from supreme.experiment.scheduler import run_plan
from supreme.experiment.selection import select_stages
from supreme.experiment.stage import Stage
from supreme.experiment.status import status
from supreme.experiment.store import Store
from supreme.models.stored import load_model
from supreme.scenarios import FullClass, RandomSample, WholeDataset

MakePlan = Callable[..., Plan]
WITH_ARGUMENTS: list[Any] = [
    {"class_path": "SSD", "init_args": {"selection_weight": 2.0}},
    {"class_path": "LFSSD", "init_args": {"selection_weight": 1.5}},
    {"class_path": "ASSD", "init_args": {"dampening": 0.5}},
    {"class_path": "SSDDet", "init_args": {"selection_weight": 1.2}},
]
CONTENT = {
    "datasets": [{"class_path": "Digits", "init_args": {"test_fraction": 0.9}}],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "training": {"epochs": 1, "lr": 0.01, "batch_size": 41},
    "scenarios": [{"class_path": "FullClass", "targets": [3, 8]}, {"class_path": "RandomSample", "targets": [0.1]}],
    "methods": WITH_ARGUMENTS,
    "metrics": ["Accuracy"],
    "presets": False,
    "seeds": [5],
    "trainer": {"accelerator": "cpu"},
}
OWN = """
from supreme.methods import SSD
from supreme.scenarios import FullClass


class Mine(SSD):
    '''A loss of its own, and no word of sharing.'''

    paper = ""

    def loss(self, batch):
        return 2 * super().loss(batch)


class Brighter(FullClass):
    '''Serves other images.'''

    def _transform(self, batch, seed, input_spec):
        return super()._transform(batch, seed, input_spec) + 0.1
"""
FAKE = """
        class SSD2(UnlearningMethod):
            '''Dampens, with importances of D that others have computed.'''
            shared_importances = {"class_path": "fake.methods.sharing.SSD2", "arguments": ("batch_size",)}
            def __init__(self, original, full_importance=None, batch_size=None, seed=0): ...
"""


def written(folder: Path, **replacements: object) -> Plan:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({**CONTENT, "name": "reuse", "output": str(folder / "out"), **replacements}))
    return load_plan(path)


def shared(plan: Plan) -> dict[tuple[str, str, str], Stage | None]:
    """Method, variant and target of every run with the importances that it takes over."""
    return {
        (run.method, run.variant, run.target): run.stage.inputs["unlearned"].inputs.get("importances")
        for run in plan.runs()
    }


# --- which ones are shared


def test_one_stage_serves_all_targets_draws_and_settings(tmp_path: Path) -> None:
    further = [
        {"class_path": "SSD", "init_args": {"selection_weight": 7.0}, "name": "seven"},
        {"class_path": "SSD", "init_args": {"batch_size": 41}, "name": "the plan's"},
        {"class_path": "SSD", "init_args": {"batch_size": 8}, "name": "small"},
        {"class_path": "SSDDet", "init_args": {"chunk_size": 3}, "name": "three"},
        {"class_path": "ASSD", "init_args": {"reference": "retain"}, "name": "retain"},
        {"class_path": "ASSD", "init_args": {"reference": "full"}, "name": "full"},
    ]
    seeds = {"training": [5], "unlearning": 2}
    plan = written(tmp_path, methods=[*WITH_ARGUMENTS, *further, "FineTune"], seeds=seeds)
    found = shared(plan)
    assert {found[name] for name in found if name[0] in ("Original", "Retrain", "FineTune")} == {None}
    assert {found[name] for name in found if name[1] == "retain"} == {None}
    ssd = found["SSD", "", "3"]
    assert ssd is not None
    of_ssd = [("SSD", ""), ("SSD", "seven"), ("SSD", "the plan's"), ("ASSD", ""), ("ASSD", "full")]
    assert {found[(*name, target)] for name in of_ssd for target in ("3", "8", "0.1")} == {ssd}
    others = {found[name] for name in found if name[:2] not in of_ssd} - {None}
    assert ssd not in others
    assert len(others) == 4  # LFSSD, SSDDet, SSD in small batches, SSDDet in chunks of three
    assert ssd.inputs.keys() == {"original"}
    assert "scenario" not in ssd.config
    assert "seed" not in ssd.config
    methods_of_ssd = select_stages(plan.runs(), "stage=importances,method=ASSD,variant=full")
    assert {stage for stage in methods_of_ssd if stage.kind == "importances"} == {ssd}
    batches = {s.config["batch_size"] for s in others | {ssd} if s is not None}
    assert batches == {41, 8}


def test_a_method_of_ones_own_has_to_say_that_it_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_code.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = written(tmp_path, methods=["own_code.Mine"])
    assert set(shared(plan).values()) == {None}


# --- the same weights


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    plan = written(tmp_path_factory.mktemp("reuse"))
    summary = run_plan(plan)
    assert summary.failed == ()
    return plan


def alone(plan: Plan, store: Store, name: str, target: str) -> dict[str, torch.Tensor]:
    """Weights of a method that computes everything itself."""
    run = next(run for run in plan.runs() if (run.method, run.target) == (name, target))
    data = Digits(**plan.datasets[0].init_args)
    seed = run.draw_seed or 0
    scenario = (
        RandomSample(data, 0.1, draw_seed=seed, batch_size=41)
        if target == "0.1"
        else FullClass(data, int(target), batch_size=41)
    )
    original = load_model(store.path(run.stage.inputs["unlearned"].inputs["original"]))[0]
    method = getattr(methods, name)(original, **run.config["method"]["init_args"], seed=5)
    with hushed():
        quiet_trainer("cpu", max_epochs=1).fit(method, datamodule=scenario)
    assert "full" in {phase.data for phase in method.phases}
    state: dict[str, torch.Tensor] = method.model.state_dict()
    return state


@pytest.mark.parametrize("target", ["3", "8", "0.1"])
@pytest.mark.parametrize("name", ["SSD", "LFSSD", "ASSD", "SSDDet"])
def test_weights_are_those_without_reuse_bit_for_bit(done: Plan, name: str, target: str) -> None:
    store, threads = Store(done.output), torch.get_num_threads()
    run = next(run for run in done.runs() if (run.method, run.target) == (name, target))
    found = load_file(store.path(run.stage.inputs["unlearned"]) / "model.safetensors")
    original = load_file(store.path(run.stage.inputs["unlearned"].inputs["original"]) / "model.safetensors")
    torch.set_num_threads(1)
    try:
        expected = alone(done, store, name, target)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert not all(torch.equal(found[key], value) for key, value in original.items())


def test_costs_count_what_was_reused(done: Plan) -> None:
    store = Store(done.output)
    for run in done.runs():
        metrics = store.result(run.stage)["metrics"]
        source = run.stage.inputs["unlearned"].inputs.get("importances")
        assert ("time_s_reused" in metrics) == (source is not None)
        if source is not None:
            before = store.description(source)["resources"]
            assert metrics["time_s"] == metrics["time_s_reused"] + before["time_s"]
            assert 0 < metrics["time_s_reused"] < metrics["time_s"]
            assert metrics["peak_memory_bytes"] >= before["peak_memory_bytes"]
            assert 0 <= metrics["utilisation"] <= 1
    kinds = Counter(stage.kind for stage in {s for run in done.runs() for s in run.stages()})
    assert kinds["importances"] == 3  # SSD (with ASSD), LFSSD, SSDDet
    assert status(done.output, done).stages["importances"] == (3, 3)
    shown = preview(done, done.runs()).kinds["importances"]
    assert (shown.stages, shown.done, shown.due, shown.shared) == (3, 3, 0, 3)


def test_another_target_computes_no_importances(done: Plan) -> None:
    scenarios = [*CONTENT["scenarios"], {"class_path": "FullClass", "targets": [1], "name": "one"}]
    more = written(done.output.parent, name="more", scenarios=scenarios, methods=WITH_ARGUMENTS[:1])
    before = {path.name for path in (done.output / "stages/importances").iterdir()}
    assert run_plan(more).failed == ()
    assert {path.name for path in (done.output / "stages/importances").iterdir()} == before


def test_a_scenario_that_serves_other_images_reads_them_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_code.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    scenarios = [{"class_path": "own_code.Brighter", "targets": [3]}]
    plan = written(tmp_path, scenarios=scenarios, methods=WITH_ARGUMENTS[:1])
    assert run_plan(plan).failed == ()
    (record,) = [Store(plan.output).result(run.stage) for run in plan.runs() if run.method == "SSD"]
    assert "time_s_reused" not in record["metrics"]
    assert FullClass.serves_as_usual()
    assert RandomSample.serves_as_usual()
    assert WholeDataset.serves_as_usual()


@pytest.mark.slow
def test_several_workers_share_them_too(done: Plan, tmp_path: Path) -> None:
    plan = written(tmp_path)
    assert run_plan(plan, workers=2).failed == ()
    for run, same in zip(plan.runs(), done.runs(), strict=True):
        folders = [Store(p.output).path(r.stage.inputs["unlearned"]) for p, r in ((plan, run), (done, same))]
        ours, theirs = (load_file(folder / "model.safetensors") for folder in folders)
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


# --- how long they stay


@pytest.fixture
def sharing(package: Path) -> None:
    """A fake method that shares."""
    (package / "methods" / "sharing.py").write_text(FAKE.replace("\n        ", "\n"))


@pytest.mark.usefixtures("sharing")
def test_they_are_dropped_with_the_models_that_were_made_of_them(make_plan: MakePlan) -> None:
    plan = make_plan(methods="[SSD2]", seeds="[1]", checkpoints="drop")
    assert run_plan(plan, "tiny_executor:execute", only="target=3").failed == ()
    store = Store(plan.output)
    (source,) = {stage for stage in shared(plan).values() if stage}
    assert store.has(source)  # the other target is to come
    assert run_plan(plan, "tiny_executor:execute").failed == ()
    assert store.dropped(source)
    assert status(plan.output, plan).stages["importances"] == (1, 1)
    assert run_plan(plan, "tiny_executor:execute").stages_done == 0


def test_garbage_collection_knows_them(tmp_path: Path) -> None:
    few = {"scenarios": [{"class_path": "FullClass", "targets": [3]}], "methods": WITH_ARGUMENTS[:1]}
    plan = written(tmp_path, **few)
    assert run_plan(plan).failed == ()
    assert Garbage(plan.output).find() == []
    changed = {**WITH_ARGUMENTS[0], "init_args": {"batch_size": 7}}
    other = written(tmp_path, **few | {"methods": [changed]})
    Store(plan.output).save_plan(other.name, other.content)
    (left,) = [item for item in Garbage(plan.output).find() if item.path.parent.name == "importances"]
    (source,) = {stage for stage in shared(plan).values() if stage}
    assert left.key == source.key
