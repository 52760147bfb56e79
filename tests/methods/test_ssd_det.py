"""SSDDet against stored results, a plain loop over samples, and what must not matter to it."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from supreme.api import unlearn
from supreme.errors import ConfigError
from supreme.methods import SSDDet

ARGUMENTS = {"selection_weight": 1.2, "dampening": 0.7}


def hyper(golden):
    values = golden.meta["hyperparameters"]
    return {
        "selection_weight": values["selection_weighting_alpha"],
        "dampening": values["dampening_constant_lambda"],
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights(case, dtype):
    golden = case("ssd_det", dtype)
    golden.check(golden.unlearn("SSDDet", **hyper(golden)).model.state_dict())


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
def test_published_importances_and_counts(case, chunk_size):
    golden = case("ssd_det", torch.float32)
    method = SSDDet(golden.network(), **hyper(golden), chunk_size=chunk_size)
    golden.unlearn(method)
    found = {f"importance_{part}.{k}": v for part, sums in method.importances.items() for k, v in sums.items()}
    golden.check(found, "intermediate", relative=True)
    alpha, full = method.selection_weight, method.importances["full"]
    selected = {name: int((v > alpha * full[name]).sum()) for name, v in method.importances["forget"].items()}
    assert selected == golden.json()["selected_per_tensor"]


def importances(network, images, labels):
    """By hand: mean over samples of the squared gradient of the sample's cross-entropy, in float64."""
    network = copy.deepcopy(network).double().eval()
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, label in zip(images.double(), labels, strict=True):
        network.zero_grad()
        functional.cross_entropy(network(image[None]), label[None]).backward()
        for name, parameter in network.named_parameters():
            total[name] += parameter.grad**2 / len(images)
    return total


def by_hand(tiny):
    """I_D and I_f of the tiny task."""
    forget, retain = tiny.sets(dtype=torch.float64)
    whole = [torch.cat([retain.tensors[k], forget.tensors[k]]) for k in (0, 1)]
    return importances(tiny.network(), *whole), importances(tiny.network(), *forget.tensors)


def test_weights_by_hand(tiny):
    network = tiny.network().double()
    forget, retain = tiny.sets(dtype=torch.float64)
    result = unlearn(network, "SSDDet", forget=forget, retain=retain, batch_size=7, accelerator="cpu", **ARGUMENTS)
    full, own = by_hand(tiny)
    before, after = dict(network.named_parameters()), dict(result.model.named_parameters())
    chosen_somewhere = False
    for name, weight in before.items():
        chosen = own[name] > ARGUMENTS["selection_weight"] * full[name]
        factor = (ARGUMENTS["dampening"] * full[name] / own[name]).clamp(max=1.0)
        chosen_somewhere |= bool(chosen.any())
        torch.testing.assert_close(after[name], torch.where(chosen, weight * factor, weight), rtol=1e-12, atol=1e-15)
        assert torch.equal(after[name][~chosen], weight[~chosen])  # bit for bit
    assert chosen_somewhere


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_precision_of_importances(tiny, fit, precision):
    """Always float32 or better, whatever the precision; bf16-true rounds the images, and nothing else."""
    method = fit(SSDDet(tiny.network(), **ARGUMENTS), tiny.scenario(), precision=precision)
    tolerance = {"bf16-true": 0.03, "64-true": 1e-12}.get(precision, 1e-5)
    for part, expected in zip(("full", "forget"), by_hand(tiny), strict=True):
        for name, value in method.importances[part].items():
            assert value.dtype == (torch.float64 if precision == "64-true" else torch.float32)
            assert (value.double() - expected[name]).norm() <= tolerance * expected[name].norm(), name


def spread(first, second):
    """Largest relative difference of importances."""
    return max(
        float((value - second[part][name]).norm() / value.norm().clamp(min=1e-300))
        for part, sums in first.items()
        for name, value in sums.items()
    )


def test_batches_order_and_chunks_have_no_effect(tiny, fit):
    network = tiny.network().double()
    forget, retain = tiny.sets(dtype=torch.float64)
    draw = torch.Generator().manual_seed(0)
    mixed = []
    for part in (forget, retain):
        order = torch.randperm(len(part), generator=draw)
        mixed.append(TensorDataset(*(tensor[order] for tensor in part.tensors)))
    runs = []
    for sets, size, chunk in (((forget, retain), 8, None), ((forget, retain), 45, 4), (mixed, 1, None), (mixed, 7, 1)):
        method = SSDDet(network, **ARGUMENTS, chunk_size=chunk)
        runs.append(
            (method, unlearn(network, method, forget=sets[0], retain=sets[1], batch_size=size, accelerator="cpu"))
        )
    (first, result), *others = runs
    for method, other in others:
        assert spread(first.importances, method.importances) <= 1e-13
        for name, value in result.model.state_dict().items():
            torch.testing.assert_close(other.model.state_dict()[name], value, rtol=1e-12, atol=0)


def test_networks_that_do_not_vectorise_give_the_same(tiny, fit):
    class Watched(nn.Sequential):
        def forward(self, images):
            assert math.isfinite(float(images.sum()))  # looks at values, which vmap refuses
            return super().forward(images)

    network = tiny.network()
    watched = Watched(*copy.deepcopy(network))
    plain = fit(SSDDet(network.double(), **ARGUMENTS), tiny.scenario(dtype=torch.float64))
    with pytest.warns(UserWarning, match="Watched cannot be vectorised"):
        other = fit(SSDDet(watched.double(), **ARGUMENTS), tiny.scenario(dtype=torch.float64))
    assert spread(plain.importances, other.importances) <= 1e-13


def test_buffers_and_original_stay_and_the_copy_goes(tiny, fit, same_weights):
    network = tiny.network().train()
    before = copy.deepcopy(network)
    method = fit(SSDDet(network, **ARGUMENTS), tiny.scenario())
    assert same_weights(network, before)
    for name, buffer in method.model.named_buffers():
        assert torch.equal(buffer, dict(before.named_buffers())[name])
    held = [value for value in vars(method).values() if value.__class__.__name__ == "SampleGradientSums"]
    assert not held
    assert not method._copy


def test_given_importances_replace_the_pass_over_all_data(tiny, fit, same_weights):
    first = fit(SSDDet(tiny.network(), **ARGUMENTS), tiny.scenario())
    given = {name: value.clone() for name, value in first.importances["full"].items()}
    second = SSDDet(tiny.network(), **ARGUMENTS, full_importance=given)
    assert [phase.data for phase in second.phases] == ["forget"]
    assert same_weights(fit(second, tiny.scenario()).model, first.model)


def test_nothing_can_be_selected_from_a_bound_on(tiny, fit, same_weights):
    """45 samples, 11 to forget: I_f <= 45 / 11 I_D."""
    with pytest.warns(UserWarning, match=r"SSDDet selected no weight .* \|D\| / \|D_f\| = 4.091"):
        method = fit(SSDDet(tiny.network(), selection_weight=45 / 11 + 1e-3), tiny.scenario())
    assert same_weights(method.model, tiny.network())
    ratio = max(
        float((own / method.importances["full"][k]).nan_to_num().max())
        for k, own in method.importances["forget"].items()
    )
    assert 1 < ratio <= 45 / 11 * (1 + 1e-6)
    with pytest.warns(UserWarning, match="choose a smaller selection_weight"):
        fit(SSDDet(tiny.network(), 50.0, full_importance=method.importances["full"]), tiny.scenario())


def test_no_warning_where_weights_are_selected(tiny, fit):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*selected no weight")
        fit(SSDDet(tiny.network(), **ARGUMENTS), tiny.scenario())


def test_unreached_and_frozen_parameters_stay(tiny, fit):
    network = tiny.network()
    network.register_parameter("spare", nn.Parameter(torch.full((3,), 2.0)))
    network[0].requires_grad_(False)
    method = fit(SSDDet(network, selection_weight=1e-6, dampening=0.1), tiny.scenario())
    assert torch.equal(method.model.spare, torch.full((3,), 2.0))
    assert torch.equal(method.model[0].weight, network[0].weight)
    assert not torch.equal(method.model[3].weight, network[3].weight)


@pytest.mark.parametrize("wrong", [{"selection_weight": 0}, {"dampening": -1}, {"chunk_size": 0}])
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match="Expected"):
        SSDDet(tiny.network(), **wrong)
