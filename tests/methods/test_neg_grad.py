"""NegGrad against stored results and a loop by hand."""

import copy

import pytest
import torch
from torch.nn import functional

from supreme.errors import ConfigError
from supreme.methods import NegGrad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights(case, dtype):
    """The published learning rate is named; the default is lower."""
    golden = case("neg_grad", dtype)
    values = golden.meta["hyperparameters"]
    result = golden.unlearn(
        "NegGrad",
        epochs=values["epochs"],
        lr=values["lr"],
        momentum=values["momentum"],
        weight_decay=values["weight_decay"],
    )
    golden.check(result.model.state_dict())


def test_a_step_raises_the_loss_of_the_forget_set(tiny, fit):
    images, labels = tiny.sets()[0].tensors
    network = tiny.network("group")

    def loss(model):
        return functional.cross_entropy(model.eval()(images), labels).item()

    assert loss(fit(NegGrad(network, epochs=1, lr=0.01), tiny.scenario()).model) > loss(network) + 1e-3


def test_by_hand_in_evaluation_mode_with_a_bound(tiny, fit):
    """BatchNorm statistics stay, and lost samples give no gradient."""
    arguments = {"epochs": 6, "lr": 0.05, "momentum": 0.8, "weight_decay": 1e-2}
    network = tiny.network().double()
    scenario = tiny.scenario(dtype=torch.float64, shuffle=False)
    found = fit(NegGrad(network, mode="eval", max_loss=2.0, **arguments), scenario, precision="64-true").model
    expected = copy.deepcopy(network).eval()
    settings = {name: arguments[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(expected.parameters(), **settings)
    images, labels = (tensor.split(8) for tensor in tiny.sets(dtype=torch.float64)[0].tensors)
    lost = 0
    for _ in range(arguments["epochs"]):
        for image, label in zip(images, labels, strict=True):
            log_p = expected(image).log_softmax(dim=1)
            low = -log_p[torch.arange(len(label)), label] < 2.0
            lost += int((~low).sum())
            optimizer.zero_grad()
            (log_p[torch.arange(len(label)), label][low].sum() / len(label)).backward()
            optimizer.step()
    assert 0 < lost < 66
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=1e-12)


def test_seed_drives_the_order(tiny, fit, same_weights):
    runs = [fit(NegGrad(tiny.network(), epochs=1, seed=seed), tiny.scenario()).model for seed in (1, 1, 2)]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"max_loss": 0.0}, {"mode": "test"}])
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        NegGrad(tiny.network(), **wrong)
