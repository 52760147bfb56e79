"""Narrow precisions under every strategy: two processes give what one gives, up to the rounding of that precision."""

import importlib
import importlib.util

import pytest
import torch

from supreme.testing.processes import in_processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
CASES = (("SSD", "bf16-mixed"), ("FineTune", "bf16-true"))
ROUNDING = 2e-2


@pytest.fixture(scope="module")
def work(group_work):
    """The module precision_work.py, which stands beside group_work.py."""
    return importlib.import_module("precision_work")


@pytest.fixture(scope="module")
def results(work):
    """``results[method, precision, strategy]`` is what each rank found."""
    known = importlib.util.find_spec("deepspeed") is not None
    jobs = [(*case, strategy) for strategy in STRATEGIES if known or "zero" not in strategy for case in CASES]
    ranks = in_processes(2, work.in_turn, jobs)
    return {job: [found[k] for found in ranks] for k, job in enumerate(jobs)}


@pytest.mark.parametrize(("method", "precision"), CASES)
def test_weights_move_by_more_than_rounding(work, tasks, method, precision):
    """Else a strategy under which nothing is done would pass below."""
    alone, original = work.unlearned(method, precision), tasks.tiny_network("group").state_dict()
    assert max((alone[name] - value).abs().max().item() for name, value in original.items()) > 3 * ROUNDING


@pytest.mark.runs_on("cpu", "{strategy}", 2)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("method", "precision"), CASES)
def test_two_processes(results, work, method, precision, strategy):
    """At most one weight in thirty may be dampened by one side alone: DeepSpeed rounds gradients first."""
    if (method, precision, strategy) not in results:
        pytest.skip("deepspeed is not installed")
    alone = work.unlearned(method, precision)
    for rank in results[method, precision, strategy]:
        assert isinstance(rank, dict), rank
        gaps = torch.cat([(rank[name] - value).abs().flatten() for name, value in alone.items()])
        near = (gaps <= ROUNDING).double().mean()
        assert near >= (29 / 30 if method == "SSD" and "zero" in strategy else 1.0), float(gaps.max())
