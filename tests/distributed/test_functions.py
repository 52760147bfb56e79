"""``supreme.unlearn`` and ``supreme.evaluate`` on several devices: the processes are started for the call."""

import importlib.util

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import TensorDataset

import supreme
from supreme.distributed import FSDP2
from supreme.errors import ConfigError, UnknownNameError
from supreme.methods import SSD

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]
NEEDS_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")


@pytest.fixture(scope="module")
def network(group_work):
    return group_work.network_of("unbiased", torch.float64)


def call(tasks, network, method="SSD", **settings):
    dtype = next(network.parameters()).dtype
    forget, retain = tasks.tiny_sets(dtype=dtype)
    sets = {"forget": forget, "retain": retain, "batch_size": 11, "accelerator": "cpu"}
    return supreme.unlearn(network, method, **sets, **settings)


def largest(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


@pytest.mark.parametrize("strategy", ["auto", "fsdp", FSDP2()], ids=["auto", "name", "instance"])
def test_unlearn(tasks, network, strategy):
    alone = call(tasks, network, selection_weight=1.2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = call(tasks, network, selection_weight=1.2, devices=2, strategy=strategy)
    assert not dist.is_initialized()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert largest(result.model, alone.model) <= 1e-12
    assert largest(result.model, network) > 1e-3
    assert result.time_s > 0
    assert result.peak_memory_bytes > 0
    assert 0 <= result.utilisation <= 1


def test_unlearn_with_an_instance(tasks, network):
    method = SSD(network, selection_weight=1.2)
    result = call(tasks, network, method, devices=2, strategy="ddp")
    assert largest(result.model, call(tasks, network, selection_weight=1.2).model) <= 1e-12
    assert not method.finished


@pytest.mark.slow
@NEEDS_DEEPSPEED
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_unlearn_under_deepspeed(tasks, group_work, stage):
    network = group_work.network_of("unbiased", torch.float32)
    result = call(tasks, network, selection_weight=1.2, devices=2, strategy=f"deepspeed_stage_{stage}")
    assert largest(result.model, call(tasks, network, selection_weight=1.2).model) <= 1e-6


@pytest.mark.parametrize(
    ("strategy"), ["ddp", "fsdp", pytest.param("deepspeed_stage_3", marks=[NEEDS_DEEPSPEED, pytest.mark.slow])]
)
def test_evaluate(tasks, strategy):
    images, labels = tasks.tiny_images(70, seed=2)
    parts = {"forget_train": (0, 9), "retain_train": (9, 38), "forget_test": (38, 39), "retain_test": (39, 70)}
    sets = {name: TensorDataset(images[a:b].double(), labels[a:b]) for name, (a, b) in parts.items()}
    unlearned, retrained, original = (tasks.tiny_network("batch", seed=k).double() for k in range(3))
    settings = {**sets, "retrained": retrained, "original": original, "batch_size": 6, "accelerator": "cpu"}
    alone = supreme.evaluate(unlearned, **settings)
    several = supreme.evaluate(unlearned, **settings, devices=2, strategy=strategy)
    assert several == pytest.approx(alone, rel=1e-6, abs=1e-9)
    assert len(several) > 20
    counts = [name for name in alone if name.split("/")[-1] in ("accuracy", "completeness", "mia")]
    assert len(counts) == 7
    assert {name: several[name] for name in counts} == {name: alone[name] for name in counts}


def test_errors_are_those_of_one_process(tasks, network):
    with pytest.raises(ConfigError, match="SSD has no argument 'alpha'"):
        call(tasks, network, devices=2, strategy="ddp", alpha=1)
    with pytest.raises(UnknownNameError, match="did you mean 'SSD'"):
        call(tasks, network, "SDS", devices=2, strategy="ddp")
    with pytest.raises(ConfigError, match='use strategy "fsdp"'):
        call(tasks, network, devices=2, strategy="fsdp_cpu_offload")
    with pytest.raises(ConfigError, match="define them in a module"):
        call(tasks, network, devices=2, strategy="ddp", full_importance=lambda: 0)
