"""The table state: sorted, without repeats, whatever the order and size of the batches."""

import math

import pytest
import torch

from supreme.errors import DataError
from supreme.metrics.table import Table


class Plain(Table):
    """A table that gives itself back."""

    key = "plain"

    def update(self, part, index, values):
        self._append(part, index, values)

    def compute(self):
        rows = self._rows()
        return torch.cat([rows.part[:, None], rows.index[:, None], rows.values], dim=1)


def columns(n=20):
    part = torch.arange(n) % 4
    index = torch.arange(n) // 4
    return part, index, torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def filled(part, index, values, batch_size, order=None):
    table = Plain(width=2)
    rows = torch.arange(len(part)) if order is None else order
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        table.update(part[chosen], index[chosen], values[chosen])
    return table.compute()


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_order_batches_and_repeats_do_not_matter(batch_size):
    part, index, values = columns()
    expected = filled(part, index, values, 20)
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    repeated = torch.cat([shuffled, shuffled[:7]])
    assert torch.equal(filled(part, index, values, batch_size, shuffled), expected)
    assert torch.equal(filled(part, index, values, batch_size, repeated), expected)


def test_rows_are_sorted_by_part_then_index():
    result = filled(*columns(), 20)
    keys = [tuple(row) for row in result[:, :2].tolist()]
    assert keys == sorted(keys)
    part, index, values = columns()
    for row in range(20):
        found = result[(result[:, 0] == part[row]) & (result[:, 1] == index[row])]
        assert torch.equal(found[0, 2:], values[row])


def test_of_differing_repeats_the_smallest_counts_whatever_the_order():
    part, index = torch.zeros(3, dtype=torch.long), torch.tensor([5, 5, 4])
    values = torch.tensor([[2.0, 0.0], [1.0, 9.0], [3.0, 0.0]], dtype=torch.float64)
    for order in (torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])):
        assert filled(part, index, values, 3, order).tolist() == [[0, 4, 3, 0], [0, 5, 1, 9]]


def test_repeats_among_many_rows():
    """Against sorting whole rows: repeats differ in any column, also in sign, and stay apart from their neighbours."""
    draw = torch.Generator().manual_seed(2)
    part, index = torch.randint(3, (200,), generator=draw), torch.randint(40, (200,), generator=draw)
    values = torch.randint(-2, 3, (200, 2), generator=draw).double()
    expected = {}
    for row in sorted(zip(part.tolist(), index.tolist(), *values.T.tolist(), strict=True)):
        expected.setdefault(row[:2], row)
    assert filled(part, index, values, 60).tolist() == [list(map(float, row)) for row in expected.values()]


def test_large_indices_stay_exact():
    index = torch.tensor([2**40, 2**40 + 1])
    result = filled(torch.zeros(2, dtype=torch.long), index, torch.zeros(2, 2), 2)
    assert result[:, 1].tolist() == index.tolist()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_rows_there_is_no_result():
    with pytest.raises(DataError, match="at least one sample for plain, got none"):
        Plain(width=2).compute()
    table = Plain(width=2)
    table.update(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0, 2))
    with pytest.raises(DataError, match="got none"):
        table.compute()


def test_nan_is_refused():
    table = Plain(width=2)
    table.update(torch.tensor([0]), torch.tensor([0]), torch.tensor([[math.nan, 0.0]]))
    with pytest.raises(DataError, match="got NaN; the network has diverged"):
        table.compute()


def test_shapes_have_to_fit():
    with pytest.raises(DataError, match=r"values \(n, 2\), got \(2,\), \(2,\) and \(2, 3\)"):
        Plain(width=2).update(torch.zeros(2), torch.zeros(2), torch.zeros(2, 3))
    with pytest.raises(DataError, match="one row per sample"):
        Plain(width=2).update(torch.zeros(2), torch.zeros(3), torch.zeros(2, 2))


def test_reset_empties_it():
    table = Plain(width=2)
    table.update(*columns())
    table.reset()
    table.update(torch.tensor([0]), torch.tensor([1]), torch.ones(1, 2))
    assert table.compute().tolist() == [0, 1, 1, 1] or table.compute().tolist() == [[0, 1, 1, 1]]
