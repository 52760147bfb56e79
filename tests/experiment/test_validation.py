"""The best checkpoint: chosen on held-out training images, by one rule for M_o and M_r, and never on test images."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from supreme.datasets import Digits
from supreme.errors import ConfigError, DataError
from supreme.experiment import launchers
from supreme.experiment.plan import Plan, Run, load_plan
from supreme.experiment.recipes import settled
from supreme.experiment.run import execute
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store
from supreme.experiment.validation import BestCheckpoint, HeldOut
from supreme.models.stored import load_model
from supreme.scenarios import FullClass, RandomSample
from supreme.scenarios.whole_dataset import WholeDataset
from supreme.transforms.preprocess import Preprocess

MakePlan = Callable[..., Plan]
EPOCHS = 4
PLAN = {
    "name": "best",
    "datasets": ["Digits"],
    "models": ["net_of_validation.Net"],
    "scenarios": [{"class_path": "FullClass", "targets": [3]}],
    "methods": ["SSD"],
    "seeds": [5],
    "trainer": {"accelerator": "cpu", "precision": "64-true"},
}
NETWORK = """
from torch import nn

def Net(num_classes):
    layers = nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes)
    return nn.Sequential(nn.Flatten(), *layers)
"""
# A rate so high that the last pass is not the best one, and constant, so that pass e is the last one of e epochs.
TRAINING = {"lr": 1.0, "schedule": "constant", "warmup_epochs": 0, "batch_size": 64, "validation_fraction": 0.1}


def held_out(**arguments: float) -> HeldOut:
    return HeldOut(Digits(), **arguments)


# --- the split


class Watching(nn.Sequential):
    """Wants channels last, and notes whether it gets them."""

    channels_last = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
        return super().forward(images)


def test_validation_images_come_in_the_layout_of_the_network() -> None:
    network = Watching(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.LazyLinear(10))
    best = BestCheckpoint(WholeDataset(held_out()))
    trainer = SimpleNamespace(
        global_rank=0, world_size=1, precision_plugin=SimpleNamespace(forward_context=contextlib.nullcontext)
    )
    best._measure(trainer, SimpleNamespace(model=network, device=torch.device("cpu")))
    assert network.last


def test_a_share_of_every_class_is_held_out() -> None:
    whole, data = Digits().train, held_out(fraction=0.2)
    for number in range(10):
        count = int((whole.targets == number).sum())
        held = int((data.validation.targets == number).sum())
        assert held == int(0.2 * count + 0.5)
        assert held + int((data.train.targets == number).sum()) == count
    rows = {tuple(image.flatten().tolist()) for image in data.validation.images}
    kept = {tuple(image.flatten().tolist()) for image in data.train.images}
    assert not rows & kept
    assert rows | kept == {tuple(image.flatten().tolist()) for image in whole.images}


def test_all_else_is_the_datasets() -> None:
    base, data = Digits(), held_out()
    assert (data.name, data.classes, data.mean, data.std) == (base.name, base.classes, base.mean, base.std)
    assert torch.equal(data.test.images, base.test.images)
    assert (data.augmentation, data.input_size) == (base.augmentation, base.input_size)
    assert data.notes == (*base.notes, "10 % of the training images of Digits are held out for validation.")
    prints = {base.fingerprint, data.fingerprint, held_out(fraction=0.2).fingerprint, held_out(seed=1).fingerprint}
    assert len(prints) == 4
    assert held_out().fingerprint == data.fingerprint
    assert torch.equal(held_out().validation.images, data.validation.images)


def test_a_validation_image_is_neither_forgotten_nor_retained() -> None:
    data = held_out()
    for scenario in (FullClass(data, forget=3), RandomSample(data, fraction=0.1), WholeDataset(data)):
        sets = scenario.indices()
        assert len(sets["forget_train"]) + len(sets["retain_train"]) == 1438 - len(data.validation.targets)


def test_only_images_that_stay_choose_the_retrained_model() -> None:
    data = held_out()
    threes = int((data.validation.targets == 3).sum())
    everyone = len(data.validation.targets)
    assert len(BestCheckpoint(WholeDataset(data)).index) == everyone
    assert len(BestCheckpoint(RandomSample(data)).index) == everyone
    chosen = BestCheckpoint(FullClass(data, forget=3)).index
    assert len(chosen) == everyone - threes
    assert 3 not in data.validation.targets[chosen]
    with pytest.raises(DataError, match="validation_fraction"):
        BestCheckpoint(WholeDataset(Digits()))


# --- the choice


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A network that is trained in no time, by dotted path."""
    (tmp_path / "net_of_validation.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("net_of_validation", None)


def made(folder: Path, changes: Mapping[str, object] | None = None, **training: object) -> tuple[Plan, Store]:
    content = {**PLAN, **(changes or {}), "training": {**TRAINING, **training}, "output": str(folder / "out")}
    (folder / "plan.yaml").write_text(yaml.safe_dump(content))
    plan = load_plan(folder / "plan.yaml")
    return plan, Store(plan.output).open()


def models(plan: Plan) -> dict[str, Stage]:
    (run,) = (run for run in plan.runs() if run.method == "SSD")
    return {"original": run.stage.inputs["unlearned"].inputs["original"], "retrained": run.stage.inputs["retrained"]}


def on_validation(store: Store, stage: Stage, data: HeldOut, without: int | None) -> tuple[float, float]:
    """Accuracy and loss, computed apart."""
    images, targets = data.validation.images, data.validation.targets
    keep = targets != (-1 if without is None else without)
    network = load_model(store.path(stage))[0]
    with torch.no_grad():
        logits = network(Preprocess(data.mean, data.std)(images[keep]).double())
    right = (logits.argmax(dim=1) == targets[keep]).double().mean()
    return float(right), float(functional.cross_entropy(logits, targets[keep]))


def test_the_best_pass_is_kept_for_original_and_retrained_alike(tmp_path: Path) -> None:
    """Pass e of a long training is the last pass of one of e epochs; the best of those is what has to come out."""
    data = held_out()
    plan, store = made(tmp_path, epochs=EPOCHS, checkpoint="best")
    best = models(plan)
    lasts = [models(made(tmp_path, epochs=epochs)[0]) for epochs in range(1, EPOCHS + 1)]
    for stage in [*best.values(), *(stage for last in lasts for stage in last.values())]:
        execute(stage, store)
    chosen = set()
    for role, without in (("original", None), ("retrained", 3)):
        scores = [on_validation(store, last[role], data, without) for last in lasts]
        winner = max(range(EPOCHS), key=lambda e: (scores[e][0], -scores[e][1], -e))
        about = store.description(best[role])["checkpoint"]
        assert about["epoch"] == winner + 1
        assert about["validation_accuracy"] == pytest.approx(scores[winner][0], abs=1e-12)
        assert about["validation_loss"] == pytest.approx(scores[winner][1], rel=1e-12)
        expected = load_model(store.path(lasts[winner][role]))[0].state_dict()
        found = load_model(store.path(best[role]))[0].state_dict()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert about["validation_samples"] == len(data.validation.targets) - (
            0 if without is None else int((data.validation.targets == without).sum())
        )
        chosen.add(winner + 1)
    assert EPOCHS not in chosen  # else the test would not tell best from last


@pytest.mark.distributed
def test_two_processes_choose_the_same_checkpoint(tmp_path: Path) -> None:
    found = []
    for devices in (1, 2):
        (tmp_path / str(devices)).mkdir()
        trainer = {**PLAN["trainer"], "devices": devices, "strategy": "ddp" if devices > 1 else "auto"}  # type: ignore[dict-item]
        plan, store = made(tmp_path / str(devices), {"trainer": trainer}, epochs=3, checkpoint="best", lr=0.1)
        for stage in models(plan).values():
            launchers.execute(stage, store)
            found.append((store.description(stage)["checkpoint"], load_model(store.path(stage))[0].state_dict()))
    for (one, weights), (two, others) in zip(found[:2], found[2:], strict=True):
        assert (one["epoch"], one["validation_samples"]) == (two["epoch"], two["validation_samples"])
        assert one["validation_accuracy"] == two["validation_accuracy"]
        assert one["validation_loss"] == pytest.approx(two["validation_loss"], rel=1e-8)
        assert all(torch.allclose(weights[name].double(), others[name].double(), atol=1e-8) for name in weights)


def test_a_whole_run_says_what_was_held_out_and_supreme_evaluate_agrees(tmp_path: Path) -> None:
    from supreme.__main__ import main

    plan, store = made(tmp_path, epochs=1, checkpoint="best")
    run: Run = next(run for run in plan.runs() if run.method == "SSD")
    for stage in run.stages():
        execute(stage, store)
    result = store.result(run.stage)
    assert result["notes"] == ["10 % of the training images of Digits are held out for validation."]
    assert sum(result["scenario_sizes"][part] for part in ("retain_train", "forget_train")) == 1438 - 145
    paths = {"--unlearned": run.stage.inputs["unlearned"], "--retrained": run.stage.inputs["retrained"]}
    words = [word for option, stage in paths.items() for word in (option, str(store.path(stage)))]
    words += ["--output", str(tmp_path / "scores.json"), "--seed_everything=5", "--metrics", "Accuracy", "MIA"]
    assert main(["evaluate", *words, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert scores == {name: result["metrics"][name] for name in scores}
    assert "mia_gap" in scores


# --- plans


def test_holding_out_and_choosing_change_every_stage(make_plan: MakePlan) -> None:
    kinds = []
    keys = [{s.key for r in make_plan().runs() for s in r.stages()}]
    for training in (
        "{epochs: 2, validation_fraction: 0.1}",
        "{epochs: 2, validation_fraction: 0.2}",
        "{epochs: 2, validation_fraction: 0.1, checkpoint: best}",
    ):
        stages = {s for r in make_plan(training=training).runs() for s in r.stages()}
        keys.append({stage.key for stage in stages})
        kinds.append({stage.kind for stage in stages})
    assert kinds == [{"train", "unlearn", "outputs", "evaluate"}] * 3
    assert len(set().union(*keys)) == sum(map(len, keys))
    plans = [make_plan(), make_plan(training="{epochs: 2, validation_fraction: 0.1}")]
    sources = [{s.config["source"] for r in plan.runs() for s in r.stages()} for plan in plans]
    assert not sources[0] & sources[1]  # the code that holds images out counts where it is used, and only there


def test_a_shipped_recipe_still_holds() -> None:
    held = {"validation_fraction": 0.1, "checkpoint": "best"}
    found, name = settled({}, held, "ResNet18", "CIFAR10")
    assert name == "ResNet18.CIFAR10"
    assert found["milestones"] == [8, 12, 16]
    assert found["validation_fraction"] == 0.1
    assert settled({}, {**held, "lr": 0.1}, "ResNet18", "CIFAR10") == ({**held, "lr": 0.1}, None)


@pytest.mark.parametrize(
    ("training", "text"),
    [
        ("{checkpoint: best}", "Expected validation_fraction beside checkpoint: best in training"),
        ("{checkpoint: first, validation_fraction: 0.1}", "Expected last or best in training.checkpoint, got 'first'"),
        ("{validation_fraction: 1.0}", r"share inside \(0, 1\) in training.validation_fraction, got 1.0"),
        ("{validation_fraction: true}", r"share inside \(0, 1\)"),
        ("{validation_fractoin: 0.1}", "did you mean 'validation_fraction'"),
    ],
)
def test_wrong_choices(make_plan: MakePlan, training: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_plan(training=training)
