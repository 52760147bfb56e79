"""Activation distance: how far the outputs of two networks are apart."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from supreme.functional.divergence import activation_distance
from supreme.metrics.base import SampleMean, chosen


class ActivationDistance(SampleMean):
    """Mean over samples of the L2 distance between the softmax outputs of M_u and M_r, in [0, sqrt 2].

    Args:
        reduction: ``"mean"`` is the mean of the distances; ``"rms"`` is the root of the mean of their squares, reported
            as ``activation_distance_rms``.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        UnknownNameError: if the reduction is neither.

    Example:
        >>> import torch
        >>> metric = ActivationDistance()
        >>> metric.update(torch.tensor([[99.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 99.0], [1.0, 2.0]]))
        >>> round(float(metric.compute()), 4)
        0.7071

    Reference:
        Nguyen et al. 2022, A Survey of Machine Unlearning, arXiv:2209.02299 (table of evaluation metrics).

    Differs from the published code in: it takes the root mean square, which ``reduction="rms"`` gives, and leaves the
    retrained network in train mode, so that BatchNorm uses the statistics of each evaluation batch; here all networks
    are in evaluation mode.
    """

    key: str = "activation_distance"
    inputs: tuple[str, ...] = ("unlearned", "retrained")
    needs: ClassVar[tuple[str, ...]] = ("retrained",)
    paper: ClassVar[str] = "Nguyen et al. 2022, arXiv:2209.02299"
    best: Literal["retrained", "low", "high"] = "low"
    higher_is_better: bool | None = False
    plot_lower_bound: float | None = 0.0

    def __init__(self, reduction: Literal["mean", "rms"] = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = chosen("reduction", reduction, ("mean", "rms"))
        if reduction != "mean":
            self.key = f"{self.key}_{reduction}"

    def update(self, unlearned: Tensor, retrained: Tensor) -> None:
        """Count a batch.

        Args:
            unlearned: float (n, K), logits of M_u.
            retrained: float (n, K), logits of M_r on the same samples.
        """
        distance = activation_distance(self._wide(unlearned), self._wide(retrained))
        self._add(distance if self.reduction == "mean" else distance.square())

    def compute(self) -> Any:
        """The distance, a float64 scalar.

        Raises:
            DataError: if there was no sample, or if the outputs of a network were NaN.
        """
        mean = self._mean()
        return mean if self.reduction == "mean" else mean.sqrt()
