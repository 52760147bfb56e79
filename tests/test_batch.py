"""Phases refuse numbers that no loader could serve."""

import dataclasses

import pytest
import torch

from supreme.batch import PARTS, Batch, ForgetRequest, Phase, Step
from supreme.errors import ConfigError


@pytest.mark.parametrize("wrong", [{"passes": 0}, {"batch_size": 0}, {"synthetic": -1}])
def test_phases_that_cannot_be_served(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Phase("full", **wrong)


def test_a_phase_without_data_has_synthetic_rows():
    with pytest.raises(ConfigError, match="synthetic"):
        Phase("none")
    assert Phase("none", synthetic=3).synthetic == 3


def test_phases_are_values():
    assert Phase("forget", passes=2) == Phase("forget", passes=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Phase("forget").passes = 3


def test_requests_compare_without_their_indices():
    first, second = (ForgetRequest(3, (1,), "abc", torch.arange(n)) for n in (1, 2))
    assert first == second


def test_names():
    assert PARTS == ("retain_test", "forget_test", "retain_train", "forget_train")
    assert Batch._fields == ("image", "target", "index", "weight", "forget", "step")
    assert "filler" in Step._fields
