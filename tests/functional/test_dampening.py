"""Selection and dampening, against a scalar loop and at the corners."""

import math

import pytest
import torch

from supreme.functional.dampening import dampen, select


def by_hand(weight, forget, full, alpha, scale):
    if not forget > alpha * full:
        return weight
    return weight * min(scale * full / forget, 1.0)


@pytest.mark.parametrize(("alpha", "scale"), [(10.0, 1.0), (1.0, 0.1), (0.5, 3.0), (2.0, 0.0)])
def test_values(alpha, scale):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 50, generator=draw, dtype=torch.float64)
    forget, full = torch.rand(2, 4, 50, generator=draw, dtype=torch.float64) ** 4
    found = dampen(weight, forget, full, alpha, scale)
    expected = [
        by_hand(*(x.item() for x in row), alpha, scale)
        for row in zip(*map(torch.flatten, (weight, forget, full)), strict=True)
    ]
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)
    assert torch.equal(select(forget, full, alpha), forget > alpha * full)
    assert torch.equal(found[forget <= alpha * full], weight[forget <= alpha * full])


def one(weight, forget, full, alpha=2.0, scale=1.0):
    values = (torch.tensor([float(x)]) for x in (weight, forget, full))
    return dampen(*values, alpha, scale).item()


def test_corners():
    assert one(3, 1, 0) == 0.0  # matters to D_f alone
    assert one(3, 0, 0) == 3.0
    assert one(3, 0, 5) == 3.0
    assert one(3, 2, 1) == 3.0  # not above the threshold
    assert one(-4, 4, 1) == -1.0
    assert one(3, math.nan, 1) == 3.0
    assert one(3, 1, math.nan) == 3.0
    assert one(3, 1, 0, alpha=math.inf) == 3.0
    assert one(3, math.inf, 1) == 0.0


def test_types():
    weight = torch.ones(2, dtype=torch.bfloat16)
    found = dampen(weight, torch.tensor([4.0, 1.0]), torch.ones(2), 2.0, 1.0)
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [0.25, 1.0]
