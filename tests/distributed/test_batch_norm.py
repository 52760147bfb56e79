"""BatchNorm in two processes: gradients and statistics of the whole batch, few messages, no waiting for the device."""

import importlib

import pytest
import torch

from supreme.testing import in_processes

pytestmark = pytest.mark.distributed
SIZES = (7, 4, 3, 2, 1)


@pytest.fixture(scope="module")
def work(group_work):
    """The module batch_norm_work.py, which stands beside group_work.py."""
    return importlib.import_module("batch_norm_work")


@pytest.fixture(scope="module")
def ranks(work):
    return in_processes(2, work.all_sizes, SIZES)


@pytest.mark.parametrize("rows", SIZES)
def test_two_processes_are_one(work, ranks, rows):
    """Of one row, BatchNorm1d has one value per channel and takes the running statistics."""
    alone = work.network()
    if rows == 1:
        work.exact_batch_norm(alone)
    expected = work.result(alone, work.images(rows))
    for found, _, _ in (rank[rows] for rank in ranks):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=f"{name} of {rows} rows")


def test_two_messages_each_way_and_no_look_at_a_value(ranks):
    for rank in ranks:
        _, calls, looks = rank[7]
        assert sorted(calls) == sorted([3 + 1, 3, 4 + 1, 4] * 2)
        assert looks == 0


def test_a_rank_with_one_value_looks_at_the_sum(ranks):
    assert [rank[3][2] for rank in ranks] == [0, 1]
