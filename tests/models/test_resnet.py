"""ResNet-18 against the parameter counts, shapes and logits of the published implementation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from supreme.errors import ConfigError
from supreme.models import ResNet18

GOLDEN = Path(__file__).parents[1] / "golden" / "resnet18"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
META = json.loads((GOLDEN / "meta.json").read_text())


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("classes", [10, 20, 100, 105])
def test_parameter_counts(classes):
    network, expected = ResNet18(num_classes=classes), EXPECTED[str(classes)]
    assert count(network) == expected["parameter_count"]
    assert count(network) == {10: 11_173_962, 20: 11_179_092, 100: 11_220_132, 105: 11_222_697}[classes]
    assert sum(buffer.numel() for buffer in network.buffers()) == expected["buffer_count"]
    assert len(list(network.parameters())) == expected["parameter_tensors"]
    assert [list(parameter.shape) for parameter in network.parameters()][-2:] == expected["last_two_shapes"]


def test_shapes_in_the_order_of_registration():
    network = ResNet18()
    assert [list(parameter.shape) for parameter in network.parameters()] == EXPECTED["parameter_shapes_10_classes"]
    assert [list(buffer.shape) for buffer in network.buffers()] == EXPECTED["buffer_shapes"]


def prescribe(network, fill):
    """Fill every parameter as the stored case describes it, in float64."""
    for module in network.modules():
        scale = isinstance(module, torch.nn.BatchNorm2d)
        for name, parameter in module.named_parameters(recurse=False):
            i = np.arange(parameter.numel(), dtype=np.float64)
            if fill["kind"] == "linspace":
                values = np.linspace(fill["low"], fill["high"], parameter.numel())
            elif parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                values = fill["amplitude"] * np.sin(fill["frequency"] * i + 1) / math.sqrt(fan_in)
            else:
                values = fill["vector_amplitude"] * np.sin(fill["frequency"] * i + 1)
                values = values + 1 if scale and name == "weight" else values
            single = torch.from_numpy(values).float().reshape(parameter.shape)
            parameter.data.copy_(single)
    return network


@pytest.mark.parametrize(("kind", "classes"), [("linspace", 10), ("wave", 10), ("wave", 20)])
@pytest.mark.parametrize(
    ("dtype", "file", "tolerance"),
    [(torch.float32, "expected.safetensors", 1e-5), (torch.float64, "expected_float64.safetensors", 1e-10)],
)
def test_golden_logits(kind, classes, dtype, file, tolerance):
    network = prescribe(ResNet18(num_classes=classes), META["fills"][kind]).to(dtype).eval()
    images = torch.from_numpy(np.load(GOLDEN / "data.npz")["images"]).to(dtype)
    expected = load_file(GOLDEN / file)[f"logits.{kind}.{classes}"]
    with torch.no_grad():
        logits = network(images)
    assert float((logits - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("width", [8, 16])
def test_width_sets_the_channels_of_all_stages(width):
    network = ResNet18(num_classes=7, width=width)
    stages = (network.stage1, network.stage2, network.stage3, network.stage4)
    assert [stage[-1].conv2.out_channels for stage in stages] == [width, 2 * width, 4 * width, 8 * width]
    assert network.head.weight.shape == (7, 8 * width)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (32, 32), (64, 48)])
def test_any_size_from_8_pixels_and_a_backward_pass(size):
    network = ResNet18(num_classes=3, width=8)
    logits = network(torch.rand(4, 3, *size))
    assert logits.shape == (4, 3)
    logits.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) and float(p.grad.abs().sum()) > 0 for p in network.parameters())


def test_every_owner_of_parameters_can_reset_them():
    owners = [module for module in ResNet18(width=8).modules() if list(module.parameters(recurse=False))]
    assert len(owners) == 20 + 20 + 1
    assert all(callable(getattr(module, "reset_parameters", None)) for module in owners)


def test_initial_weights_follow_torchs_default():
    torch.manual_seed(0)
    network = ResNet18()
    weight = network.stage3[1].conv1.weight.detach().double()
    bound = 1 / math.sqrt(weight[0].numel())
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert bool((network.norm.weight == 1).all())
    assert bool((network.norm.bias == 0).all())


def test_the_size_that_it_asks_for():
    assert not hasattr(ResNet18(width=8), "input_spec")
    assert ResNet18(width=8, image_size=32).input_spec == {"size": [32, 32]}


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"width": 7}, {"image_size": 7}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ConfigError, match="num_classes >= 1 and width >= 8"):
        ResNet18(**arguments)
