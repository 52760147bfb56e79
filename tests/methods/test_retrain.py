"""Retrain is fit on D_r: with D_f put back both are equal bit for bit."""

import copy

import pytest
import torch
from torch import nn

from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets import Digits
from supreme.errors import ConfigError
from supreme.methods import Retrain
from supreme.models.build import NetworkSpec, build, reinitialise
from supreme.scenarios import FullClass, WholeDataset
from supreme.transforms import Augment

SMALL = NetworkSpec("ResNet18", {"width": 8})
RECIPE = Recipe(lr=0.05, milestones=(2, 3), warmup_epochs=0.5)


def whole():
    """Half of the digits, augmented, in batches that do not divide."""
    return WholeDataset(Digits(test_fraction=0.8), batch_size=67, augmentation=Augment(crop_padding=1, rotation=10.0))


@pytest.mark.parametrize("schedule", ["multistep", "cosine"])
def test_with_everything_retained_it_equals_fit(fit, same_weights, schedule):
    recipe = Recipe(lr=0.05, schedule=schedule, milestones=(2, 3), warmup_epochs=0.5)
    trained = fit(ImageClassifier(SMALL, recipe, seed=7), whole(), max_epochs=3)
    other = build(SMALL, 10, seed=1)
    retrained = fit(Retrain(other, epochs=3, recipe=recipe, seed=7), whole())
    assert same_weights(retrained.model, trained.model)
    assert not same_weights(fit(Retrain(other, epochs=3, recipe=recipe, seed=8), whole()).model, trained.model)


def test_validation_between_epochs_changes_nothing(fit, same_weights):
    plain = fit(ImageClassifier(SMALL, RECIPE, seed=7), whole(), max_epochs=2, limit_val_batches=0)
    watched = fit(ImageClassifier(SMALL, RECIPE, seed=7), whole(), max_epochs=2, num_sanity_val_steps=1)
    assert same_weights(plain.model, watched.model)


def test_nothing_of_the_original_is_left(fit, same_weights):
    first, second = build(SMALL, 10, seed=1), build(SMALL, 10, seed=2)
    before = copy.deepcopy(first)
    scenario = FullClass(Digits(test_fraction=0.9), forget=3)
    runs = [fit(Retrain(network, epochs=1, recipe=RECIPE), scenario).model for network in (first, second)]
    assert same_weights(*runs)
    assert same_weights(first, before)


def test_a_network_of_the_callers_own_starts_afresh(tiny, fit, same_weights):
    network = tiny.network()
    scenario = tiny.scenario(batch_size=34)
    method = fit(Retrain(network, epochs=1, recipe=Recipe(warmup_epochs=1), seed=5), scenario)
    fresh = reinitialise(network, 5)  # one step with learning rate 0
    assert all(torch.equal(a, b) for a, b in zip(method.model.parameters(), fresh.parameters(), strict=True))
    assert not same_weights(fresh, network)


def test_what_cannot_be_drawn_anew_is_named(tiny, fit):
    network = tiny.network()
    network.register_parameter("spare", nn.Parameter(torch.ones(1)))
    with pytest.raises(ConfigError, match="spare"):
        fit(Retrain(network, epochs=1), tiny.scenario())


def test_arguments(tiny):
    assert Retrain(tiny.network(), recipe={"lr": 0.3}).recipe.lr == 0.3
    with pytest.raises(ConfigError, match="Expected epochs > 0"):
        Retrain(tiny.network(), epochs=0)
