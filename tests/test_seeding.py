"""Seeds: what is derived is stable, what is drawn is uniform, what is global is put back."""

import random

import numpy as np
import pytest
import torch
from scipy import stats

from supreme.seeding import derive, generator, isolated, uniform


def test_derived_seeds_are_those_of_yesterday():
    """Written down: a change would silently make every stored result another one."""
    assert derive(0) == 5817701917209559351
    assert derive(260, "order", 0) == 3440557906585516396
    values = [derive(260, "order", k) for k in range(1000)]
    assert len(set(values)) == 1000
    assert all(0 <= value < 1 << 63 for value in values)


def test_parts_do_not_run_together():
    assert len({derive(1, 23), derive(12, 3), derive("1", 23), derive(123), derive([1, 23])}) == 5


def test_generators_are_independent_of_the_global_one():
    torch.manual_seed(0)
    first = torch.rand(3, generator=generator(4, "x"))
    state = torch.get_rng_state()
    assert torch.equal(torch.rand(3, generator=generator(4, "x")), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(torch.rand(3, generator=generator(4, "y")), first)


def draws():
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


@pytest.mark.parametrize("seed", [0, 12345, 2**40, -3])
def test_isolated_blocks(seed):
    with isolated(7):
        expected = draws()
    with isolated(7):
        with isolated(seed):
            inside = draws()
        assert draws() == expected
    with isolated(seed):
        assert draws() == inside
    with isolated(7), pytest.raises(KeyError), isolated(seed):
        raise KeyError
    state = torch.get_rng_state()
    with isolated(seed):
        draws()
    assert torch.equal(torch.get_rng_state(), state)


def test_uniform_draws():
    index = torch.arange(20_000)
    values = uniform(3, 1, index, 4)
    assert values.shape == (20_000, 4)
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    assert (torch.corrcoef(values.T) - torch.eye(4)).abs().max() < 0.03
    neighbours = torch.corrcoef(torch.stack([values[:-1, 0], values[1:, 0]]))[0, 1]
    assert neighbours.abs() < 0.03


def test_uniform_draws_belong_to_seed_pass_and_sample():
    index = torch.tensor([5, 900, 17])
    values = uniform(3, 1, index, 2)
    assert torch.equal(uniform(3, 1, index.flip(0), 2).flip(0), values)
    assert torch.equal(uniform(3, 1, index, 6)[:, :2], values)
    for other in (uniform(4, 1, index, 2), uniform(3, 2, index, 2), uniform(3, 1, index + 1, 2)):
        assert not (other == values).any()


def test_whole_numbers_from_uniform_draws_stay_in_range():
    """The largest draw is 1 - 2^-24; times a number of classes and rounded down it is below that number."""
    largest = torch.tensor(1 - 2**-24, dtype=torch.float32)
    for classes in [*range(1, 2000), 4096, 10_000, 2**20]:
        assert int((largest * classes).long()) < classes
