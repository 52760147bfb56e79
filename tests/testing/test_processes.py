"""in_processes: results by rank, and what is said when a rank fails."""

import os
import time

import pytest
import torch

from supreme.testing import in_processes

pytestmark = pytest.mark.distributed


def test_results_by_rank():
    assert in_processes(2, os.getenv, "RANK") == ["0", "1"]
    assert in_processes(2, os.getenv, "WORLD_SIZE") == ["2", "2"]
    assert torch.equal(in_processes(1, torch.ones, 2)[0], torch.ones(2))


def test_a_rank_that_raises():
    with pytest.raises(RuntimeError, match=r"Rank \d raised:(.|\n)*invalid literal"):
        in_processes(2, int, "x")


def test_a_rank_that_dies():
    with pytest.raises(RuntimeError, match="exit code 3"):
        in_processes(2, os._exit, 3)


def test_a_rank_that_hangs():
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="no answer within 1 s"):
        in_processes(2, time.sleep, 100, timeout_s=1.0)
    assert time.monotonic() - start < 60
