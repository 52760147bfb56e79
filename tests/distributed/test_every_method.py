"""Every method under every strategy, with BatchNorm and without: the whole matrix, which takes minutes."""

import importlib.util

import pytest
import torch

from supreme.models.build import restart
from supreme.testing.processes import in_processes

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(1200)]
ONE_SHOT = ("SSD", "SSD given", "LFSSD", "SSDDet", "SSDDet given", "LFSSDDet", "ASSD", "ASSD retain")
TRAINING = ("FineTune", "Retrain", "NegGrad", "JIT", "JIT published", "JIT whole gradient", "SCRUB sgd", "SCRUB")
TRAINING += ("BadTeacher", "RandomLabels", "UNSIR", "UNSIR leak")
NORMS = ("unbiased", "group")
AS_THEY_ARE = ("SSDDet given", "LFSSDDet", "ASSD retain", "JIT whole gradient", "containers", "shared weights")
DOUBLE = [*AS_THEY_ARE, *(f"{name} on {norm}" for name in (*ONE_SHOT, *TRAINING) for norm in NORMS)]
SINGLE = ["SSDDet given", "LFSSDDet", "ASSD retain", "shared weights"]
SINGLE += [f"{name} on {norm}" for name in ONE_SHOT for norm in NORMS] + [f"{n} on group, once" for n in TRAINING]
ZERO = ("zero1", "zero2", "zero3")


@pytest.fixture(scope="module")
def results(group_work):
    """``results[strategy, name]`` is what each rank found."""
    found = together(group_work, [("unlearned", (name,), strategy) for strategy in ("ddp", "fsdp") for name in DOUBLE])
    if importlib.util.find_spec("deepspeed") is not None:
        for strategy in ZERO:
            found |= together(group_work, [("unlearned", (name,), strategy, torch.float32) for name in SINGLE])
    return found


def together(group_work, jobs):
    ranks = in_processes(2, group_work.in_turn, jobs, 2, timeout_s=600)
    return {(job[2], job[1][0]): [found[k] for found in ranks] for k, job in enumerate(jobs)}


@pytest.fixture(scope="module")
def alone(group_work):
    """``alone(name, dtype)`` is what one process finds."""
    known = {}

    def find(name, dtype):
        if (name, dtype) not in known:
            known[name, dtype] = group_work.unlearned(name, dtype=dtype)
        return known[name, dtype]

    return find


def largest(ranks, expected):
    for rank in ranks:
        assert isinstance(rank, dict), rank
        assert rank.keys() == expected.keys()
    gaps = [(rank[key].double() - expected[key].double()).abs().max().item() for rank in ranks for key in expected]
    return max(gaps)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", DOUBLE)
def test_in_float64(results, alone, name, strategy):
    assert largest(results[strategy, name], alone(name, torch.float64)) <= 1e-12


@pytest.mark.parametrize("strategy", ZERO)
@pytest.mark.parametrize("name", SINGLE)
def test_in_float32(results, alone, name, strategy):
    if (strategy, name) not in results:
        pytest.skip("deepspeed is not installed")
    assert largest(results[strategy, name], alone(name, torch.float32)) <= (1e-5 if "once" in name else 1e-6)


@pytest.mark.parametrize("name", TRAINING)
def test_one_step_moves_weights(alone, group_work, name):
    """By far more than two processes may differ, or the comparisons of one step would say nothing."""
    network = group_work.network_of("group", torch.float32)
    start = restart(network, 3) if name == "Retrain" else network
    assert largest([start.state_dict()], alone(f"{name} on group, once", torch.float32)) > 5e-5
