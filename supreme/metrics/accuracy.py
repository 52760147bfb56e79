"""Accuracy: how many samples are classified correctly."""

from typing import Any, Literal

from torch import Tensor

from supreme.metrics.base import SampleMean, broken_as_nan, check_targets, chosen


class Accuracy(SampleMean):
    """Share of samples whose most probable class is the true one, in [0, 1].

    Args:
        reduction: ``"mean"`` is correct / N; ``"batch_mean"`` is the unweighted mean over updates of the share in each,
            reported as ``accuracy_batch_mean``.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        UnknownNameError: if the reduction is neither.

    Example:
        >>> import torch
        >>> metric = Accuracy()
        >>> metric.update(torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), torch.tensor([0, 1, 1]))
        >>> round(float(metric.compute()), 4)
        0.6667

    Differs from the published code in: its result is a percentage and the mean of batch accuracies, in which a short
    last batch weighs as much as a full one; ``100 * Accuracy("batch_mean")``, updated batch by batch of the one set,
    gives that number. With several processes it also averages over ranks and counts padded samples, which is not
    offered.
    """

    key: str = "accuracy"
    inputs: tuple[str, ...] = ("unlearned", "target")
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def __init__(self, reduction: Literal["mean", "batch_mean"] = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = chosen("reduction", reduction, ("mean", "batch_mean"))
        self.batchwise = reduction != "mean"
        if self.batchwise:
            self.key = f"{self.key}_{reduction}"

    def update(self, unlearned: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            unlearned: float (n, K), logits.
            target: int64 (n,), true classes.
        """
        logits = self._wide(unlearned)
        correct = logits.argmax(dim=-1) == check_targets(logits, target)
        add = self._add if self.reduction == "mean" else self._add_mean
        add(broken_as_nan(correct, logits))
