"""A rewind on two processes chooses the epoch that one process chooses, and gives its weights."""

import importlib
import importlib.util

import pytest
import torch

from supreme.testing.processes import in_processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def work(group_work):
    """The module rewind_work.py, which stands beside group_work.py."""
    return importlib.import_module("rewind_work")


def together(work, jobs):
    """``results[kind, strategy]`` is what each rank found."""
    ranks = in_processes(2, work.in_turn, jobs, 2)
    return {job[:2]: [found[k] for found in ranks] for k, job in enumerate(jobs)}


@pytest.fixture(scope="module")
def results(work):
    return together(work, [(kind, strategy, torch.float64) for strategy in ("ddp", "fsdp") for kind in work.KINDS])


@pytest.fixture(scope="module")
def zero_results(work):
    """The same for DeepSpeed, which knows no float64."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    return together(work, [("set", strategy, torch.float32) for strategy in ("zero1", "zero3")])


def assert_same(ranks, alone, tolerance):
    for rank in ranks:
        assert isinstance(rank, tuple), rank
        assert rank[1] == alone[1]
        for name, value in alone[0].items():
            gap = (rank[0][name].double() - value.double()).abs().max().item()
            assert gap <= tolerance, f"{name} differs by {gap:.3g}"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", ["error", "set"])
def test_two_processes(results, work, kind, strategy):
    assert_same(results[kind, strategy], work.rewound(kind), 1e-12)


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_two_processes_under_zero(zero_results, work, strategy):
    assert_same(zero_results["set", strategy], work.rewound("set", dtype=torch.float32), 2e-6)


@pytest.mark.parametrize("kind", ["error", "set"])
def test_the_choice_is_not_the_last_epoch(work, kind):
    """Else the comparisons above would say nothing of it."""
    _, (epoch, errors, reference) = work.rewound(kind)
    assert len(errors) == work.TRAINING["epochs"] > epoch
    assert len(set(errors)) >= 3
    assert abs(errors[epoch - 1] - reference) == min(abs(error - reference) for error in errors)
