"""The data contract: what a batch is, in forget/retain terms, and how a method asks for data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from supreme.errors import ConfigError

Part = Literal["forget", "retain", "full", "none"]


class Step(NamedTuple):
    """Where in a method's work a batch stands; plain numbers.

    Attributes:
        phase: position in the method's ``phases``.
        epoch: pass over the phase's data, from 0.
        number: batch of this pass, from 0.
        size: rows of the global batch (over all ranks).
        last_of_phase: whether no batch of this phase follows.
        last: whether no batch at all follows.
        scale: world size / global rows ("mean") or world size ("sum"); a loss is ``scale * (weight * losses).sum()``.
        augment: whether the images get the training augmentation.
        filler: whether this rank has no row of the global batch, so that its rows have weight 0 and all others 1; the
            one field that differs between ranks.
    """

    phase: int
    epoch: int
    number: int
    size: int
    last_of_phase: bool
    last: bool
    scale: float
    augment: bool = False
    filler: bool = False


class Batch(NamedTuple):
    """This rank's share of one global batch.

    The gradient of ``step.scale * (weight * losses).sum()``, averaged over ranks as every strategy does, is the
    gradient of the global batch's mean loss, also when the shares are uneven. Rows of weight 0 only keep ranks in step.

    Attributes:
        image: float (n, C, H, W), normalised; of no meaning in synthetic rows.
        target: int64 (n,), class; -1 in synthetic rows.
        index: int64 (n,), position in the training set D; synthetic row ``k`` of the phase has ``-1 - k``.
        weight: float (n,), 1 for rows that count and 0 for filler rows.
        forget: bool (n,), whether the sample belongs to D_f.
        step: where in the method's work this batch stands.
    """

    image: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]
    weight: Tensor
    forget: Tensor
    step: Step


class Samples(NamedTuple):
    """What a phase's ``select`` may look at: the labels of its part, never the images.

    Attributes:
        index: int64 (n,), positions in D.
        target: int64 (n,), class.
        subtarget: int64 (n,), fine class, or None where the dataset has none.
        forget: bool (n,), whether the sample belongs to D_f.
    """

    index: Tensor  # type: ignore[assignment]
    target: Tensor
    subtarget: Tensor | None
    forget: Tensor


@dataclass(frozen=True)
class Phase:
    """One stretch of a method's work: which data it reads, how often, and how.

    A method declares all its phases before anything is read; the scenario serves them as one epoch of tagged batches.
    Data outside the declaration cannot be read.

    Args:
        data: ``"forget"`` (D_f), ``"retain"`` (D_r), ``"full"`` (D) or ``"none"`` (synthetic rows only).
        passes: number of passes over the phase's data, at least 1.
        batch_size: rows of a global batch; None takes the scenario's.
        shuffle: whether each pass has an order of its own, seeded by (seed, phase, pass).
        augment: whether images get the training augmentation, else the evaluation transform.
        mode: ``"train"`` or ``"eval"``: mode of the network (BatchNorm statistics, dropout).
        reduction: ``"mean"`` or ``"sum"`` over the global batch.
        lr: learning rate in this phase; None keeps the optimiser's own, 0 leaves the weights as they are.
        reset_optimizer: whether the optimiser starts the phase without momentum or moments.
        full_precision: whether autocast is off in this phase (importances).
        select: picks the samples of the part, as positions in D and in the order to be served; None takes all in
            ascending order.
        synthetic: rows that the method itself fills, served before the selected samples.
    """

    data: Part
    passes: int = 1
    batch_size: int | None = None
    shuffle: bool = True
    augment: bool = False
    mode: Literal["train", "eval"] = "train"
    reduction: Literal["mean", "sum"] = "mean"
    lr: float | None = None
    reset_optimizer: bool = False
    full_precision: bool = False
    select: Callable[[Samples], Tensor] | None = None
    synthetic: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that no loader could serve."""
        if self.passes < 1 or self.synthetic < 0 or (self.batch_size is not None and self.batch_size < 1):
            raise ConfigError(
                f"Expected passes >= 1, batch_size >= 1 and synthetic >= 0 in a phase, got passes={self.passes}, "
                f"batch_size={self.batch_size}, synthetic={self.synthetic}."
            )
        if self.data == "none" and not self.synthetic:
            raise ConfigError("A phase without data needs synthetic rows; set synthetic to their number.")


@dataclass(frozen=True)
class ForgetRequest:
    """What a method may know of the request.

    Attributes:
        num_classes: number of outputs of the network.
        forget_index: int64 (n_f,), positions of D_f in D, ascending.
        forget_classes: the classes to be forgotten in full (or, in a sub-class request, the class that contains
            them), None when samples were drawn at random.
        fingerprint: hash of the forget indices and of the data; keys draws that all methods of a target share.
        forget_subclasses: the fine classes to be forgotten, None outside sub-class requests.
        train_size: number of samples of D, None where that is not known.
    """

    num_classes: int
    forget_classes: tuple[int, ...] | None
    fingerprint: str
    forget_index: Tensor = field(compare=False, repr=False)
    forget_subclasses: tuple[int, ...] | None = None
    train_size: int | None = None


PARTS = ("retain_test", "forget_test", "retain_train", "forget_train")


class EvaluationBatch(NamedTuple):
    """This rank's share of a batch of evaluation images; every image of every part comes exactly once.

    Attributes:
        image: float (n, C, H, W), normalised, not augmented.
        target: int64 (n,).
        index: int64 (n,), position in the training or test set.
        weight: float (n,), 1 for rows that count and 0 for filler rows.
        part: int64 (n,), position in :data:`PARTS`.
        place: name of the part of all rows, known without a look at the device.
        filler: whether this rank has no row of the global batch, so that its rows have weight 0 and all others 1.
    """

    image: Tensor
    target: Tensor
    index: Tensor  # type: ignore[assignment]
    weight: Tensor
    part: Tensor
    place: str
    filler: bool


def laid_out_as(values: Tensor, image: Tensor) -> Tensor:
    """Images made from others, in the layout in memory that the others have: channels last or not.

    Args:
        values: float (m, C, H, W).
        image: float (n, C, H, W).

    Example:
        >>> image = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
        >>> laid_out_as(torch.zeros(5, 3, 4, 4), image).stride()
        (48, 1, 12, 3)
    """
    last = image.dim() == 4 and image.is_contiguous(memory_format=torch.channels_last)
    return values.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
