"""Two processes give what one gives, under every strategy. The processes are started once for many checks."""

import importlib.util

import pytest
import torch

from supreme.models.build import NetworkSpec, build
from supreme.models.stored import save_model
from supreme.testing.processes import in_processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]
# Each method once; test_every_method.py has the variants, all stages of ZeRO, and both kinds of normalisation.
METHODS = ("SSD", "SSD given", "LFSSD", "SSDDet", "LFSSDDet", "ASSD", "FineTune", "Retrain", "NegGrad", "JIT")
METHODS += ("SCRUB sgd", "BadTeacher", "RandomLabels", "UNSIR leak", "containers", "shared weights")
ONE_SHOT = ("SSD", "LFSSD", "SSDDet", "LFSSDDet on batch", "ASSD")  # all with BatchNorm
SHARDED = ("SSD", "SSDDet", "ASSD", "SCRUB sgd", "UNSIR leak", "JIT")
IMPORTANCES = ("SSD", "SSDDet", "ASSD")
COUNTS = ("accuracy", "completeness", "mia")


LATER = ("SSD", "SSDDet", "SCRUB", "BadTeacher", "Retrain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stored M_o."""
    network = build(NetworkSpec("plan_networks.Small"), 4, 0).double()
    return str(save_model(tmp_path_factory.mktemp("original"), network, {}).parent)


@pytest.fixture(scope="module")
def results(group_work, folder):
    """``results[job]`` is what each rank found."""
    jobs = [("unlearned", (name,), strategy) for strategy in ("ddp", "fsdp") for name in METHODS]
    jobs += [("unlearned", (name,), strategy, torch.float32) for strategy in ("ddp", "fsdp") for name in ONE_SHOT]
    jobs += [("held", (name,), strategy) for strategy in ("ddp", "fsdp") for name in IMPORTANCES]
    jobs += [("rewound", (kind,), strategy) for strategy in ("ddp", "fsdp") for kind in group_work.REFERENCES]
    jobs += [("trained", (optimizer,), strategy) for strategy in ("ddp", "fsdp") for optimizer in ("sgd", "adamw")]
    jobs += [("evaluated", (kept,), strategy) for strategy in ("ddp", "fsdp") for kept in (False, True)]
    jobs += [("stored", (folder, name, True), strategy) for name in LATER for strategy in ("ddp", "fsdp")]
    jobs += [("drawn", (), strategy) for strategy in ("ddp", "fsdp")]
    ranks = in_processes(2, group_work.in_turn, jobs, 2)
    return {job: [found[k] for found in ranks] for k, job in enumerate(jobs)}


@pytest.fixture(scope="module")
def zero_results(group_work):
    """The same for DeepSpeed, which knows no float64."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    jobs = [("unlearned", (name,), strategy, torch.float32) for strategy in ("zero1", "zero3") for name in SHARDED]
    jobs += [("held", (name,), "zero3", torch.float32) for name in IMPORTANCES]
    jobs += [("rewound", ("set",), strategy, torch.float32) for strategy in ("zero1", "zero3")]
    jobs += [("evaluated", (True,), "zero3")]
    ranks = in_processes(2, group_work.in_turn, jobs, 2)
    return {job[:3]: [found[k] for found in ranks] for k, job in enumerate(jobs)}


def assert_close(found, expected, tolerance):
    assert isinstance(found, dict), found
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        gap = (found[name].double() - value.double()).abs().max().item()
        assert gap <= tolerance, f"{name} differs by {gap:.3g}"


@pytest.mark.runs_on("cpu", "{strategy}", 2)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", METHODS)
def test_methods(results, group_work, tasks, name, strategy):
    alone = group_work.unlearned(name)
    for state in results["unlearned", (name,), strategy]:
        assert_close(state, alone, 1e-12)
    original = tasks.tiny_network(group_work.FITS[name][2]).double().state_dict()
    assert max((alone[key].double() - value.double()).abs().max().item() for key, value in original.items()) > 1e-6


@pytest.mark.runs_on("cpu", "{strategy}", 2)
@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
@pytest.mark.parametrize("name", SHARDED)
def test_methods_under_zero(zero_results, group_work, name, strategy):
    alone = group_work.unlearned(name, dtype=torch.float32)
    for state in zero_results["unlearned", (name,), strategy]:
        assert_close(state, alone, 1e-6 if name in ONE_SHOT else 2e-6)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ONE_SHOT)
def test_one_shot_methods_in_float32(results, group_work, tasks, name, strategy):
    alone = group_work.unlearned(name, dtype=torch.float32)
    for state in results["unlearned", (name,), strategy, torch.float32]:
        assert_close(state, alone, 1e-6)
    original = tasks.tiny_network("batch").state_dict()
    assert max((alone[key] - value).abs().max().item() for key, value in original.items()) > 1e-3


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


@pytest.mark.runs_on("cpu", "{strategy}", 2)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training(results, group_work, strategy, optimizer):
    state, logged = group_work.trained(optimizer)
    for rank in results["trained", (optimizer,), strategy]:
        assert isinstance(rank, tuple), rank
        assert_close(rank[0], state, 1e-12)
        assert rank[1] == pytest.approx(logged, rel=1e-6)


@pytest.mark.runs_on("cpu", "{strategy}", 2)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kept", [False, True])
def test_evaluation(results, group_work, strategy, kept):
    check_evaluation(results["evaluated", (kept,), strategy], *group_work.evaluated(kept))


def test_evaluation_under_zero(zero_results, group_work):
    check_evaluation(zero_results["evaluated", (True,), "zero3"], *group_work.evaluated(True))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", ["error", "set"])
def test_rewinds(results, group_work, kind, strategy):
    """SCRUB+R chooses the epoch that one process chooses, and gives its weights."""
    check_rewind(results["rewound", (kind,), strategy], group_work.rewound(kind), 1e-12)


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_rewinds_under_zero(zero_results, group_work, strategy):
    alone = group_work.rewound("set", dtype=torch.float32)
    check_rewind(zero_results["rewound", ("set",), strategy], alone, 2e-6)


def check_rewind(ranks, alone, tolerance):
    for rank in ranks:
        assert isinstance(rank, tuple), rank
        assert rank[1] == alone[1]
        assert_close(rank[0], alone[0], tolerance)


@pytest.mark.parametrize("kind", ["error", "set"])
def test_a_rewind_does_not_choose_the_last_epoch(group_work, kind):
    """Else the comparisons above would say nothing of it."""
    _, (epoch, errors, reference) = group_work.rewound(kind)
    assert len(errors) == group_work.REWINDS["epochs"] > epoch
    assert len(set(errors)) >= 3
    assert abs(errors[epoch - 1] - reference) == min(abs(error - reference) for error in errors)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", LATER)
def test_stored_weights_that_are_read_by_each_rank(results, group_work, folder, name, strategy):
    alone, _ = group_work.stored(folder, name, False)
    for rank in results["stored", (folder, name, True), strategy]:
        assert isinstance(rank, tuple), rank
        assert rank[1]
        assert_close(rank[0], alone, 1e-12)


@pytest.mark.parametrize(("strategy", "built"), [("ddp", [["cpu"], ["cpu"]]), ("fsdp", [["meta", "cpu"], ["meta"]])])
def test_networks_that_are_built_from_their_specification(results, group_work, strategy, built):
    """Under FSDP2 rank 0 alone builds the whole network."""
    ranks = results["drawn", (), strategy]
    assert all(isinstance(rank, tuple) for rank in ranks), ranks
    assert [rank[1] for rank in ranks] == built
    alone, _ = group_work.drawn()
    for rank in ranks:
        assert_close(rank[0], alone, 1e-5)


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
