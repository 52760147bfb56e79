"""Outputs of M_o: forwarded once over D and D', taken over by every target, as they are on the target's own parts."""

import pytest
import torch
import yaml

from supreme.batch import PARTS
from supreme.datasets import Digits
from supreme.distributed import hushed, quiet_trainer
from supreme.evaluation import Evaluation, Outputs
from supreme.experiment.plan import Plan, Run, load_plan
from supreme.experiment.run import OUTPUTS, _scenario
from supreme.experiment.scheduler import run_plan
from supreme.experiment.store import Store
from supreme.models.stored import load_model

OWN = """
from supreme.scenarios import FullClass


class Darker(FullClass):
    '''Serves other images, and knows of one batch size.'''

    def __init__(self, dataset=None, forget=0, batch_size=64):
        super().__init__(dataset, forget, batch_size=batch_size)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch._replace(image=0.5 * batch.image)
"""
SCENARIOS = [
    {"class_path": "FullClass", "targets": [3, 8]},
    {"class_path": "RandomSample", "targets": [0.1]},
    {"class_path": "darker_code.Darker", "targets": [3]},
]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("original")
    (folder / "darker_code.py").write_text(OWN)
    content = {
        "name": "original",
        "output": str(folder / "out"),
        "datasets": [{"class_path": "Digits", "init_args": {"test_fraction": 0.5}}],
        "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
        "training": {"epochs": 1, "lr": 0.01},
        "scenarios": SCENARIOS,
        "methods": ["SSD"],
        "seeds": [5],
        "trainer": {"accelerator": "cpu"},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        found = load_plan(folder / "plan.yaml")
        assert run_plan(found).failed == ()
    return found


def original(plan: Plan, scenario: str, target: str) -> Run:
    (run,) = [run for run in plan.runs() if (run.method, run.scenario, run.target) == ("Original", scenario, target)]
    return run


TARGETS = [("FullClass", "3"), ("FullClass", "8"), ("RandomSample", "0.1"), ("Darker", "3")]


def test_one_stage_serves_all_targets(plan: Plan) -> None:
    stages = {run.stage.inputs["original_outputs"] for run in plan.runs()}
    (stage,) = stages
    kept = Outputs.load(Store(plan.output).path(stage) / OUTPUTS)
    data = Digits(test_fraction=0.5)
    for name, images in (("retain_test", data.test), ("retain_train", data.train)):
        chosen = kept.part == PARTS.index(name)
        assert torch.equal(kept.index[chosen], torch.arange(len(images.targets)))
        assert torch.equal(kept.target[chosen], images.targets)
    assert len(kept.index) == len(data.test.targets) + len(data.train.targets)


@pytest.mark.parametrize(("scenario", "target"), TARGETS)
def test_they_are_those_on_the_parts_of_the_target(plan: Plan, scenario: str, target: str) -> None:
    """Also where a scenario serves images in a way of its own: M_o is forwarded on those then."""
    run, store = original(plan, scenario, target), Store(plan.output)
    data = _scenario(run.stage)
    model = load_model(store.path(run.stage.inputs["unlearned"]))[0]
    evaluation = Evaluation(model, metrics=[], random=data.random, parts=PARTS)
    with hushed():
        quiet_trainer(accelerator="cpu").test(evaluation, datamodule=data, verbose=False)
    wanted, kept = evaluation.outputs["unlearned"], Outputs.load(store.path(run.stage) / OUTPUTS)
    assert torch.allclose(kept.logits, wanted.rows(kept.part, kept.index), rtol=1e-5, atol=1e-6)
    for name in ("part", "index", "target"):
        assert torch.equal(getattr(kept, name), getattr(wanted, name))


@pytest.mark.parametrize(("scenario", "target"), TARGETS)
def test_zrf_of_the_original_is_that_beside_every_method(plan: Plan, scenario: str, target: str) -> None:
    runs = [run for run in plan.runs() if (run.scenario, run.target) == (scenario, target)]
    values = {run.method: Store(plan.output).result(run.stage)["metrics"] for run in runs}
    assert values["Original"]["forget/zrf"] == pytest.approx(values["SSD"]["forget/zrf_original"], rel=1e-6)
    assert values["Retrain"]["forget/zrf"] == pytest.approx(values["SSD"]["forget/zrf_retrained"], rel=1e-6)
