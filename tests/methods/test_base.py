"""What every method promises: it stops by itself, reads what it declares, and refuses what would spoil the result."""

import copy
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from supreme.batch import Phase
from supreme.classifier import ImageClassifier
from supreme.distributed import hushed
from supreme.errors import ConfigError
from supreme.methods import (
    JIT,
    LFSSD,
    SCRUB,
    SSD,
    UNSIR,
    BadTeacher,
    FineTune,
    NegGrad,
    RandomLabels,
    Retrain,
    UnlearningMethod,
)
from supreme.models.build import NetworkSpec

QUICK_UNSIR = {"noise_steps": 2, "noise_repeats": 1, "noise_batch_size": 3}
METHODS = {
    SSD: {"selection_weight": 1.2},
    LFSSD: {"selection_weight": 1.2},
    FineTune: {"epochs": 2},
    BadTeacher: {"lr": 0.01},
    RandomLabels: {"epochs": 1},
    SCRUB: {"epochs": 2, "max_steps": 1},
    NegGrad: {"epochs": 2},
    JIT: {"n_samples": 2},
    UNSIR: QUICK_UNSIR,
    Retrain: {"epochs": 2},
}
ALL = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


def make(method, network, **more):
    return method(network, **METHODS[method], **more)


@ALL
def test_stock_trainer(method, tiny, fit, stock_fit, same_weights):
    """Logger, checkpoints, bars and max_epochs=None: one epoch of work, and the same weights."""
    network = tiny.network()
    before = copy.deepcopy(network)
    quiet = fit(make(method, network), tiny.scenario())
    stock = make(method, network)
    trainer = stock_fit(stock, tiny.scenario())
    assert trainer.current_epoch == 1
    assert trainer.global_step == trainer.num_training_batches
    assert same_weights(stock.model, quiet.model)
    assert same_weights(network, before)
    assert stock.finished
    assert not stock.model.training
    stored = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    assert stored.keys() == {f"model.{name}" for name in network.state_dict()}
    assert all(torch.equal(stored[f"model.{name}"], value) for name, value in stock.model.state_dict().items())


@pytest.mark.parametrize("max_epochs", [2, 5])
def test_max_epochs_neither_shortens_nor_repeats(tiny, fit, same_weights, max_epochs):
    runs = [fit(FineTune(tiny.network(), epochs=3), tiny.scenario(), max_epochs=count) for count in (1, max_epochs)]
    assert same_weights(runs[0].model, runs[1].model)


@ALL
@pytest.mark.parametrize("batches", [True, 2])
def test_trial_run(method, tiny, fit, batches):
    assert fit(make(method, tiny.network()), tiny.scenario(), fast_dev_run=batches).finished


@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 3},
        {"limit_train_batches": 2},
        {"limit_train_batches": 1},
        {"limit_train_batches": 0.5},
        {"overfit_batches": 1},
        {"max_epochs": 0},
        {"max_epochs": 3, "min_epochs": 2},
        {"min_steps": 5},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 1.0},
    ],
    ids=str,
)
def test_trainers_that_would_spoil_the_work(tiny, fit, settings):
    with pytest.raises(ConfigError, match=r"FineTune (knows how long|sets its own)"):
        fit(FineTune(tiny.network()), tiny.scenario(), **settings)


def test_a_trainer_serves_one_fit(tiny):
    with hushed():
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.fit(FineTune(tiny.network(), epochs=1), datamodule=tiny.scenario())
        with pytest.raises(ConfigError, match="make a new one for each fit"):
            trainer.fit(FineTune(tiny.network(), epochs=1), datamodule=tiny.scenario())


def test_a_method_serves_one_fit(tiny, fit):
    """A second fit would start from M_u."""
    method = fit(FineTune(tiny.network(), epochs=1), tiny.scenario())
    with pytest.raises(ConfigError, match="has done its work"):
        fit(method, tiny.scenario())


class StopAfter(Callback):
    """Stops the Trainer after some batches, as a time limit does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = batch_idx == 2


def test_half_done_work_is_no_result(tiny, fit):
    method = FineTune(tiny.network())
    with pytest.raises(ConfigError, match="stopped before its last batch"):
        fit(method, tiny.scenario(), callbacks=[StopAfter()])
    assert not method.finished


def test_missing_scenario(tiny):
    forget, _ = tiny.sets()
    with hushed(), pytest.raises(ConfigError, match="needs a scenario"):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit(
            FineTune(tiny.network()), torch.utils.data.DataLoader(forget)
        )


def test_a_classifier_as_original(tiny):
    classifier = ImageClassifier(NetworkSpec("ResNet18", {"width": 8}), num_classes=4)
    method = FineTune(classifier)
    assert type(method.model) is type(classifier.model)
    assert method.model is not classifier.model
    with pytest.raises(ConfigError, match="has its network"):
        FineTune(ImageClassifier(NetworkSpec("ResNet18", {"width": 8})))


def test_a_network_frozen_for_inference_learns(tiny, fit, same_weights):
    network = tiny.network().requires_grad_(False)
    method = fit(FineTune(network, epochs=1), tiny.scenario())
    assert not same_weights(method.model, network)
    assert not any(parameter.requires_grad for parameter in network.parameters())


class NoForget:
    """A source of images that raises when a sample of D_f (or of other positions) is read."""

    def __init__(self, source, forget):
        self.source, self.forget = source, set(forget.tolist())
        self.targets, self.subtargets = source.targets, source.subtargets
        self.read = set()

    def stream(self, batches):
        for batch in batches:
            rows = set(batch.tolist())
            assert not rows & self.forget, "a sample of D_f was read"
            self.read |= rows
        return self.source.stream(batches)

    def close(self):
        self.source.close()


@pytest.mark.parametrize("method", [FineTune, Retrain, UNSIR])
@pytest.mark.parametrize("first", [True, False])
def test_forget_set_is_never_read(method, tiny, fit, first):
    scenario = tiny.scenario()
    forget = scenario.indices()["forget_train"]
    if first:  # D_f at the beginning of D, where a sample might be read for its shape
        images, labels = tiny.images()
        order = torch.cat([(labels == 2).nonzero().flatten(), (labels != 2).nonzero().flatten()])
        scenario._train = type(scenario._train)([tiny_source(images[order], labels[order])])
        forget = torch.arange(len(forget))
        scenario.indices = lambda: {"forget_train": forget}
    scenario._train = NoForget(scenario._train, forget)
    fit(make(method, tiny.network()), scenario)
    assert scenario._train.read == set(range(45)) - set(forget.tolist())


def tiny_source(images, labels):
    from supreme.scenarios.source import MemorySource

    return MemorySource(images, labels)


@pytest.mark.parametrize("method", [NegGrad, JIT])
def test_retain_set_is_never_read(method, tiny, fit):
    scenario = tiny.scenario()
    retain, forget = (scenario.indices()[f"{part}_train"] for part in ("retain", "forget"))
    scenario._train = NoForget(scenario._train, retain)
    fit(make(method, tiny.network()), scenario)
    assert scenario._train.read == set(forget.tolist())


@pytest.mark.parametrize("method", [SSD, BadTeacher, SCRUB, RandomLabels, NegGrad, JIT])
def test_forget_set_is_read_by_those_that_say_so(method, tiny, fit):
    scenario = tiny.scenario()
    scenario._train = NoForget(scenario._train, scenario.indices()["forget_train"])
    with pytest.raises(AssertionError, match="D_f was read"):
        fit(make(method, tiny.network()), scenario)


class Selects(UnlearningMethod):
    """Declares D_r and selects a sample of D_f."""

    needs: ClassVar[tuple[str, ...]] = ("retain",)

    @property
    def phases(self):
        return [Phase("retain", select=lambda samples: torch.tensor([44]))]

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


def test_data_outside_the_declaration_cannot_be_read(tiny, fit):
    with pytest.raises(RuntimeError, match="outside its data"):
        fit(Selects(tiny.network()), tiny.scenario())


class Broken(Selects):
    """Has a mistake in phases."""

    @property
    def phases(self):
        return [Phase("retain", passes=self.no_such_attribute)]


def test_a_mistake_in_phases_is_not_taken_for_no_phases(tiny, fit):
    with pytest.raises(AttributeError):
        fit(Broken(tiny.network()), tiny.scenario())


class Rates(UnlearningMethod):
    """Two phases with rates, modes and fresh optimisers; keeps what it saw."""

    def __init__(self, original, seed=0):
        super().__init__(original, seed)
        self.seen = []

    @property
    def phases(self):
        return [
            Phase("retain", passes=2, batch_size=17, lr=0.0, mode="eval"),
            Phase("forget", batch_size=11, lr=0.25, reset_optimizer=True, reduction="sum"),
        ]

    def on_after_backward(self):
        optimizer = self.trainer.optimizers[0]
        moments = [
            s["momentum_buffer"].abs().sum() for s in optimizer.state.values() if s.get("momentum_buffer") is not None
        ]
        self.seen.append((self._phase, optimizer.param_groups[0]["lr"], self.model.training, bool(sum(moments) > 0)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=9.0, momentum=0.9)


def test_phases_set_rate_mode_and_optimiser(tiny, fit):
    network = tiny.network()
    method = fit(Rates(network), tiny.scenario())
    assert [entry[:3] for entry in method.seen] == [(0, 0.0, False)] * 4 + [(1, 0.25, True)]
    assert [entry[3] for entry in method.seen] == [False, True, True, True, False]
    manual = copy.deepcopy(network).train()  # lr 0 changed nothing, so one summed step is all there is
    forget = tiny.sets()[0]
    order = torch.randperm(11, generator=order_of(method, 1))
    images, labels = (tensor[order] for tensor in forget.tensors)
    nn.functional.cross_entropy(manual(images), labels, reduction="sum").backward()
    for ours, theirs in zip(method.model.parameters(), manual.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.25 * theirs.grad, rtol=1e-5, atol=1e-6)


def order_of(method, phase):
    from supreme.seeding import generator

    return generator(method.seed, "order", phase, 0)


class Recorder(Callback):
    """Keeps the loss of every batch and whether a module computed in bfloat16."""

    def __init__(self):
        self.types = set()

    def on_train_start(self, trainer, pl_module):
        pl_module.model[0].register_forward_hook(lambda layer, given, result: self.types.add(result.dtype))


@pytest.mark.parametrize(("method", "expected"), [(FineTune, torch.bfloat16), (SSD, torch.float32)])
def test_autocast_reaches_training_and_not_importances(tiny, fit, method, expected):
    recorder = Recorder()
    fit(make(method, tiny.network()), tiny.scenario(), precision="bf16-mixed", callbacks=[recorder])
    assert recorder.types == {expected}


def saved_after(batches, folder):
    """Settings of a Trainer that saves a checkpoint after so many batches, once."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx + 1 == batches:
                trainer.save_checkpoint(folder / "mid.ckpt")

    return {"callbacks": [Save()]}


class Restarts(UnlearningMethod):
    """Each phase begins with a fresh optimiser, and has several passes."""

    @property
    def phases(self):
        return [Phase("retain", passes=2, reset_optimizer=True), Phase("forget", passes=3, reset_optimizer=True)]

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (Restarts, {}),
        (FineTune, {"epochs": 3}),
        (RandomLabels, {"epochs": 3, "batch_size": 8}),
        (SCRUB, {"epochs": 3, "max_steps": 2, "smoothing": 0.5}),
        (Retrain, {"epochs": 3}),
        (NegGrad, {"epochs": 5}),
        (JIT, {"epochs": 5, "n_samples": 2}),
        (BadTeacher, {"epochs": 3, "batch_size": 8}),
    ],
)
@pytest.mark.parametrize("stop", [1, 5, 7])
def test_resume_inside_the_work(method, arguments, stop, tiny, fit, same_weights, tmp_path):
    whole = fit(method(tiny.network("batch"), **arguments), tiny.scenario(), **saved_after(stop, tmp_path))
    path = tmp_path / "mid.ckpt"
    again = fit(method(tiny.network("batch"), **arguments), tiny.scenario(), ckpt_path=path)
    assert same_weights(again.model, whole.model)


@pytest.mark.parametrize("method", [SSD, UNSIR])
def test_what_cannot_be_resumed_says_so(method, tiny, fit, tmp_path):
    fit(make(method, tiny.network()), tiny.scenario(), **saved_after(2, tmp_path))
    with pytest.raises(ConfigError, match="cannot go on from a checkpoint"):
        fit(make(method, tiny.network()), tiny.scenario(), ckpt_path=tmp_path / "mid.ckpt")


def test_batch_norm_has_its_own_forward_back(tiny, fit):
    method = fit(FineTune(tiny.network(), epochs=1), tiny.scenario())
    assert all("forward" not in vars(layer) for layer in method.model.modules())


def test_a_last_batch_of_one_value_per_channel(fit, tiny):
    """BatchNorm after pooling to 1 x 1 sees one value per channel in the last batch: running statistics, no error."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    method = fit(FineTune(network, epochs=1), tiny.scenario(batch_size=33))
    assert all(value.isfinite().all() for value in method.model.state_dict().values())
