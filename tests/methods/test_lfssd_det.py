"""LFSSDDet against stored results and a plain loop over samples; it never looks at a label."""

import copy

import pytest
import torch
from torch.utils.data import TensorDataset

from supreme.api import unlearn
from supreme.methods import LFSSDDet


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights_and_importances(case, dtype):
    golden = case("lfssd_det", dtype)
    values = golden.meta["hyperparameters"]
    method = LFSSDDet(golden.network(), values["selection_weighting_alpha"], values["dampening_constant_lambda"])
    golden.check(golden.unlearn(method).model.state_dict())
    if not golden.double:
        found = {f"importance_{part}.{k}": v for part, sums in method.importances.items() for k, v in sums.items()}
        golden.check(found, "intermediate", relative=True)


def test_importances_by_hand(tiny, fit):
    network = tiny.network().double()
    method = fit(LFSSDDet(network, selection_weight=1.1), tiny.scenario(dtype=torch.float64, batch_size=10))
    copied = copy.deepcopy(network).eval()
    forget = tiny.sets(dtype=torch.float64)[0]
    total = {name: torch.zeros_like(p) for name, p in copied.named_parameters()}
    for image in forget.tensors[0]:
        copied.zero_grad()
        copied(image[None]).square().sum().backward()
        for name, parameter in copied.named_parameters():
            total[name] += parameter.grad.abs() / len(forget)
    for name, value in total.items():
        torch.testing.assert_close(method.importances["forget"][name], value, rtol=1e-12, atol=1e-15)


def test_labels_have_no_effect(tiny, same_weights):
    forget, retain = tiny.sets()
    other = [TensorDataset(part.tensors[0], torch.zeros_like(part.tensors[1])) for part in (forget, retain)]
    runs = [
        unlearn(tiny.network(), "LFSSDDet", forget=f, retain=r, batch_size=8, accelerator="cpu", selection_weight=1.1)
        for f, r in ((forget, retain), other)
    ]
    assert same_weights(runs[0].model, runs[1].model)
    assert not same_weights(runs[0].model, tiny.network())


def test_the_bound_on_the_ratio_holds_here_too(tiny, fit, same_weights):
    with pytest.warns(UserWarning, match="LFSSDDet selected no weight"):
        method = fit(LFSSDDet(tiny.network(), selection_weight=4.1), tiny.scenario())
    assert same_weights(method.model, tiny.network())
