"""SCRUB: obey the teacher on D_r, disobey it on D_f."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from supreme.batch import Batch, ForgetRequest, Phase
from supreme.distributed import (
    Frozen,
    add_to_gradient,
    fused,
    local_piece,
    local_weight,
    loss_scale,
    pieces,
    sgd,
    whole_norm,
)
from supreme.errors import ConfigError
from supreme.functional.classification import cross_entropy
from supreme.functional.scrub import scrub_forget, scrub_retain
from supreme.methods.base import UnlearningMethod, check_positive
from supreme.methods.remembered import Remembered
from supreme.methods.rewind import RestingAdam, RestingSGD, Rewind, check_reference


class SCRUB(UnlearningMethod):
    """Scalable remembering and unlearning unbound: alternate between leaving and following the teacher M_o.

    Epochs 1 to ``max_steps`` begin with a pass over D_f that maximises the distillation loss
    KD = T^2 KL(teacher || student); every epoch has a pass over D_r that minimises gamma CE + alpha KD. An optional
    term ``smoothing`` * sum over parameter tensors of ||theta - theta_o||_2 pulls towards M_o in both.

    SCRUB+R: with ``reference_error`` or ``validation``, M_u is the model after that epoch whose error on D_f is
    nearest to the reference error, the latest of equally near ones. It hides that samples were forgotten, so it is
    meant for samples drawn at random. A forgotten class has no unseen counterpart but held-out samples of itself,
    on which a retrained model always errs.

    Args:
        original: M_o; also the teacher.
        epochs: E, at least 1.
        lr: learning rate of Adam (or SGD), > 0.
        gamma: weight of the cross-entropy on D_r.
        alpha: weight of the distillation loss on D_r.
        smoothing: weight of the distance to M_o; the paper has none.
        max_steps: number of epochs with a maximisation pass, at least 0.
        temperature: T > 0.
        weight_decay: L2 term.
        milestones: epochs after which the learning rate is multiplied by ``decay``.
        decay: that factor.
        optimizer: ``"adam"`` or ``"sgd"``.
        momentum: of SGD.
        forget_batch_size: rows of a global batch of D_f; None takes the scenario's.
        retain_batch_size: rows of a global batch of D_r; None takes the scenario's.
        reference_error: share of D_f that M_u is to get wrong, in [0, 1]; chooses the epoch.
        validation: pairs (image tensor, class) that M_o was not trained on, as the network sees them (normalised);
            the reference error is that of the last epoch's model on them, each class weighing as much as in D_f.
        seed: unlearning seed s_u; drives the order.

    Raises:
        ConfigError: if an argument is outside its range, or both references are given.
        DataError: if D_f has a class of which ``validation`` has no sample.

    Attributes:
        rewind: after a fit with a rewind, its ``errors`` on D_f after each epoch, its ``reference`` error and the
            chosen ``epoch``, from 1.

    Needs: D_f (its labels to rewind only), D_r and labels. Under DDP and DeepSpeed every rank holds the teacher whole;
    FSDP2 shards it. Its logits are kept from the first pass over each set, so that it sees every sample once. A rewind
    adds one forward and backward pass over D_f per epoch; each rank keeps its pieces of the weights of all epochs in
    host memory, with ``reference_error`` of the nearest one only.

    Reference: Kurmanji, Triantafillou, Hayes, Triantafillou 2023, arXiv:2302.09880, equations 3 and 4.

    Differs from the published code in: no smoothing by default (``smoothing=0.5`` restores it); it has no rewind.

    Example:
        >>> [phase.data for phase in SCRUB(nn.Linear(2, 2), epochs=2, max_steps=1).phases]
        ['forget', 'retain', 'retain']
    """

    paper: ClassVar[str] = "Kurmanji et al. 2023, arXiv:2302.09880"
    frozen_names: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 10,
        lr: float = 5e-4,
        gamma: float = 1.0,
        alpha: float = 0.5,
        smoothing: float = 0.0,
        max_steps: int = 3,
        temperature: float = 2.0,
        weight_decay: float = 0.1,
        milestones: Sequence[int] = (5, 8, 9),
        decay: float = 0.1,
        optimizer: Literal["adam", "sgd"] = "adam",
        momentum: float = 0.9,
        forget_batch_size: int | None = None,
        retain_batch_size: int | None = None,
        reference_error: float | None = None,
        validation: Dataset[Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs, lr=lr, temperature=temperature)
        if max_steps < 0 or optimizer not in ("adam", "sgd"):
            raise ConfigError(f"Expected max_steps >= 0 and optimizer adam or sgd, got {max_steps} and {optimizer!r}.")
        self.epochs, self.lr, self.gamma, self.alpha, self.smoothing = epochs, lr, gamma, alpha, smoothing
        self.max_steps, self.temperature, self.weight_decay = max_steps, temperature, weight_decay
        self.milestones, self.decay, self.optimizer_name, self.momentum = milestones, decay, optimizer, momentum
        check_reference(reference_error, validation)
        self.forget_batch_size, self.retain_batch_size = forget_batch_size, retain_batch_size
        self.reference_error, self.validation = reference_error, validation
        self.rewind: Rewind | None = None
        self._optimizer: RestingAdam | RestingSGD | None = None
        self.teacher: Frozen | None = None
        self._remembered: Remembered | None = None
        self._start: dict[str, Tensor] = {}

    @property
    def phases(self) -> Sequence[Phase]:
        """Maximise on D_f (the first epochs), minimise on D_r (every epoch), measure the error on D_f (to rewind)."""
        phases = []
        for epoch in range(1, self.epochs + 1):
            lr = self.lr * self.decay ** sum(milestone < epoch for milestone in self.milestones)
            if epoch <= self.max_steps:
                phases.append(Phase("forget", batch_size=self.forget_batch_size, lr=lr))
            phases.append(Phase("retain", batch_size=self.retain_batch_size, lr=lr))
            if self._rewinds:
                phases.append(Phase("forget", batch_size=self.forget_batch_size, shuffle=False, mode="eval"))
        return phases

    @property
    def _rewinds(self) -> bool:
        return self.reference_error is not None or self.validation is not None

    def prepare(self, request: ForgetRequest) -> None:
        """Freeze the teacher."""
        self.teacher = Frozen(copy.deepcopy(self.model))
        self._remembered = Remembered(self.teacher, request)
        if self._rewinds:
            self.rewind = Rewind(request.num_classes, self.reference_error, self.validation)

    def on_train_start(self) -> None:
        """Take this rank's pieces of M_o, for the distance to it."""
        if self.smoothing and self.teacher is not None:
            start = dict(self.teacher.model.named_parameters())
            self._start = {name: local_piece(p, start[name]) for name, p in pieces(self.model)}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the next phase; weights and moments rest while the error is measured."""
        super().on_train_batch_start(batch, batch_idx)
        if self._optimizer is not None:
            self._optimizer.resting = self._measures()

    def _measures(self) -> bool:
        return self._rewinds and self._plan[self._phase].mode == "eval"

    def _check_start(self, resumed: bool) -> None:
        if resumed and self._rewinds:
            raise ConfigError(
                "SCRUB with a rewind cannot go on from a checkpoint, which lacks the weights of earlier epochs; leave "
                "ckpt_path out and run it from the start."
            )
        super()._check_start(resumed)

    def loss(self, batch: Batch) -> Tensor:
        """-KD on D_f, gamma CE + alpha KD on D_r; float (n,)."""
        if self._remembered is None:
            raise RuntimeError("the teacher exists once the method has been set up")
        student = self.model(batch.image)
        if self.rewind is not None and self._measures():
            self.rewind.count(student.detach(), batch.target, batch.weight)
            return cross_entropy(student, batch.target)  # its gradient is dropped
        part = self._plan[batch.step.phase].data
        teacher = self._remembered(batch, part)
        if part == "forget":
            return scrub_forget(student, teacher, self.temperature)
        return scrub_retain(student, teacher, batch.target, self.gamma, self.alpha, self.temperature)

    def release(self) -> None:
        """Let go of the teacher's logits too."""
        super().release()
        self._remembered = None

    def end_phase(self, phase: int) -> None:
        """Keep the weights of the epoch, to rewind."""
        if self.rewind is not None and self._measures():
            self.rewind.keep(self.model)

    def finish(self) -> None:
        """Rewind to the chosen epoch."""
        if self.rewind is not None:
            self.rewind.choose(self.model)

    def on_after_backward(self) -> None:
        """Add the gradient of the smoothing term: (theta - theta_o) / ||theta - theta_o||, 0 where that is 0 / 0."""
        if self._measures():
            return
        scale = loss_scale(self)
        for name, start in self._start.items():
            parameter = self.model.get_parameter(name)
            difference = local_weight(parameter) - start
            norm = whole_norm(parameter, difference)
            factor = torch.where(norm > 0, self.smoothing * scale / norm, 0.0)
            add_to_gradient(parameter, difference * factor.to(difference.dtype))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or SGD, one for both kinds of pass."""
        weights, weight_decay = list(self.model.parameters()), self.weight_decay
        if self.optimizer_name == "sgd":
            self._optimizer = sgd(weights, self.lr, self.momentum, weight_decay, RestingSGD)
        else:
            self._optimizer = RestingAdam(weights, lr=self.lr, weight_decay=weight_decay, fused=fused(weights))
        return self._optimizer
