"""BadTeacher: distil from an incompetent teacher on D_f and from M_o on D_r."""

import copy
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from supreme.batch import Batch, ForgetRequest, Phase, Samples
from supreme.distributed import Frozen, fused, is_split
from supreme.errors import ConfigError
from supreme.functional.distillation import two_teachers
from supreme.methods.base import UnlearningMethod, check_positive
from supreme.models.build import reinitialise
from supreme.seeding import derive, generator


class BadTeacher(UnlearningMethod):
    """Bad teacher: the student follows a randomly initialised network on D_f and M_o on a part of D_r.

    Args:
        original: M_o; also the competent teacher.
        epochs: passes over D_f and the drawn part of D_r, at least 1.
        lr: learning rate of Adam, > 0.
        temperature: T > 0 of both softmax outputs.
        retain_fraction: share of D_r that is drawn once, in [0, 1]; ``floor(fraction * n_r)`` samples.
        batch_size: rows of a global batch; None takes the scenario's.
        incompetent_teacher: network to use instead of a drawn one; frozen here.
        retain_indices: int64, positions in D of the samples of D_r to use instead of drawn ones.
        teacher_seed: seed of the incompetent teacher; None derives it from the forget request, so that all methods
            and metrics of a target share it.
        reduction: ``"sample"`` averages the KL divergence over samples; ``"published"`` over samples and classes.
        seed: unlearning seed s_u; drives the draw and the order.

    Raises:
        ConfigError: if an argument is outside its range, or a parameter of the network cannot be initialised anew.

    Needs: D_f and D_r, no labels. Each row passes through the teacher that it follows. Under DDP and DeepSpeed every
    rank holds both teachers whole; FSDP2 shards them, and each row passes through both.

    Reference: Chundawat, Tarun, Mandal, Kankanhalli 2023, arXiv:2205.08096, equation 3.

    Differs from the published code in: KL averaged over samples, not over samples and classes
    (``reduction="published"`` restores it).

    Example:
        >>> BadTeacher(nn.Linear(2, 2)).retain_fraction
        0.3
    """

    paper: ClassVar[str] = "Chundawat et al. 2023, arXiv:2205.08096"
    aliases: ClassVar[tuple[str, ...]] = ("BadT",)
    frozen_names: ClassVar[tuple[str, ...]] = ("competent", "incompetent")

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 1,
        lr: float = 1e-4,
        temperature: float = 1.0,
        retain_fraction: float = 0.3,
        batch_size: int | None = 256,
        incompetent_teacher: nn.Module | None = None,
        retain_indices: Tensor | None = None,
        teacher_seed: int | None = None,
        reduction: Literal["sample", "published"] = "sample",
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs, lr=lr, temperature=temperature)
        if not 0 <= retain_fraction <= 1 or reduction not in ("sample", "published"):
            raise ConfigError(
                "Expected retain_fraction in [0, 1] and reduction 'sample' or 'published', got "
                f"{retain_fraction} and {reduction!r}."
            )
        self.epochs, self.lr, self.temperature, self.batch_size = epochs, lr, temperature, batch_size
        self.retain_fraction, self.retain_indices = retain_fraction, retain_indices
        self.teacher_seed, self.reduction = teacher_seed, reduction
        self._given_teacher = (incompetent_teacher,)
        self.competent: Frozen | None = None
        self.incompetent: Frozen | None = None
        self._rows: list[Tensor] | None = None

    @property
    def phases(self) -> Sequence[Phase]:
        """Passes over D_f and the drawn part of D_r."""
        return [Phase("full", passes=self.epochs, batch_size=self.batch_size, select=self._forget_and_drawn)]

    def prepare(self, request: ForgetRequest) -> None:
        """Make the two teachers."""
        seed = derive(request.fingerprint, "incompetent teacher") if self.teacher_seed is None else self.teacher_seed
        given = self._given_teacher[0]
        self.competent = Frozen(copy.deepcopy(self.model))
        self.incompetent = Frozen(reinitialise(self.model, seed) if given is None else copy.deepcopy(given))

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Look up each teacher's rows in host memory; later that would wait for the device."""
        self._rows = _rows(batch)
        return batch

    def loss(self, batch: Batch) -> Tensor:
        """KL to the teacher of each row, float (n,)."""
        if self.competent is None or self.incompetent is None:
            raise RuntimeError("the teachers exist once the method has been set up")
        student = self.model(batch.image)
        rows, self._rows = self._rows or _rows(batch), None
        rows = [wanted.to(student.device, non_blocking=True) for wanted in rows]
        pairs = zip((self.competent, self.incompetent), rows, strict=True)
        competent, incompetent = (_logits(teacher, batch.image, wanted, student.detach()) for teacher, wanted in pairs)
        losses = two_teachers(student, competent, incompetent, batch.forget, self.temperature)
        return losses / student.shape[1] if self.reduction == "published" else losses

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay."""
        return torch.optim.Adam(self.model.parameters(), lr=self.lr, fused=fused(self.model.parameters()))

    def _forget_and_drawn(self, samples: Samples) -> Tensor:
        retain = samples.index[~samples.forget]
        if self.retain_indices is None:
            order = torch.randperm(len(retain), generator=generator(self.seed, "retain draw"))
            size = math.floor(round(self.retain_fraction * len(retain), 9))  # 0.57 * 100 is 56.99999999999999
            drawn = retain[order[:size]]
        else:
            drawn = torch.as_tensor(self.retain_indices, dtype=torch.int64)
            if len(set(drawn.tolist())) != len(drawn) or not torch.isin(drawn, retain).all():
                raise ConfigError(
                    "Expected retain_indices to be positions of D_r in D, each once; D_f is served anyway."
                )
        return torch.cat([samples.index[samples.forget], drawn]).sort().values


def _rows(batch: Batch) -> list[Tensor]:
    """Positions in the batch of the rows of D_r, and of those of D_f."""
    return [wanted.nonzero().flatten() for wanted in (~batch.forget, batch.forget)]


def _logits(teacher: Frozen, images: Tensor, rows: Tensor, like: Tensor) -> Tensor:
    """Logits (n, K), 0 in rows that are not wanted; of a sharded teacher all rows, because every rank has to call."""
    if any(map(is_split, teacher.model.parameters())):
        return teacher(images)
    logits = torch.zeros_like(like)
    return logits.index_copy(0, rows, teacher(images[rows]).to(like.dtype)) if len(rows) else logits
