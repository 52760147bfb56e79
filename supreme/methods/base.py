"""Base of all unlearning methods: a LightningModule that does its whole work in one ``Trainer.fit``."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import Batch, ForgetRequest, Phase
from supreme.distributed import DistributedModule, fresh_optimizer, set_filler
from supreme.errors import ConfigError, NotApplicableError


class UnlearningMethod(DistributedModule):
    """A method that turns the original model M_o into the unlearned model M_u.

    A subclass declares its :attr:`phases`, gives the :meth:`loss` of a batch and its optimiser; methods that edit
    weights once override :meth:`finish`. ``Trainer().fit(method, datamodule=scenario)`` does the work and stops by
    itself; afterwards ``method.model`` is M_u.

    Args:
        original: M_o as an nn.Module (images (N, C, H, W) -> logits (N, K)) or a LightningModule that holds it as
            ``model``; copied, never changed.
        seed: unlearning seed s_u; keys the order of the data and every draw of the method.

    Example:
        >>> class Ascent(UnlearningMethod):
        ...     '''Gradient ascent on the forget set.'''
        ...
        ...     @property
        ...     def phases(self):
        ...         return [Phase("forget", passes=1, lr=1e-4)]
        ...
        ...     def loss(self, batch):
        ...         return -functional.cross_entropy(self.model(batch.image), batch.target, reduction="none")
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.model.parameters(), lr=1e-4)
        >>> Ascent(nn.Linear(2, 2)).phases[0].data
        'forget'
    """

    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("forget", "retain")
    aliases: ClassVar[tuple[str, ...]] = ()

    def __init__(self, original: nn.Module, seed: int = 0) -> None:
        super().__init__()
        network = getattr(original, "model", original) if isinstance(original, DistributedModule) else original
        self.model = copy.deepcopy(network).requires_grad_(True)
        self.seed = seed
        self.request: ForgetRequest | None = None
        self.finished = False
        self._phase = -1

    # --- what a subclass writes

    @property
    def phases(self) -> Sequence[Phase]:
        """All phases of the work, in order."""
        raise NotImplementedError(f"{type(self).__name__} has to declare its phases")

    def loss(self, batch: Batch) -> Tensor:
        """Loss of each row, float (n,)."""
        return functional.cross_entropy(self.model(batch.image), batch.target, reduction="none")

    def prepare(self, request: ForgetRequest) -> None:
        """Build what the method needs before anything is read, for example teachers."""

    def finish(self) -> None:
        """Edit the weights after the last batch."""

    def end_phase(self, phase: int) -> None:
        """Act after the last batch of a phase."""

    # --- Lightning's hooks

    @property
    def input_spec(self) -> dict[str, Any] | None:
        """Size, mean and standard deviation that the network asks for, None without a wish."""
        return getattr(self.model, "input_spec", None)

    def setup(self, stage: str) -> None:
        """Read the request, check that it and the Trainer suit the method, and prepare."""
        if stage != "fit":
            return
        request = getattr(getattr(self.trainer, "datamodule", None), "request", None)
        if request is None:
            raise ConfigError(
                f"{type(self).__name__} needs a scenario, for example "
                "Trainer().fit(method, datamodule=FullClass(forget=0))."
            )
        if "class" in self.needs and request.forget_classes is None:
            raise NotApplicableError(
                f"{type(self).__name__} needs a class to forget, and this request forgets samples drawn at random; "
                "name the class (forget_class) or choose another method."
            )
        self._check_trainer()
        self.request, self.finished, self._phase = request, False, -1
        self.prepare(request)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the next phase: mode, learning rate and state of the optimiser."""
        set_filler(self.model, batch.step.filler)
        if batch.step.phase == self._phase:
            return
        resumed = batch.step.number > 0
        self._phase = batch.step.phase
        phase = self.phases[self._phase]
        self.model.train(phase.mode == "train")
        optimizer = self.trainer.optimizers[0]
        if phase.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = phase.lr
        if phase.reset_optimizer and not resumed:
            fresh_optimizer(optimizer)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Loss of the global batch, this rank's part."""
        phase = self.phases[batch.step.phase]
        with torch.autocast(self.device.type, enabled=not phase.full_precision and torch.is_autocast_enabled()):
            return self.mean_loss(self.loss(batch), batch)

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int) -> None:
        """Close the phase and, after the last batch, edit the weights and stop the Trainer."""
        if batch.step.last_of_phase:
            self.end_phase(batch.step.phase)
        if batch.step.last or self.trainer.is_last_batch:
            self.finish()
            self.model.eval()
            self.finished = True
            self.trainer.should_stop = True

    def _check_trainer(self) -> None:
        trainer, name = self.trainer, type(self).__name__
        if trainer.accumulate_grad_batches != 1 or trainer.gradient_clip_val:
            raise ConfigError(
                f"{name} sets its own updates: expected accumulate_grad_batches=1 and no gradient clipping, got "
                f"{trainer.accumulate_grad_batches} and {trainer.gradient_clip_val}; leave both at their defaults."
            )
        if trainer.fast_dev_run:
            return
        if trainer.max_steps != -1 or trainer.limit_train_batches != 1.0 or trainer.max_epochs == 0:
            raise ConfigError(
                f"{name} knows how long it has to run: leave max_steps and limit_train_batches alone and max_epochs "
                f"above 0 (got {trainer.max_steps}, {trainer.limit_train_batches}, {trainer.max_epochs}), or use "
                "fast_dev_run for a trial."
            )
