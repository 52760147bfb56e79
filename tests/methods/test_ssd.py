"""SSD against stored results, an independent importance, and its invariants."""

import copy
import math

import pytest
import torch
from torch.nn import functional

from supreme import methods
from supreme.api import unlearn
from supreme.errors import ConfigError
from supreme.methods import ASSD, LFSSD, SSD

ARGUMENTS = {"selection_weight": 1.2, "dampening": 0.7}


def hyper(golden):
    values = golden.meta["hyperparameters"]
    return {
        "selection_weight": values["selection_weighting_alpha"],
        "dampening": values["dampening_constant_lambda"],
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["ssd_defaults", "ssd_clipped"])
def test_published_weights(case, name, dtype):
    golden = case(name, dtype)
    golden.check(golden.unlearn("SSD", **hyper(golden)).model.state_dict())


def test_published_importances_and_counts(case):
    golden = case("ssd_clipped", torch.float32)
    method = SSD(golden.network(), **hyper(golden))
    golden.unlearn(method)
    found = {f"importance_{part}.{k}": v for part, sums in method.importances.items() for k, v in sums.items()}
    golden.check(found, "intermediate", relative=True)
    alpha, full = method.selection_weight, method.importances["full"]
    forget = method.importances["forget"]
    selected = {name: int((value > alpha * full[name]).sum()) for name, value in forget.items()}
    assert selected == golden.json()["selected_per_tensor"]


def importances(network, images, labels, size):
    """By hand: mean over batches of the squared gradient of the batch's mean cross-entropy."""
    network = copy.deepcopy(network).eval()
    parts = list(zip(images.split(size), labels.split(size), strict=True))
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, label in parts:
        network.zero_grad()
        functional.cross_entropy(network(image), label).backward()
        for name, parameter in network.named_parameters():
            total[name] += parameter.grad**2 / len(parts)
    return total


def test_weights_by_hand(tiny):
    network = tiny.network().double()
    forget, retain = tiny.sets(dtype=torch.float64)
    result = unlearn(network, "SSD", forget=forget, retain=retain, batch_size=7, accelerator="cpu", **ARGUMENTS).model
    whole = [torch.cat([retain.tensors[k], forget.tensors[k]]) for k in (0, 1)]
    full, own = importances(network, *whole, 7), importances(network, *forget.tensors, 7)
    before, after = dict(network.named_parameters()), dict(result.named_parameters())
    chosen_somewhere = False
    for name, weight in before.items():
        chosen = own[name] > ARGUMENTS["selection_weight"] * full[name]
        factor = (ARGUMENTS["dampening"] * full[name] / own[name]).clamp(max=1.0)
        chosen_somewhere |= bool(chosen.any())
        torch.testing.assert_close(after[name], torch.where(chosen, weight * factor, weight), rtol=1e-12, atol=1e-15)
        assert torch.equal(after[name][~chosen], weight[~chosen])  # bit for bit
        assert (after[name].abs() <= weight.abs()).all()
        assert (after[name] * weight >= 0).all()
    assert chosen_somewhere


def test_buffers_and_original_stay(tiny, fit, same_weights):
    network = tiny.network().train()
    before = copy.deepcopy(network)
    method = fit(SSD(network, **ARGUMENTS), tiny.scenario())
    assert same_weights(network, before)
    assert network.training
    assert not method.model.training
    for name, buffer in method.model.named_buffers():
        assert torch.equal(buffer, dict(before.named_buffers())[name])
    assert not same_weights(method.model, before)


def test_infinite_selection_weight_changes_nothing(tiny, fit, same_weights):
    network = tiny.network()
    assert same_weights(fit(SSD(network, selection_weight=math.inf), tiny.scenario()).model, network)


def test_smallest_selection_weight_and_no_dampening_erase_what_forget_uses(tiny, fit):
    method = fit(SSD(tiny.network(), selection_weight=1e-12, dampening=0.0), tiny.scenario())
    for name, parameter in method.model.named_parameters():
        assert (parameter[method.importances["forget"][name] > 0] == 0).all()


def test_seed_and_shuffling_have_no_effect(tiny, fit, same_weights):
    runs = [
        fit(SSD(tiny.network(), **ARGUMENTS, seed=seed), tiny.scenario(shuffle=shuffle)).model
        for seed, shuffle in ((0, True), (5, True), (5, False))
    ]
    assert same_weights(runs[0], runs[1])
    assert same_weights(runs[0], runs[2])


def test_given_importances_replace_the_pass_over_all_data(tiny, fit, same_weights):
    first = fit(SSD(tiny.network(), **ARGUMENTS), tiny.scenario())
    given = {name: value.clone() for name, value in first.importances["full"].items()}
    second = SSD(tiny.network(), **ARGUMENTS, full_importance=given)
    assert [phase.data for phase in second.phases] == ["forget"]
    assert same_weights(fit(second, tiny.scenario()).model, first.model)
    assert all(torch.equal(given[name], value) for name, value in first.importances["full"].items())


@pytest.mark.parametrize("name", ["SSD", "LFSSD", "SSDDet", "ASSD"])
def test_importances_of_all_data_can_be_measured_alone(tiny, fit, same_weights, name):
    arguments = {} if name == "ASSD" else {"selection_weight": 1.2}
    network, method = tiny.network(), getattr(methods, name)
    first = fit(method(network, **arguments), tiny.scenario())
    assert not same_weights(first.model, network)
    measured = getattr(methods, method.shared_importances["class_path"].rpartition(".")[2])(network)
    measured.measure_full_alone()
    assert [phase.data for phase in measured.phases] == ["full"]
    assert same_weights(fit(measured, tiny.scenario()).model, network)
    assert measured.importances.keys() == {"full"}
    given = measured.whole_importances()
    assert all(torch.equal(given[key], value) for key, value in first.importances["full"].items())
    assert same_weights(fit(method(network, **arguments, full_importance=given), tiny.scenario()).model, first.model)


def test_importances_of_another_network_are_refused(tiny, fit):
    given = {name: torch.ones_like(p) for name, p in tiny.network().named_parameters()}
    for wrong in ({f"module.{name}": value for name, value in given.items()}, {**given, "0.weight": torch.ones(2)}):
        with pytest.raises(ConfigError, match=r"'0\.weight'"):
            fit(SSD(tiny.network(), full_importance=wrong), tiny.scenario())


def test_unreached_parameters_stay(tiny, fit):
    network = tiny.network()
    network.register_parameter("spare", torch.nn.Parameter(torch.full((3,), 2.0)))
    method = fit(SSD(network, selection_weight=1e-6, dampening=0.1), tiny.scenario())
    assert torch.equal(method.model.spare, torch.full((3,), 2.0))


def test_frozen_parameters_stay(tiny, fit):
    network = tiny.network()
    network[0].requires_grad_(False)
    method = fit(SSD(network, selection_weight=1e-6, dampening=0.1), tiny.scenario())
    assert torch.equal(method.model[0].weight, network[0].weight)
    assert not torch.equal(method.model[3].weight, network[3].weight)
    assert not method.model[0].weight.requires_grad


def test_mixed_precision_does_not_touch_importances(tiny, fit):
    plain = fit(SSD(tiny.network(), **ARGUMENTS), tiny.scenario())
    mixed = fit(SSD(tiny.network(), **ARGUMENTS), tiny.scenario(), precision="bf16-mixed")
    for part, sums in plain.importances.items():
        for name, value in sums.items():
            assert torch.equal(mixed.importances[part][name], value)


@pytest.mark.parametrize("wrong", [{"selection_weight": 0}, {"dampening": -1}, {"dampening": math.inf}])
@pytest.mark.parametrize("value", [None, math.nan])
def test_ranges(tiny, wrong, value):
    arguments = wrong if value is None else dict.fromkeys(wrong, value)
    with pytest.raises(ConfigError, match=r"Expected selection_weight > 0 and a finite dampening >= 0"):
        SSD(tiny.network(), **arguments)


@pytest.mark.parametrize("method", [SSD, LFSSD, ASSD])
def test_a_batch_size_of_its_own_is_that_of_the_scenario(method, tiny, same_weights):
    forget, retain = tiny.sets()
    sets = {"forget": forget, "retain": retain, "accelerator": "cpu"}
    own = method(tiny.network(), batch_size=4)
    expected = unlearn(tiny.network(), method, batch_size=4, **sets)
    assert same_weights(unlearn(tiny.network(), own, batch_size=16, **sets).model, expected.model)
    with pytest.raises(ConfigError, match="batch_size"):
        method(tiny.network(), batch_size=0)
