"""Two processes give what one gives, under every strategy. The processes are started once for all checks."""

import importlib.util

import pytest
import torch

from supreme.testing.processes import in_processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]
METHODS = ("SSD", "SSD given", "LFSSD", "FineTune", "Retrain", "SCRUB sgd", "SCRUB", "BadTeacher", "RandomLabels")
METHODS += ("SSDDet", "SSDDet given", "LFSSDDet", "ASSD", "ASSD retain")
METHODS += ("NegGrad", "JIT", "JIT published", "JIT whole gradient")
METHODS += ("UNSIR", "UNSIR leak", "containers", "shared weights")
SHARDED = ("SSD", "SSD given", "UNSIR leak", "SCRUB sgd", "SSDDet", "LFSSDDet", "ASSD")
SHARDED += ("NegGrad", "JIT", "JIT published", "JIT whole gradient")
IMPORTANCES = ("SSD", "SSDDet", "ASSD")
COUNTS = ("accuracy", "completeness", "mia")


@pytest.fixture(scope="module")
def results(group_work):
    """``results[job]`` is what each rank found."""
    jobs = [("unlearned", (name,), strategy) for strategy in ("ddp", "fsdp") for name in METHODS]
    jobs += [("held", (name,), strategy) for strategy in ("ddp", "fsdp") for name in IMPORTANCES]
    jobs += [("trained", (optimizer,), strategy) for strategy in ("ddp", "fsdp") for optimizer in ("sgd", "adamw")]
    jobs += [("evaluated", (kept,), strategy) for strategy in ("ddp", "fsdp") for kept in (False, True)]
    ranks = in_processes(2, group_work.in_turn, jobs, 2)
    return {job: [found[k] for found in ranks] for k, job in enumerate(jobs)}


@pytest.fixture(scope="module")
def zero_results(group_work):
    """The same for DeepSpeed, which knows no float64."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    jobs = [("unlearned", (name,), strategy, torch.float32) for strategy in ("zero1", "zero3") for name in SHARDED]
    jobs += [("held", (name,), "zero3", torch.float32) for name in IMPORTANCES]
    jobs += [("evaluated", (True,), "zero3")]
    ranks = in_processes(2, group_work.in_turn, jobs, 2)
    return {job[:3]: [found[k] for found in ranks] for k, job in enumerate(jobs)}


def assert_close(found, expected, tolerance):
    assert isinstance(found, dict), found
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        gap = (found[name].double() - value.double()).abs().max().item()
        assert gap <= tolerance, f"{name} differs by {gap:.3g}"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", METHODS)
def test_methods(results, group_work, tasks, name, strategy):
    alone = group_work.unlearned(name)
    for state in results["unlearned", (name,), strategy]:
        assert_close(state, alone, 1e-12)
    original = tasks.tiny_network(group_work.FITS[name][2]).double().state_dict()
    assert max((alone[key].double() - value.double()).abs().max().item() for key, value in original.items()) > 1e-6


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
@pytest.mark.parametrize("name", SHARDED)
def test_methods_under_zero(zero_results, group_work, name, strategy):
    alone = group_work.unlearned(name, dtype=torch.float32)
    for state in zero_results["unlearned", (name,), strategy]:
        assert_close(state, alone, 2e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", IMPORTANCES)
def test_importances_are_split_as_the_weights_are(results, group_work, name, strategy):
    check_importances(results["held", (name,), strategy], *group_work.held(name), strategy == "fsdp", 1e-12)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_importances_under_zero(zero_results, group_work, name):
    alone = group_work.held(name, dtype=torch.float32)
    check_importances(zero_results["held", (name,), "zero3"], *alone, True, 1e-5)


def check_importances(ranks, count, alpha, split, tolerance):
    """Each rank holds all of them, or a part so that nothing is held twice; alpha is that of one process."""
    assert all(isinstance(rank, tuple) for rank in ranks), ranks
    counts = [rank[0] for rank in ranks]
    assert sum(counts) == count if split else counts == [count, count]
    assert max(counts) < count or not split
    assert ranks[0][1] == ranks[1][1] == pytest.approx(alpha, rel=tolerance)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training(results, group_work, strategy, optimizer):
    state, logged = group_work.trained(optimizer)
    for rank in results["trained", (optimizer,), strategy]:
        assert isinstance(rank, tuple), rank
        assert_close(rank[0], state, 1e-12)
        assert rank[1] == pytest.approx(logged, rel=1e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kept", [False, True])
def test_evaluation(results, group_work, strategy, kept):
    check_evaluation(results["evaluated", (kept,), strategy], *group_work.evaluated(kept))


def test_evaluation_under_zero(zero_results, group_work):
    check_evaluation(zero_results["evaluated", (True,), "zero3"], *group_work.evaluated(True))


def check_evaluation(ranks, scores, outputs):
    """The same scores (counts exactly) on both ranks, and every image's outputs once."""
    for rank in ranks:
        assert isinstance(rank, tuple), rank
        assert rank[0] == pytest.approx(scores, rel=1e-6, abs=1e-7)
        for key, value in scores.items():
            if key.split("/")[-1].removesuffix("_gap") in COUNTS:
                assert rank[0][key] == value, key
        assert rank[1].keys() == outputs.keys()
        for name, (part, index, target, logits) in outputs.items():
            found = rank[1][name]
            assert torch.equal(found[0], part)
            assert torch.equal(found[1], index)
            assert torch.equal(found[2], target)
            torch.testing.assert_close(found[3], logits, rtol=1e-5, atol=1e-5)
    assert ranks[0][0] == ranks[1][0]
    assert len(scores) >= 22
    assert len(set(zip(*(column.tolist() for column in outputs["unlearned"][:2]), strict=True))) == 70
