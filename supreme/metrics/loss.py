"""Loss: the cross-entropy of a set."""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from supreme.metrics.base import SampleMean, check_targets, chosen


class Loss(SampleMean):
    """Mean cross-entropy over samples, in nats.

    Args:
        reduction: ``"mean"`` is the mean over samples; ``"batch_mean"`` is the unweighted mean over updates of the mean
            of each, reported as ``loss_batch_mean``.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        UnknownNameError: if the reduction is neither.

    Example:
        >>> import torch
        >>> metric = Loss()
        >>> metric.update(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> round(float(metric.compute()), 4)
        0.6931

    Differs from the published code in: it averages batch means, in which a short last batch weighs as much as a full
    one; ``Loss("batch_mean")``, updated batch by batch of the one set, gives that number.
    """

    key: str = "loss"
    inputs: tuple[str, ...] = ("unlearned", "target")
    plot_lower_bound: float | None = 0.0

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
        classes = check_targets(logits, target)
        losses = -F.log_softmax(logits, dim=-1).gather(1, classes[:, None])[:, 0]
        add = self._add if self.reduction == "mean" else self._add_mean
        add(losses)
