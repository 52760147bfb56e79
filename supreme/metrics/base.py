"""What every evaluation metric declares, and the exact mean over samples that most of them are."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from supreme.errors import DataError, UnknownNameError

SETS = ("whole", "retain", "forget")
"""Names of the sets that a metric can be evaluated on."""

DIVERGED = "the network has diverged, so lower its learning rate or raise the precision"
_WITHOUT_FLOAT64 = ("mps",)


class EvaluationMetric(Metric):
    """Base of all metrics: a stock torchmetrics metric that also says what it needs and where it is evaluated.

    States are float64 whatever the precision of the network, because they ignore every conversion of dtype; on devices
    without float64 they stay on the CPU. A metric that sees NaN outputs raises at ``compute``, on every rank. A metric
    that draws takes the evaluation seed as an argument ``seed``; in a plan with several evaluation seeds, those metrics
    alone are computed for each of them.

    Attributes:
        key: name of the value in records; another definition of the same quantity has another key.
        sets: sets that the metric is evaluated on; () for one value over all data.
        inputs: what ``update`` receives, in this order: logits float (n, K) of ``"unlearned"``, ``"retrained"``,
            ``"original"`` or ``"incompetent"``; ``"target"``, ``"index"``, ``"part"`` int64 (n,); or the networks
            ``"unlearned_model"`` and ``"retrained_model"``, in which case there is one update per evaluation.
        needs: other models or data that have to be there: "retrained", "original", "incompetent", "train".
        paper: where the metric comes from.
        best: ``"retrained"`` (nearest to the retrained model), ``"low"`` (0) or ``"high"`` (1).
        batchwise: whether the value depends on how rows are cut into batches; an evaluation then gives ``update`` its
            batches as they were served, and to all other metrics as many rows at once as are quick.
    """

    key: str = ""
    sets: tuple[str, ...] = ("whole", "retain", "forget")
    inputs: tuple[str, ...] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""
    best: Literal["retrained", "low", "high"] = "retrained"
    batchwise: bool = False
    is_differentiable: bool | None = False
    higher_is_better: bool | None = None
    full_state_update: bool | None = False

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one value or a sequence of values.

        Args:
            val: a result of ``compute`` or a list of them; None computes.
            ax: matplotlib axes to draw into; None makes a figure.

        Returns:
            The figure and the axes.
        """
        return self._plot(val, ax)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Follow the module to its device, never to its dtype (``module.to(dtype)`` would round the sums)."""
        device = fn(torch.zeros(1, device=self.device)).device
        if device.type in _WITHOUT_FLOAT64:
            return self
        return super()._apply(lambda state: state.to(device), exclude_state)

    def _wide(self, values: Tensor) -> Tensor:
        """The values in float64 on the device of the states."""
        return values.detach().to(self.device).to(torch.float64)


class SampleMean(EvaluationMetric):
    """Mean over samples from a float64 sum and a count, so that batches and ranks of any size give the same value."""

    total: Tensor
    count: Tensor
    _nan_cause: str = DIVERGED

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def compute(self) -> Any:
        """Mean over all samples of all ranks, a float64 scalar.

        Raises:
            DataError: if there was no sample, or if the outputs of a network were NaN.
        """
        return self._mean()

    @property
    def adds_up(self) -> bool:
        """Whether sum and count are all there is, so that those of two sets give the value of both together."""
        return set(self.metric_state) == {"total", "count"}

    def add_up(self, parts: Sequence["SampleMean"]) -> None:
        """Be the mean over the samples of other metrics of this kind, each of which has samples of its own.

        Args:
            parts: at least one, none of them synchronised.
        """
        self.reset()
        for part in parts:
            self.total, self.count = self.total + part.total, self.count + part.count
        self._update_count = sum(part.update_count for part in parts)

    def _add(self, values: Tensor) -> None:
        """Count one value per sample."""
        self.total = self.total + values.sum()
        self.count = self.count + len(values)

    def _add_mean(self, values: Tensor) -> None:
        """Count the mean of a batch as one value, however many samples it has."""
        if len(values):
            self._add(values.mean().reshape(1))

    def _mean(self) -> Tensor:
        if not self.count:
            raise DataError(f"Expected at least one sample for {self.key}, got none; check the set it is evaluated on.")
        if self.total.isnan():
            raise DataError(f"Expected finite network outputs for {self.key}, got NaN; {self._nan_cause}.")
        return self.total / self.count


def chosen(kind: str, name: str, allowed: Sequence[str]) -> str:
    """The name, if it is allowed.

    Raises:
        UnknownNameError: if it is not, naming the nearest one.

    Example:
        >>> chosen("reduction", "rms", ("mean", "rms"))
        'rms'
    """
    if name not in allowed:
        raise UnknownNameError(kind, name, allowed)
    return name


def broken_as_nan(values: Tensor, *logits: Tensor) -> Tensor:
    """The values in float64, NaN where a row of logits has no softmax (NaN, +inf, or -inf for every class).

    Comparisons of predicted classes would otherwise give a number for a network that has diverged.

    Args:
        values: (n,), one value per sample.
        logits: float (n, K) each.

    Example:
        >>> broken_as_nan(torch.tensor([True, True]), torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]))
        tensor([1., nan], dtype=torch.float64)
    """
    result = values.to(torch.float64)
    for rows in logits:
        result = result.masked_fill(~torch.logsumexp(rows, dim=-1).isfinite(), torch.nan)
    return result


def check_targets(logits: Tensor, target: Tensor) -> Tensor:
    """The targets as int64 beside the logits, after a check of shape and range.

    Args:
        logits: float (n, K).
        target: integers (n,) in [0, K).

    Raises:
        DataError: if the shapes do not fit or a target is outside [0, K).

    Example:
        >>> check_targets(torch.zeros(2, 3), torch.tensor([2, 0]))
        tensor([2, 0])
    """
    if logits.dim() != 2 or target.shape != logits.shape[:1]:
        raise DataError(
            f"Expected logits of shape (n, K) and targets of shape (n,), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}; pass one target per row."
        )
    classes = logits.shape[1]
    low, high = torch.stack(target.aminmax()).tolist() if len(target) else (0, 0)
    if low < 0 or high >= classes:
        raise DataError(
            f"Expected targets in [0, {classes}), got values from {low} to {high}; "
            "check the number of outputs of the network."
        )
    return target.to(logits.device, torch.int64)
