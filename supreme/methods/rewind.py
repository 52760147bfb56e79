"""Rewind: keep the weights of every epoch and go back to those that err on D_f as an unseen set does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from supreme.distributed import all_sum, local_weight, pieces, reshard, set_weight
from supreme.errors import ConfigError, DataError


class RestingAdam(torch.optim.Adam):
    """Adam whose steps compute gradients only while ``resting``: neither weights nor moments move."""

    resting = False

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step, or run the closure alone."""
        return _closure_only(closure) if self.resting else super().step(closure)


class RestingSGD(torch.optim.SGD):
    """SGD whose steps compute gradients only while ``resting``: neither weights nor momentum move."""

    resting = False

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step, or run the closure alone."""
        return _closure_only(closure) if self.resting else super().step(closure)


def _closure_only(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


@dataclass
class _Kept:
    """This rank's pieces of the weights after an epoch, on the host."""

    epoch: int
    error: float
    weights: dict[str, Tensor] = field(repr=False)
    buffers: list[Tensor] = field(repr=False)


class Rewind:
    """Choose among the weights after each epoch by their error on D_f.

    Args:
        num_classes: K.
        reference: the error that a model which has never seen D_f would have on it, in [0, 1]; None measures it.
        validation: pairs (image tensor, class) that no model was trained on, as the network sees them; the reference
            is the error of the last epoch's model on them, each class weighing as much as it does in D_f.

    Attributes:
        errors: error on D_f after each epoch.
        reference: the error that was aimed at.
        epoch: the chosen epoch, from 1.
    """

    def __init__(self, num_classes: int, reference: float | None, validation: Dataset[Any] | None) -> None:
        self.errors: list[float] = []
        self.reference = reference
        self.epoch: int | None = None
        self._validation, self._classes = validation, num_classes
        self._kept: list[_Kept] = []
        self._counts: Tensor | None = None  # int64; rows: samples, wrong ones; columns: classes
        self._share = torch.empty(0, dtype=torch.float64)  # of each class in D_f

    def count(self, logits: Tensor, target: Tensor, weight: Tensor) -> None:
        """Count this rank's rows of a batch of D_f.

        Args:
            logits: float (n, K).
            target: int64 (n,).
            weight: float (n,), 0 for filler rows.
        """
        found = self._table(logits, target, weight > 0)
        self._counts = found if self._counts is None else self._counts + found

    def keep(self, model: nn.Module) -> None:
        """Keep the weights of the epoch whose batches were counted, as long as they may be chosen.

        Raises:
            DataError: if D_f has a class of which the validation set has no sample.
        """
        if self._counts is None:
            return
        counts, self._counts = all_sum(self._counts).cpu(), None
        if not self.errors:
            self._share = counts[0].double() / counts[0].sum()
            self._check_classes()
        self.errors.append(int(counts[1].sum()) / int(counts[0].sum()))
        weights = {name: local_weight(p).to("cpu", copy=True) for name, p in pieces(model)}
        buffers = [buffer.detach().to("cpu", copy=True) for buffer in model.buffers()]
        self._kept.append(_Kept(len(self.errors), self.errors[-1], weights, buffers))
        if self.reference is not None:
            self._kept = [self._nearest(self.reference)]

    @torch.no_grad()
    def choose(self, model: nn.Module) -> None:
        """Give the model, which has the last epoch's weights, those of the chosen epoch."""
        if not self._kept:
            return
        if self.reference is None:
            self.reference = self._measure(model.eval())
        chosen = self._nearest(self.reference)
        for name, parameter in pieces(model):
            set_weight(parameter, chosen.weights[name].to(local_weight(parameter).device))
        for buffer, value in zip(model.buffers(), chosen.buffers, strict=True):
            buffer.copy_(value)
        self.epoch, self._kept = chosen.epoch, []

    def _nearest(self, reference: float) -> _Kept:
        """Of equally near ones the latest, which has had most repair."""
        return min(reversed(self._kept), key=lambda kept: abs(kept.error - reference))

    def _measure(self, model: nn.Module) -> float:
        """Error on the validation set with the classes in the proportions of D_f."""
        like = next(model.parameters())
        counts = torch.zeros(2, self._classes, dtype=torch.int64)
        for images, target in self._batches():
            logits = model(images.to(local_weight(like).device, like.dtype))
            counts += self._table(logits.cpu(), target)
        reshard(model)
        return float((self._share * counts[1] / counts[0].clamp(min=1)).sum())

    def _table(self, logits: Tensor, target: Tensor, real: Tensor | None = None) -> Tensor:
        target, wrong = (values if real is None else values[real] for values in (target, logits.argmax(1) != target))
        counts = [torch.bincount(part, minlength=self._classes) for part in (target, target[wrong])]
        return torch.stack(counts)

    def _check_classes(self) -> None:
        if self._validation is None:
            return
        there = {int(target) for _, targets in self._batches() for target in targets}
        missing = [k for k, share in enumerate(self._share.tolist()) if share > 0 and k not in there]
        if missing:
            raise DataError(
                f"SCRUB+R has no reference error: D_f has samples of class {missing[0]} and the validation set has "
                "none; give held-out samples of every class of D_f, or the error itself (reference_error)."
            )

    def _batches(self) -> DataLoader[Any]:
        if self._validation is None:
            raise RuntimeError("only a validation set has batches")
        return DataLoader(self._validation, batch_size=256, generator=torch.Generator())


def check_reference(reference_error: float | None, validation: Dataset[Any] | None) -> None:
    """Refuse a reference outside [0, 1], and two references.

    Raises:
        ConfigError: in both cases.
    """
    if reference_error is not None and not 0 <= reference_error <= 1:
        raise ConfigError(f"Expected reference_error in [0, 1], got {reference_error}.")
    if reference_error is not None and validation is not None:
        raise ConfigError("Expected reference_error or validation, got both; leave one of them out.")
