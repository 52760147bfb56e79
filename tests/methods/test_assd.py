"""ASSD against stored results, NumPy's percentile, and the rule of SSD."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from supreme.errors import ConfigError
from supreme.methods import ASSD, SSD


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights_and_threshold(case, dtype):
    golden = case("assd", dtype)
    method = ASSD(golden.network(), dampening=golden.meta["hyperparameters"]["dampening_constant_lambda"])
    golden.check(golden.unlearn(method).model.state_dict())
    expected = golden.json()
    assert method.selection_weight == pytest.approx(expected["alpha_used"], rel=1e-5)
    alpha, full = method.selection_weight, method.importances["full"]
    selected = {name: int((v > alpha * full[name]).sum()) for name, v in method.importances["forget"].items()}
    assert selected == expected["selected_per_tensor"]
    if not golden.double:
        found = {f"importance_{part}.{k}": v for part, sums in method.importances.items() for k, v in sums.items()}
        golden.check(found, "intermediate", relative=True)


def percentile(method, share):
    """NumPy's, of all finite ratios."""
    forget, full = (torch.cat([v.flatten() for v in method.importances[part].values()]) for part in ("forget", "full"))
    ratio = (forget / full).numpy()
    return np.percentile(ratio[np.isfinite(ratio)].astype(np.float64), 100 - math.log(1 + 100 * share))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_threshold_is_numpy_s_percentile_and_the_rest_is_ssd(tiny, fit, same_weights, dtype):
    """45 samples, 11 to forget."""
    network = tiny.network().to(dtype)
    method = fit(ASSD(network, dampening=0.7), tiny.scenario(dtype=dtype))
    assert method.selection_weight == percentile(method, 11 / 45)
    plain = fit(SSD(network, method.selection_weight, 0.7), tiny.scenario(dtype=dtype))
    assert same_weights(method.model, plain.model)
    assert not same_weights(method.model, network)


def test_reference_retain_is_the_authors_own_setting(tiny, fit):
    network = tiny.network().double()
    method = fit(ASSD(network, dampening=0.1, reference="retain"), tiny.scenario(dtype=torch.float64))
    assert [phase.data for phase in method.phases] == ["retain", "forget"]
    assert method.selection_weight == percentile(method, 11 / 45)
    images, labels = tiny.sets(dtype=torch.float64)[1].tensors
    copied, total = copy.deepcopy(network).eval(), torch.zeros_like(network[0].weight)
    parts = list(zip(images.split(8), labels.split(8), strict=True))
    for image, label in parts:
        copied.zero_grad()
        nn.functional.cross_entropy(copied(image), label).backward()
        total += copied[0].weight.grad ** 2 / len(parts)
    torch.testing.assert_close(method.importances["full"]["0.weight"], total, rtol=1e-12, atol=1e-15)


def test_ratios_that_are_no_number_or_infinite_do_not_count(tiny, fit):
    network = tiny.network()
    network.register_parameter("spare", nn.Parameter(torch.full((300,), 2.0)))  # 0 / 0
    method = fit(ASSD(network), tiny.scenario())
    assert method.selection_weight == percentile(method, 11 / 45)
    assert torch.equal(method.model.spare, network.spare)


def test_without_any_ratio_alpha_is_99(tiny, fit, same_weights):
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, images):
            return images.flatten(1)[:, :4].detach() * 0 + 0 * self.weight

    network = Deaf()
    method = fit(ASSD(network), tiny.scenario())
    assert method.selection_weight == 99.0
    assert same_weights(method.model, network)


def test_given_importances_need_the_size_of_all_data(tiny, fit, monkeypatch):
    network = tiny.network()
    given = fit(ASSD(network), tiny.scenario()).whole_importances()
    second = fit(ASSD(network, full_importance=given), tiny.scenario())
    assert second.selection_weight == percentile(second, 11 / 45)
    with pytest.raises(ConfigError, match='reference "full" where full_importance is given, got "retain"'):
        ASSD(network, reference="retain", full_importance=given)
    scenario = tiny.scenario()
    monkeypatch.setattr(type(scenario), "request", replace(scenario.request, train_size=None))
    with pytest.raises(ConfigError, match="a request that tells train_size"):
        fit(ASSD(network, full_importance=given), scenario)


def test_before_the_fit_and_wrong_arguments(tiny):
    assert math.isnan(ASSD(tiny.network()).selection_weight)
    with pytest.raises(ConfigError, match='"full" or "retain", got \'forget\''):
        ASSD(tiny.network(), reference="forget")
    with pytest.raises(ConfigError, match="dampening >= 0"):
        ASSD(tiny.network(), dampening=-1.0)
