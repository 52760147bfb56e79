"""ImageClassifier: schedules and whole trainings against stored results, exact validation, checkpoints, resuming."""

import copy
import itertools
import math

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn import functional

from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets import Digits
from supreme.distributed import hushed, quiet_trainer
from supreme.errors import ConfigError
from supreme.models.build import NetworkSpec, build
from supreme.scenarios import FullClass, RandomSample, WholeDataset
from supreme.scenarios.given_sets import GivenSets

SMALL = NetworkSpec("ResNet18", {"width": 8})
N = 179


def digits(**settings):
    """179 images to train on, in four batches."""
    return WholeDataset(Digits(test_fraction=0.9), **{"batch_size": 50, **settings})


@pytest.mark.parametrize("stage", ["lr_training_stage", "lr_retrain_cycle"])
def test_published_learning_rates(case, stage):
    """The published retrain cycle drops one epoch later, which milestones + 1 restore."""
    for entry in case("lr_schedule").json()["schedules"]:
        schedule, expected = entry["schedule"], entry[stage]
        later = 1 if stage == "lr_retrain_cycle" else 0
        recipe = Recipe(lr=0.1, gamma=0.2, milestones=[m + later for m in schedule["milestones"]])
        per_epoch, epochs = schedule["batches_per_epoch"], schedule["epochs"]
        assert [recipe.rate(k, per_epoch, epochs) for k in range(len(expected))] == pytest.approx(expected, rel=1e-6)
        assert len(expected) == per_epoch * epochs


def test_cosine():
    recipe = Recipe(lr=0.3, schedule="cosine", warmup_epochs=1)
    rates = [recipe.rate(step, steps_per_epoch=4, epochs=5) for step in range(20)]
    assert rates[:5] == pytest.approx([0, 0.075, 0.15, 0.225, 0.3])
    assert rates[12] == pytest.approx(0.3 * 0.5 * (1 + math.cos(math.pi * 8 / 16)))
    assert recipe.rate(20, 4, 5) == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))


def test_published_cosine():
    """After the warm-up, epoch k of E (from 1) learns at (1 + cos(pi (k - 1) / (E - 1))) / 2; the last one at 0."""
    recipe = Recipe("adamw", lr=5e-5, schedule="epoch_cosine", warmup_epochs=1)
    rates = [recipe.rate(step, steps_per_epoch=3, epochs=8) for step in range(24)]
    assert rates[:3] == pytest.approx([0, 5e-5 / 3, 5e-5 * 2 / 3])
    for epoch in range(2, 9):
        expected = 5e-5 * (1 + math.cos(math.pi * (epoch - 1) / 7)) / 2
        assert rates[3 * epoch - 3 : 3 * epoch] == pytest.approx([expected] * 3, abs=1e-18)
    assert rates[-1] == 0


class Rates(Callback):
    """The learning rate of each step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("name", "milestones"), [("train_stage", (2, 4)), ("train_cycle", (3, 5))], ids=["train_stage", "train_cycle"]
)
def test_published_training(case, fit, name, milestones):
    golden = case(name)
    halves = [
        torch.utils.data.TensorDataset(golden.images[part], golden.labels[part]) for part in (slice(9), slice(9, None))
    ]
    data = GivenSets(halves[1], halves[0], golden.meta["num_classes"], batch_size=36, shuffle=False)
    classifier = ImageClassifier(golden.network(), Recipe(lr=0.1, milestones=milestones))
    rates = Rates()
    fit(classifier, data, max_epochs=6, limit_val_batches=0, callbacks=[rates])
    assert rates.seen == pytest.approx(golden.json()["lr_per_step"], rel=1e-6)
    golden.check(classifier.model.state_dict())


class Served(Callback):
    """Which samples each epoch saw, in order."""

    def __init__(self):
        self.epochs = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epochs.setdefault(batch.step.epoch, []).extend(batch.index.tolist())


def test_every_epoch_sees_every_sample_once_in_an_order_of_its_own(tiny, fit):
    served = Served()
    data = digits()
    fit(ImageClassifier(tiny.network(classes=10)), data, max_epochs=4, callbacks=[served])
    everything = list(range(len(data.dataset.train.targets)))
    assert len(everything) == N
    assert sorted(served.epochs) == [0, 1, 2, 3]
    assert all(sorted(order) == everything for order in served.epochs.values())
    assert len({tuple(order) for order in served.epochs.values()}) == 4


def test_the_first_weights_and_the_order_belong_to_the_seed(fit, same_weights):
    runs = [fit(ImageClassifier(SMALL, seed=seed), digits(), max_epochs=1) for seed in (1, 1, 2)]
    assert same_weights(runs[0].model, runs[1].model)
    assert not same_weights(runs[0].model, runs[2].model)


def test_a_network_in_evaluation_mode_is_trained_in_train_mode(fit):
    network = build(SMALL, 10, seed=0).eval()
    layer = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    before = copy.deepcopy(layer.running_mean)
    fit(ImageClassifier(network), digits(), max_epochs=1, limit_val_batches=0)
    assert not torch.equal(layer.running_mean, before)


@pytest.mark.parametrize("scenario", [digits, lambda: FullClass(Digits(), [1, 4]), lambda: RandomSample(Digits(), 0.2)])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_accuracy_and_loss_over_the_test_set(tiny, scenario, stage):
    """By hand, over all of D' and nothing else, with batches that do not divide."""
    data = scenario()
    data.evaluation_batch_size = 77
    classifier = ImageClassifier(tiny.network(classes=10).double())
    with hushed():
        results = getattr(quiet_trainer("cpu"), stage)(classifier, datamodule=data, verbose=False)[0]
    images = (data.dataset.test.images.double() / 255 - data.dataset.mean[0]) / data.dataset.std[0]
    with torch.no_grad():
        logits = classifier.model.eval()(images.float().expand(-1, 3, -1, -1).double())
    targets = data.dataset.test.targets
    key = "val" if stage == "validate" else "test"
    assert results[f"{key}/accuracy"] == pytest.approx((logits.argmax(1) == targets).double().mean().item(), rel=1e-6)
    assert results[f"{key}/loss"] == pytest.approx(functional.cross_entropy(logits, targets).item(), rel=1e-5)


def test_predictions_in_the_order_of_the_test_set():
    data = FullClass(Digits(), 3)
    classifier = ImageClassifier(SMALL, num_classes=10)
    with hushed():
        batches = quiet_trainer("cpu").predict(classifier, datamodule=data)
    assert sum(map(len, batches)) == len(data.dataset.test.targets)
    assert batches[0].shape[1] == 10


class Save(Callback):
    """Saves a checkpoint after some step of the fit."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("step", "left"), [(1, 3 * N - 50), (3, 3 * N - 150), (4, 2 * N), (6, 2 * N - 100), (8, N)])
def test_resume_inside_and_between_epochs(tiny, fit, same_weights, tmp_path, step, left):
    """Four batches an epoch: after the first, before and at the end of an epoch, and inside later ones."""
    recipe, path = Recipe(milestones=(2,)), tmp_path / "mid.ckpt"
    whole = fit(ImageClassifier(tiny.network(classes=10), recipe), digits(), max_epochs=3, callbacks=[Save(path, step)])
    served = Served()
    again = ImageClassifier(tiny.network(classes=10), recipe)
    fit(again, digits(), max_epochs=3, ckpt_path=path, callbacks=[served])
    assert same_weights(again.model, whole.model)
    assert sum(map(len, served.epochs.values())) == left


def test_checkpoint_tells_what_it_is(fit, tmp_path, same_weights):
    classifier = fit(
        ImageClassifier(SMALL, Recipe(milestones=[2]), seed=4), digits(), callbacks=[Save(tmp_path / "a.ckpt", 4)]
    )
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert content["hyper_parameters"] == {
        "network": {"class_path": "ResNet18", "init_args": {"width": 8}},
        "recipe": {**vars(Recipe()), "milestones": [2]},
        "seed": 4,
        "num_classes": 10,
    }
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert same_weights(loaded.model, classifier.model)


def test_accumulated_batches_count_as_one_step(tiny, fit):
    rates = Rates()
    recipe = Recipe(lr=0.1, warmup_epochs=1)
    module = ImageClassifier(tiny.network(classes=10), recipe)
    fit(module, digits(), max_epochs=2, accumulate_grad_batches=2, callbacks=[rates])
    assert rates.seen == pytest.approx([0, 0.05, 0.1, 0.1])


def test_number_of_classes(tiny, fit):
    built = build(SMALL, 10, seed=0)
    assert ImageClassifier(built).num_classes == 10
    assert ImageClassifier(built).network_spec == SMALL
    with pytest.raises(ConfigError, match="outputs can be counted"), hushed():
        quiet_trainer("cpu", max_epochs=1).fit(ImageClassifier(SMALL), iter([]))
    own = ImageClassifier(tiny.network())
    assert own.network_spec is None
    assert own.num_classes is None


def test_an_empty_sequential_is_a_network():
    assert isinstance(ImageClassifier(nn.Sequential()).model, nn.Sequential)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"momentum": 1.0},
        {"weight_decay": -1},
        {"warmup_epochs": -1},
        {"optimizer": "adam"},
        {"schedule": "x"},
    ],
)
def test_recipes_that_cannot_train(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_a_rate_that_never_changes_has_no_schedule():
    parameters = [nn.Parameter(torch.ones(1))]
    constant = Recipe(schedule="constant", warmup_epochs=0.0)
    assert constant.optimizers(parameters, lambda: 3, 2).keys() == {"optimizer"}
    for changing in (Recipe(schedule="constant", warmup_epochs=1.0), Recipe(warmup_epochs=0.0, milestones=(1,))):
        assert "lr_scheduler" in changing.optimizers(parameters, lambda: 3, 2)


def test_a_schedule_needs_an_end(fit):
    with pytest.raises(ConfigError, match="max_epochs"):
        fit(ImageClassifier(SMALL), digits(), max_epochs=-1)
