import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from torch.nn.functional import cross_entropy

from supreme.callbacks import LossCurve
from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets import Digits
from supreme.methods import Retrain
from supreme.scenarios import FullClass, WholeDataset

STILL = Recipe("sgd", lr=1e-30, momentum=0.0, weight_decay=0.0)


@pytest.fixture
def network():
    seed_everything(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def trained(module, data, curve, epochs):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(accelerator="cpu", max_epochs=epochs, limit_val_batches=0, callbacks=[curve], **quiet).fit(module, data)
    return curve.values


def test_a_network_that_stands_still_has_its_own_loss_in_every_pass(network):
    data = WholeDataset(Digits(), batch_size=1438)  # one batch, so the mean over batches is the mean over samples
    values = trained(ImageClassifier(network, STILL), data, LossCurve(), 3)
    train = data.dataset.train
    pixels = train.images.double().expand(-1, 3, -1, -1) / 255
    pixels = (pixels - data.dataset.mean[0]) / data.dataset.std[0]
    with torch.no_grad():
        expected = cross_entropy(network.double()(pixels), train.targets).item()
    assert values == pytest.approx([expected] * 3, rel=1e-5)


def test_the_passes_of_a_retrain_are_told_apart(network):
    recipe = Recipe("adamw", lr=1e-2, warmup_epochs=0.0)
    falling = trained(Retrain(network, epochs=4, recipe=recipe), FullClass(Digits(), 3), LossCurve(4), 1)
    assert len(falling) == 4
    assert sorted(falling, reverse=True) == falling
    still = trained(Retrain(network, epochs=2, recipe=STILL), FullClass(Digits(), 3), LossCurve(2), 1)
    assert still[0] == pytest.approx(still[1], rel=1e-2)  # the same rows in other batches
