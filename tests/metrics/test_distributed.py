"""Two processes give the values of one; the processes are started once for all checks."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from supreme.metrics.mia import MIA
from supreme.metrics.suite import Suite

pytestmark = pytest.mark.distributed
HERE = str(Path(__file__).parent)
COUNTS = ("accuracy", "completeness", "mia", "mia_auc")


@pytest.fixture(scope="module")
def checks():
    sys.path.insert(0, HERE)  # the processes import their work by name
    try:
        yield importlib.import_module("two_ranks")
    finally:
        sys.path.remove(HERE)


@pytest.fixture(scope="module")
def ranks(checks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(checks.work, args=(str(folder),), nprocs=checks.WORLD, start_method="forkserver")
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(checks.WORLD)]


@pytest.fixture(scope="module")
def alone(checks):
    suite = Suite(seed=3)
    suite.update(checks.columns())
    suite.update_models(checks.networks())
    return suite.compute()


def assert_equal(values, expected):
    assert values == pytest.approx(expected, rel=1e-12, abs=1e-15)
    for key in expected:
        if key.split("/")[-1] in COUNTS:
            assert values[key] == expected[key]


@pytest.mark.parametrize("split", ["interleaved", "uneven", "second_rank_empty", "first_rank_empty", "one_row"])
def test_any_split_of_the_rows_gives_the_values_of_one_process(ranks, alone, split):
    assert len(alone) == 21
    for values in ranks:
        assert_equal(values["all_metrics"][split], alone)
    assert ranks[0]["all_metrics"][split] == ranks[1]["all_metrics"][split]


def test_rows_can_follow_after_compute(ranks, alone):
    for values in ranks:
        assert_equal(values["continued"], alone)


def test_repeated_rows_do_not_count_twice_in_the_attack(ranks, checks):
    suite = Suite([MIA(seed=3)])
    suite.update(checks.columns())
    for values in ranks:
        assert values["padded"] == suite.compute()


def test_weights_count_once_however_they_are_held(ranks, alone):
    for values in ranks:
        for check in ("models_on_one_rank", "sharded_models"):
            assert values[check]["layerwise_distance"] == pytest.approx(alone["layerwise_distance"], rel=1e-12)


def test_errors_reach_every_rank(ranks):
    for values in ranks:
        assert values["errors"].keys() == {"nothing", "diverged", "no_rows"}
    assert ranks[0]["errors"] == ranks[1]["errors"]


def test_the_rows_are_those_that_one_process_sees(checks):
    for split in checks.SPLITS.values():
        assert torch.equal(torch.tensor(sorted([*split[0], *split[1]])), torch.arange(checks.ROWS))
