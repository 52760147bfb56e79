"""Networks from plain values: same seed, same weights; nothing outside is touched."""

import copy
import json
import random
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from supreme.errors import ConfigError, UnknownNameError
from supreme.models import NetworkSpec, ResNet18
from supreme.models.build import build, reinitialise

SMALL = NetworkSpec("ResNet18", {"width": 8})


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def user_package(tmp_path, monkeypatch):
    folder = tmp_path / "my_networks"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from torch import nn\n"
        "CONSTANT = 3\n"
        "def net(num_classes, hidden=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(hidden), nn.Linear(hidden, num_classes))\n"
        "def needy(num_classes, depth):\n    return nn.Linear(depth, num_classes)\n"
        "def classless(outputs):\n    return nn.Linear(1, outputs)\n"
        "def number(num_classes):\n    return 3\n"
        "def broken(num_classes):\n    raise ValueError('no such depth')\n"
        "def anything(**arguments):\n    return nn.Linear(2, arguments['num_classes'])\n"
    )
    (folder / "lacking.py").write_text("import a_package_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_build_attaches_what_it_was_built_from():
    network = build(SMALL, num_classes=5, seed=0)
    assert isinstance(network, ResNet18)
    assert network.spec == SMALL
    assert network.num_classes == 5
    assert network.head.out_features == 5
    assert network.training


def test_same_seed_same_weights_whatever_ran_before():
    first = build(SMALL, 10, seed=1)
    torch.rand(17)
    assert same(first, build(SMALL, 10, seed=1))
    assert not same(first, build(SMALL, 10, seed=2))


def test_build_is_what_the_class_draws_under_the_seed():
    torch.manual_seed(3)
    assert same(ResNet18(num_classes=10, width=8), build(SMALL, 10, seed=3))


def test_global_generators_are_left_as_they_were():
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    reinitialise(build(SMALL, 10, seed=1), seed=2)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("path", ["ResNet18", "supreme.models.ResNet18", "supreme.models.resnet.ResNet18"])
def test_short_and_dotted_names_mean_the_same(path):
    assert same(build(NetworkSpec(path, {"width": 8}), 10, seed=0), build(SMALL, 10, seed=0))


def test_a_function_of_another_package():
    network = build(NetworkSpec("torchvision.models.resnet18"), 7, seed=0)
    assert network.fc.out_features == 7
    assert same(network, build(NetworkSpec("torchvision.models.resnet18"), 7, seed=0))


def test_a_function_of_the_user(user_package):
    network = build(NetworkSpec("my_networks.net", {"hidden": 6}), 3, seed=0)
    assert network(torch.rand(2, 1, 2, 2)).shape == (2, 3)
    assert build(NetworkSpec("my_networks.anything"), 3, seed=0).out_features == 3


def test_spec_survives_json_and_compares():
    spec = NetworkSpec("my.Net", {"sizes": (3, 4), "name": "x", "deep": {"a": [1, None, True, 0.5]}})
    assert NetworkSpec(**json.loads(json.dumps(asdict(spec)))) == spec
    assert spec != NetworkSpec("my.Net", {"sizes": (3, 5)})
    assert spec.init_args["sizes"] == [3, 4]


def test_spec_does_not_share_its_arguments_with_the_caller():
    arguments = {"sizes": [1, 2]}
    spec = NetworkSpec("my.Net", arguments)
    arguments["sizes"].append(3)
    assert spec.init_args == {"sizes": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"layer": nn.Linear(1, 1)}, "plain value for my.Net.layer, got Linear"),
        ({"num_classes": 3}, "Leave num_classes"),
    ],
)
def test_spec_refuses_what_is_not_plain(arguments, text):
    with pytest.raises(ConfigError, match=text):
        NetworkSpec("my.Net", arguments)


@pytest.mark.parametrize(
    ("path", "arguments", "error", "text"),
    [
        ("ResNet81", {}, UnknownNameError, "did you mean 'ResNet18'"),
        ("torchvision.models.resnet19", {}, UnknownNameError, "resnet1"),
        ("no_such_package.Net", {}, ConfigError, "no_such_package"),
        ("my_networks.CONSTANT", {}, ConfigError, "class or function, got int"),
        ("my_networks.number", {}, ConfigError, "nn.Module, got int"),
        ("my_networks.classless", {}, ConfigError, "to take num_classes"),
        ("my_networks.needy", {}, ConfigError, "missing a required argument: 'depth'"),
        ("my_networks.broken", {}, ConfigError, "no such depth"),
        ("my_networks.lacking.Net", {}, ConfigError, "a_package_that_is_not_installed"),
        ("ResNet18", {"widht": 8}, ConfigError, "no argument 'widht'; did you mean 'width'"),
        ("ResNet18", {"zzz": 8}, ConfigError, "it takes num_classes, width"),
        ("ResNet18", {"width": 4}, ConfigError, "width >= 8"),
        ("torchvision.models.resnet18", {"depht": 8}, ConfigError, "depht"),
    ],
)
def test_what_cannot_be_built_is_said(user_package, path, arguments, error, text):
    with pytest.raises(error, match=text):
        build(NetworkSpec(path, arguments), 10, seed=0)


def test_both_ways_to_reinitialise_give_the_same_bits():
    network = build(NetworkSpec("ResNet18", {"width": 16}), 10, seed=1)
    bare = copy.deepcopy(network)
    del bare.spec
    rebuilt, reset = reinitialise(network, seed=9), reinitialise(bare, seed=9)
    assert same(rebuilt, reset)
    assert not same(rebuilt, network)
    assert same(rebuilt, build(NetworkSpec("ResNet18", {"width": 16}), 10, seed=9))
    assert rebuilt.spec == network.spec


@pytest.mark.parametrize("with_spec", [True, False])
def test_the_argument_is_never_touched(with_spec):
    network = build(SMALL, 10, seed=1)
    network(torch.rand(4, 3, 8, 8))
    if not with_spec:
        del network.spec
    before = copy.deepcopy(network.state_dict())
    fresh = reinitialise(network, seed=2)
    for parameter in fresh.parameters():
        parameter.data.zero_()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_running_statistics_start_anew():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network(torch.rand(8, 3, 8, 8) * 9)
    fresh = reinitialise(network, seed=0)
    assert bool((fresh[1].running_mean == 0).all())
    assert bool((fresh[1].running_var == 1).all())
    assert int(fresh[1].num_batches_tracked) == 0


@pytest.mark.parametrize("with_spec", [True, False])
def test_type_and_mode_are_kept(with_spec):
    network = build(SMALL, 10, seed=1).double().eval()
    if not with_spec:
        del network.spec
    fresh = reinitialise(network, seed=0)
    assert next(fresh.parameters()).dtype == torch.float64
    assert not fresh.training


class Free(nn.Module):
    """A parameter that nothing draws anew."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (Free(), "scale"),
        (nn.Sequential(nn.Flatten(), Free()), "1.scale"),
        (parametrizations.weight_norm(nn.Linear(2, 2)), "parametrizations.weight.original0"),
    ],
)
def test_a_parameter_that_no_module_draws_is_named(network, name):
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ConfigError, match=f"'{name}'.*pass the fresh network explicitly"):
        reinitialise(network, seed=0)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_frozen_parameter_may_stay_but_a_wholly_frozen_network_is_drawn_anew():
    part = Free()
    part.scale.requires_grad_(False)
    fresh = reinitialise(part, seed=0)
    assert torch.equal(fresh.scale, part.scale)
    assert not fresh.scale.requires_grad
    whole = nn.Linear(2, 2).requires_grad_(False)
    again = reinitialise(whole, seed=0)
    assert not torch.equal(again.weight, whole.weight)
    assert again.weight.requires_grad
    rebuilt = reinitialise(build(SMALL, 10, seed=0).requires_grad_(False), seed=0)
    assert all(parameter.requires_grad for parameter in rebuilt.parameters())


def test_attention_is_drawn_anew():
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=8)
    fresh, again = reinitialise(layer, seed=0), reinitialise(layer, seed=0)
    for (name, old), new in zip(layer.named_parameters(), fresh.parameters(), strict=True):
        assert "weight" not in name or name.startswith("norm") or not torch.equal(old, new)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True))


def test_an_outer_reset_has_the_last_word():
    class ZeroHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.zeros_(self.head.weight)

        def forward(self, x):
            return self.head(x)

    assert bool((reinitialise(ZeroHead(), seed=0).head.weight == 0).all())


def test_a_network_that_was_altered_after_it_was_built_keeps_its_shape():
    network = build(SMALL, 10, seed=0)
    network.head = nn.Linear(64, 3)
    fresh = reinitialise(network, seed=1)
    assert fresh.head.out_features == 3
    assert not torch.equal(fresh.stem.weight, network.stem.weight)


def test_shared_parameters_stay_shared():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    fresh = reinitialise(network, seed=0)
    assert fresh[0].weight is fresh[1].weight


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("with_spec", [True, False])
def test_the_device_does_not_change_the_draw(with_spec):
    network = build(SMALL, 10, seed=1)
    if not with_spec:
        del network.spec
    there = reinitialise(copy.deepcopy(network).cuda(), seed=4)
    assert next(there.parameters()).is_cuda
    assert same(there.cpu(), reinitialise(network, seed=4))
