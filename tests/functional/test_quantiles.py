"""Exact percentiles against NumPy, alone and over processes."""

import math
import threading

import numpy as np
import pytest
import torch

from supreme.errors import DataError
from supreme.functional.quantiles import adaptive_rank, percentile

RANKS = (0.0, 1.0, 37.5, 50.0, 97.3, 99.9, 100.0)


def draws(kind, count, dtype):
    draw = torch.Generator().manual_seed(count)
    values = torch.rand(count, generator=draw, dtype=dtype)
    return {
        "uniform": values,
        "wide": (80 * (values - 0.5)).exp(),
        "ties": (values * 4).floor(),
        "tiny": values * torch.finfo(dtype).tiny,  # partly below the smallest normal number
    }[kind]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["uniform", "wide", "ties", "tiny"])
@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_numpy(kind, count, dtype):
    values = draws(kind, count, dtype)
    for q in RANKS:
        found = percentile(values.split(101), q)
        assert found == np.percentile(values.double().numpy(), q), q


def test_shapes_signed_zeros_and_low_precision():
    parts = [torch.tensor([[0.5, -0.0], [2.0, 0.25]], dtype=torch.bfloat16), torch.tensor(1.0), torch.zeros(0, 3)]
    assert percentile(parts, 50) == 0.5
    assert percentile(parts, 0) == 0.0


def test_more_values_than_sixteen_million():
    values = torch.arange(2**24 + 11, dtype=torch.float32).flip(0)  # whole numbers up to 2^24 are exact
    assert percentile([values[5000:], values[:5000]], 50) == 2**23 + 5


@pytest.mark.parametrize("cut", [0, 1, 300, 999, 1000])
def test_processes_count_together(cut):
    values = draws("wide", 1000, torch.float64)
    shares = [[values[:cut]], [values[cut:]]]
    barrier, table, found = threading.Barrier(2), {}, {}

    def work(rank):
        def total(counts):
            table[rank] = counts.clone()
            barrier.wait(20)
            result = table[0] + table[1]
            barrier.wait(20)
            return result

        found[rank] = [percentile(shares[rank], q, total) for q in RANKS]

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found[0] == found[1] == [np.percentile(values.numpy(), q) for q in RANKS]


def test_no_values():
    for parts in ([], [torch.zeros(0)]):
        with pytest.raises(DataError, match="Expected values"):
            percentile(parts, 50)


@pytest.mark.parametrize("share", [1e-3, 0.1, 1.0])
def test_adaptive_rank(share):
    assert adaptive_rank(share) == pytest.approx(100 - math.log(1 + 100 * share), abs=1e-12)
