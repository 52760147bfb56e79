"""Table: a metric state with one row per sample, exact on any number of ranks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from supreme.errors import DataError
from supreme.metrics.base import DIVERGED, EvaluationMetric


@dataclass(frozen=True)
class Rows:
    """One row per sample, in ascending order of (part, index).

    Attributes:
        part: int64 (n,), positions in ``supreme.batch.PARTS``.
        index: int64 (n,), position in the training or test set.
        values: float64 (n, width).
    """

    part: Tensor
    index: Tensor
    values: Tensor


class Table(EvaluationMetric):
    """Base of metrics that need all samples at once, such as attacks.

    Each rank appends its rows; after synchronisation every rank holds the same table, sorted by (part, index) and
    without repeated samples, so that neither batches, ranks, order nor padding change what is computed from it.

    Args:
        width: number of values per sample.
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> class Largest(Table):
        ...     def update(self, part, index, values):
        ...         self._append(part, index, values)
        ...
        ...     def compute(self):
        ...         return self._rows().values.max()
        >>> metric = Largest(width=1)
        >>> metric.update(torch.tensor([0, 0]), torch.tensor([4, 2]), torch.tensor([[0.5], [0.25]]))
        >>> float(metric.compute()), metric._rows().index
        (0.5, tensor([2, 4]))
    """

    sets: tuple[str, ...] = ()
    rows: list[Tensor] | Tensor

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.add_state("rows", [], dist_reduce_fx="cat")

    def _append(self, part: Tensor, index: Tensor, values: Tensor) -> None:
        """Add rows.

        Args:
            part: int64 (n,).
            index: int64 (n,).
            values: float (n, width).

        Raises:
            DataError: if the shapes do not fit.
        """
        if not part.shape == index.shape == values.shape[:1] or values.shape[1:] != (self.width,):
            raise DataError(
                f"Expected part (n,), index (n,) and values (n, {self.width}), got {tuple(part.shape)}, "
                f"{tuple(index.shape)} and {tuple(values.shape)}; pass one row per sample."
            )
        if len(part) and isinstance(self.rows, list):
            columns = (self._wide(part)[:, None], self._wide(index)[:, None], self._wide(values))
            self.rows.append(torch.cat(columns, dim=1))

    def _rows(self) -> Rows:
        """The table on the CPU; of several rows of one sample the smallest counts.

        Raises:
            DataError: if there are no rows or a value is NaN.
        """
        table = np.empty((0, 2 + self.width)) if len(self.rows) == 0 else dim_zero_cat(self.rows).cpu().numpy()
        table = table[table[:, 0] >= 0]
        if not len(table):
            raise DataError(f"Expected at least one sample for {self.key}, got none; check the data it is given.")
        if np.isnan(table).any():
            raise DataError(f"Expected finite network outputs for {self.key}, got NaN; {DIVERGED}.")
        kept = torch.from_numpy(_one_per_sample(table[np.lexsort((table[:, 1], table[:, 0]))]))
        return Rows(kept[:, 0].long(), kept[:, 1].long(), kept[:, 2:])

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        """Gather the rows of all ranks.

        Every rank sends one row of part -1 more, because a rank without rows would otherwise send a tensor of another
        shape and dtype, which ends the process. The local rows are put back after ``compute``.
        """
        filler = torch.full((1, 2 + self.width), -1.0, dtype=torch.float64, device=self.device)
        self.rows = [*self.rows, filler]
        super()._sync_dist(dist_sync_fn, process_group)


def _one_per_sample(table: np.ndarray) -> np.ndarray:
    """The smallest row of each sample, of rows in ascending order of (part, index); values count in their order."""
    again = (table[1:, :2] == table[:-1, :2]).all(axis=1)
    if not again.any():
        return table
    repeated = np.append(again, False) | np.insert(again, 0, False)
    table[repeated] = table[repeated][np.lexsort(table[repeated].T[::-1])]
    kept: np.ndarray = table[np.insert(~again, 0, True)]
    return kept
