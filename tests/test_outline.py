"""Networks whose weights come later, in one process; several processes: tests/distributed."""

import copy

import pytest
import torch
from torch import nn

from supreme.models.build import NetworkSpec, build, reinitialise, restart
from supreme.models.stored import load_model, save_model
from supreme.outline import DrawnWeights, fill, is_outline, outline, whole_copy
from supreme.seeding import isolated

SPEC = NetworkSpec("ResNet18", {"width": 8})


def make():
    with isolated(3):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def same(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_outline_gets_the_weights_of_the_network():
    found = outline(make, DrawnWeights(make))
    assert is_outline(found)
    assert all(value.is_meta for value in found.state_dict().values())
    twin = copy.deepcopy(found)
    assert same(whole_copy(found), make())
    fill(found, torch.device("cpu"))
    assert not is_outline(found)
    assert same(found, make())
    fill(found, torch.device("cpu"))  # a second time changes nothing
    fill(twin, torch.device("cpu"))
    assert same(twin, make())
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_a_network_of_its_own_stays_as_it_is():
    network = make()
    fill(network, torch.device("cpu"))
    assert not is_outline(network)
    assert same(network, make())
    assert whole_copy(network) is not network


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight


class Unsaved(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("position", torch.arange(3), persistent=False)


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scales = nn.Linear(2, 2), [torch.ones(2)]


class Values(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Dropout(rate) for rate in torch.linspace(0, 0.5, 3).tolist())


@pytest.mark.parametrize("network", [Shared, Unsaved, Loose, Values])
def test_networks_that_have_to_be_built_whole(network):
    assert outline(network, DrawnWeights(network)) is None


def test_stored_weights_are_read_later(tmp_path):
    network = build(SPEC, 10, 3).double()
    save_model(tmp_path, network, {"note": "mine"})
    later, about = load_model(tmp_path, later=True)
    assert is_outline(later)
    assert about["note"] == "mine"
    assert later.spec == SPEC
    assert not later.training
    fill(later, torch.device("cpu"))
    assert same(later, network)
    assert next(later.parameters()).dtype == torch.float64


@pytest.mark.parametrize("again", [reinitialise, restart])
def test_an_outline_can_be_drawn_anew(tmp_path, again):
    save_model(tmp_path, build(SPEC, 10, 3), {})
    later = load_model(tmp_path, later=True)[0]
    fresh = again(later, 5)
    assert is_outline(later)
    assert is_outline(fresh)
    fill(fresh, torch.device("cpu"))
    assert same(fresh, build(SPEC, 10, 5))
