"""Completeness: how often two networks predict the same class."""

from typing import ClassVar, Literal

from torch import Tensor

from supreme.functional.divergence import agreement
from supreme.metrics.base import SampleMean, broken_as_nan


class Completeness(SampleMean):
    """Share of samples for which M_u and M_r predict the same class, in [0, 1].

    Args:
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> import torch
        >>> metric = Completeness()
        >>> metric.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([[5.0, 1.0], [4.0, 3.0]]))
        >>> float(metric.compute())
        0.5

    Reference:
        Nguyen et al. 2022, A Survey of Machine Unlearning, arXiv:2209.02299 (table of evaluation metrics).

    Differs from the published code in: its result is a percentage (100 times this value), it leaves M_r in train mode
    and, with several processes, counts padded samples and only the first rank's part of the forget set.
    """

    key: str = "completeness"
    inputs: tuple[str, ...] = ("unlearned", "retrained")
    needs: ClassVar[tuple[str, ...]] = ("retrained",)
    paper: ClassVar[str] = "Nguyen et al. 2022, arXiv:2209.02299"
    best: Literal["retrained", "low", "high"] = "high"
    higher_is_better: bool | None = True
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def update(self, unlearned: Tensor, retrained: Tensor) -> None:
        """Count a batch.

        Args:
            unlearned: float (n, K), logits of M_u.
            retrained: float (n, K), logits of M_r on the same samples.
        """
        ours, theirs = self._wide(unlearned), self._wide(retrained)
        self._add(broken_as_nan(agreement(ours, theirs), ours, theirs))
