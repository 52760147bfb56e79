"""Membership features against SciPy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax

from supreme.errors import DataError
from supreme.functional.membership import entropy


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_entropy_equals_scipy(scale):
    logits = scale * torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = scipy.stats.entropy(softmax(logits.numpy(), axis=1), axis=1)
    np.testing.assert_allclose(entropy(logits).numpy(), expected, rtol=1e-10, atol=1e-15)


def test_entropy_of_extremes():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0], [1.0, 1.0, -math.inf, -math.inf]])
    value = entropy(logits)
    assert value.tolist() == pytest.approx([math.log(4), 0.0, math.log(2)])
    assert value[1] == 0


def test_entropy_of_undefined_outputs_is_nan():
    assert entropy(torch.tensor([[math.nan, 0.0], [math.inf, 0.0]])).isnan().all()


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).half()
    assert torch.equal(entropy(logits), entropy(logits.float()))


def test_logits_need_two_dimensions():
    with pytest.raises(DataError, match=r"shape \(n, K\), got \(4,\)"):
        entropy(torch.zeros(4))
