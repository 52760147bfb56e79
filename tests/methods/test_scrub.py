"""SCRUB against stored results; what it turns into at its borders."""

import copy

import pytest
import torch

from supreme.errors import ConfigError
from supreme.methods import SCRUB, FineTune


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["scrub", "scrub_sgd"])
def test_published_weights(case, name, dtype):
    golden = case(name, dtype)
    values = golden.meta["hyperparameters"]
    result = golden.unlearn(
        "SCRUB",
        epochs=values["sgda_epochs"],
        lr=values["sgda_learning_rate"],
        gamma=values["gamma"],
        alpha=values["alpha"],
        smoothing=values["smoothing"],
        max_steps=values["msteps"],
        temperature=values["kd_T"],
        weight_decay=values["sgda_weight_decay"],
        milestones=values["lr_decay_epochs"],
        decay=values["lr_decay_rate"],
        optimizer=values["optimizer_type"],
        momentum=values.get("sgda_momentum", 0.9),
    )
    golden.check(result.model.state_dict())


def test_without_maximisation_and_distillation_it_is_fine_tuning(tiny, fit, same_weights):
    arguments = {"lr": 0.05, "momentum": 0.8, "weight_decay": 1e-3}
    scenario = tiny.scenario(shuffle=False)
    scrub = SCRUB(
        tiny.network(), epochs=3, max_steps=0, gamma=1.0, alpha=0.0, optimizer="sgd", milestones=(), **arguments
    )
    tuned = fit(FineTune(tiny.network(), epochs=3, **arguments), scenario)
    assert same_weights(fit(scrub, scenario).model, tuned.model)


def test_phases_and_learning_rates(tiny):
    method = SCRUB(tiny.network(), epochs=4, max_steps=2, lr=1.0, milestones=(1, 2), decay=0.1, forget_batch_size=3)
    assert [phase.data for phase in method.phases] == ["forget", "retain", "forget", "retain", "retain", "retain"]
    assert [phase.lr for phase in method.phases] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [phase.batch_size for phase in method.phases][:2] == [3, None]


def test_smoothing_pulls_towards_the_original(tiny, fit):
    start = tiny.network()

    def distance(smoothing):
        method = fit(SCRUB(start, epochs=4, smoothing=smoothing, weight_decay=0.0, lr=5e-3), tiny.scenario())
        pairs = zip(method.model.parameters(), start.parameters(), strict=True)
        return sum((a - b).square().sum().item() for a, b in pairs) ** 0.5

    assert distance(5.0) < 0.7 * distance(0.0)


def test_teacher_and_original_stay(tiny, fit, same_weights):
    network = tiny.network()
    before = copy.deepcopy(network)
    method = fit(SCRUB(network, epochs=2, max_steps=1, lr=0.05), tiny.scenario())
    assert same_weights(network, before)
    assert same_weights(method.teacher.model, before)
    assert not same_weights(method.model, before)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"max_steps": -1}, {"temperature": 0}, {"optimizer": "adamw"}])
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SCRUB(tiny.network(), **wrong)
