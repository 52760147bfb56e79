"""Which parts of a network are gathered on their own under FSDP2."""

import importlib

import pytest

from supreme.testing.processes import in_processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]
BLOCKS = {  # what has to be sharded on its own, beside the network itself
    "ViT": {*(f"backbone.layers.{k}" for k in range(3)), "backbone", "head"},
    "HuggingFace": {*(f"network.vit.layers.{k}" for k in range(3)), "network"},
    "shared": {"body.1.blocks.2", "body", "head"},
}


@pytest.fixture(scope="module")
def passes(group_work):
    """By network: names of what is sharded, and gradients of a pass through it whole and sharded."""
    return in_processes(2, importlib.import_module("sharding_work").passes)[0]


@pytest.mark.parametrize("name", BLOCKS)
def test_each_block_is_gathered_alone(passes, name):
    units = set(passes[name][0])
    assert units >= {"", *BLOCKS[name]}
    assert not units & {"body.1.blocks.0", "body.1.blocks.1"}  # which share a weight


def test_a_block_is_not_taken_to_pieces(passes):
    """Each unit is one message between devices, so there are few."""
    units = passes["ResNet18"][0]
    assert 8 < len(units) < 20


@pytest.mark.parametrize("name", [*BLOCKS, "ResNet18"])
def test_gradients_are_those_of_the_whole_network(passes, name):
    _, whole, split = passes[name]
    assert split.keys() == whole.keys()
    assert max((split[key] - value).abs().max().item() for key, value in whole.items()) < 1e-12
    assert max(value.abs().max().item() for value in whole.values()) > 1e-6
