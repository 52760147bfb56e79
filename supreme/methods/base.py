"""Base of all unlearning methods: a LightningModule that does its whole work in one ``Trainer.fit``."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import Batch, ForgetRequest, Phase
from supreme.batch_norm import set_filler
from supreme.distributed import DistributedModule
from supreme.errors import ConfigError, NotApplicableError
from supreme.precision import check_use


class UnlearningMethod(DistributedModule):
    """A method that turns the original model M_o into the unlearned model M_u.

    A subclass declares its :attr:`phases`, gives the :meth:`loss` of a batch and its optimiser; methods that edit
    weights once override :meth:`finish`. ``Trainer().fit(method, datamodule=scenario)`` does the work and stops by
    itself; afterwards ``method.model`` is M_u.

    Args:
        original: M_o as an nn.Module (images (N, C, H, W) -> logits (N, K)) or an ImageClassifier; copied, never
            changed. Parameters that are frozen in it stay frozen, unless all are.
        seed: unlearning seed s_u; keys the order of the data and every draw of the method.

    Attributes:
        needs: what the method cannot work without: ``"forget"``, ``"retain"``, ``"class"``.
        precisions: kinds of precision in which the method works, of :data:`supreme.precision.KINDS`: ``"float"``,
            ``"fp8"`` (transformer-engine), ``"int8-training"``, ``"quantised"`` (bitsandbytes' inference formats).
        resumes: whether a fit may go on from a checkpoint inside the work; False where the method collects something
            that a checkpoint does not hold.
        reads_weights_early: whether the constructor or :meth:`prepare` looks at values of weights. Where it does not, a
            plan under FSDP2 hands over a network that gets its weights when it has been split over the ranks; where
            it does, every rank holds the network whole on the host first, as with a module of the caller's own.
        shared_importances: for methods derived from SSD, which importances of D a plan may compute once for all targets
            and hand over as the argument ``full_importance``: ``class_path`` of the class that computes them,
            ``arguments`` that they depend on (the batch size of the data counts in any case), and ``where``, values
            of other arguments that have to hold. A class has to state it itself; empty shares nothing.
        compiles: whether ``torch.compile`` is for this method: False where it calls the network otherwise than with
            whole batches of its phases, so that compiling would be repeated within the measured time.
        finished: whether the work is done, so that :attr:`model` is M_u.

    Raises:
        ConfigError: if ``original`` is an ImageClassifier whose network has not been built yet.

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
    precisions: ClassVar[tuple[str, ...]] = ("float", "fp8", "int8-training")
    resumes: ClassVar[bool] = True
    reads_weights_early: ClassVar[bool] = False
    shared_importances: ClassVar[Mapping[str, Any]] = {}
    compiles: ClassVar[bool] = True

    def __init__(self, original: nn.Module, seed: int = 0) -> None:
        super().__init__()
        network = getattr(original, "model", None) if isinstance(original, DistributedModule) else original
        if network is None:
            raise ConfigError(f"Expected a {type(original).__name__} that has its network; fit it or give num_classes.")
        self.model = copy.deepcopy(network)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            self.model.requires_grad_(True)
        self.seed = seed
        self.request: ForgetRequest | None = None
        self.finished = False
        self._phase = -1
        self._plan: Sequence[Phase] = ()  # the phases of this fit

    # --- what a subclass writes

    @property
    def phases(self) -> Sequence[Phase]:
        """All phases of the work, in order; a fit reads them once :meth:`prepare` has run."""
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

    def release(self) -> None:
        """Let go of all that is not M_u, once the fit is over: gradients, and what a subclass has collected."""
        self.model.zero_grad()
        for name in self.frozen_names:
            setattr(self, name, None)

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
        if self.finished and self.phases:
            raise ConfigError(f"{type(self).__name__} has done its work; make a new one from M_o for another fit.")
        self.check(request, self.trainer)
        self.request, self._phase = request, -1
        self.finished = not self.phases
        self.prepare(request)
        self._plan = list(self.phases)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the next phase: mode, learning rate and state of the optimiser."""
        set_filler(self.model, batch.step.filler)
        if batch.step.phase == self._phase:
            return
        resumed = (batch.step.epoch, batch.step.number) != (0, 0)
        if self._phase < 0:
            self._plan = self._plan or list(self.phases)  # a subclass may have a setup of its own
            self._check_start(resumed or batch.step.phase > 0)
        self._phase = batch.step.phase
        phase = self._plan[self._phase]
        self.model.train(phase.mode == "train")
        optimizer = self.trainer.optimizers[0]
        if phase.lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = phase.lr
        if phase.reset_optimizer and not resumed:
            fresh_optimizer(optimizer)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Loss of the global batch, this rank's part."""
        phase = self._plan[batch.step.phase]
        with torch.autocast(self.device.type, enabled=False) if phase.full_precision else nullcontext():
            return self.mean_loss(self.loss(batch), batch)

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int) -> None:
        """Close the phase and, after the last batch, edit the weights and stop the Trainer."""
        if batch.step.last_of_phase:
            self.end_phase(batch.step.phase)
        if batch.step.last or (_is_trial(self.trainer) and self.trainer.is_last_batch):
            self.finish()
            self.model.eval()
            self.finished = True
            self.trainer.should_stop = True

    def on_fit_end(self) -> None:
        """Refuse to pass off a half-done model as M_u.

        Raises:
            ConfigError: if the Trainer stopped before the last batch.
        """
        super().on_fit_end()
        if not self.finished:
            raise ConfigError(
                f"{type(self).__name__} was stopped before its last batch, so there is no unlearned model; remove what "
                "stops the Trainer early (max_time, a callback) and start again."
            )

    def _check_start(self, resumed: bool) -> None:
        """Refuse a checkpoint from which the work cannot go on."""
        if self.trainer.current_epoch > 0:
            raise ConfigError(f"The checkpoint is of a finished {type(self).__name__}; its weights are those of M_u.")
        if resumed and not self.resumes:
            raise ConfigError(
                f"{type(self).__name__} cannot go on from a checkpoint; leave ckpt_path out and run it from the start."
            )

    def check(self, request: ForgetRequest, trainer: Trainer) -> None:
        """Find out whether the method can serve a request, and under which settings its weights would not be its own.

        Args:
            request: what is to be forgotten.
            trainer: the Trainer of the coming fit.

        Raises:
            NotApplicableError: if the method needs a class and the request names none.
            ConfigError: if the Trainer would silently change what the method does, or its precision does not suit.
        """
        name = type(self).__name__
        check_use(name, self.precisions, trainer.precision)
        if "class" in self.needs and request.forget_classes is None:
            raise NotApplicableError(
                f"{name} needs a class to forget, and this request forgets samples drawn at random; "
                "name the class (forget_class) or choose another method."
            )
        if trainer.accumulate_grad_batches != 1 or trainer.gradient_clip_val:
            raise ConfigError(
                f"{name} sets its own updates: expected accumulate_grad_batches=1 and no gradient clipping, got "
                f"{trainer.accumulate_grad_batches} and {trainer.gradient_clip_val}; leave both at their defaults."
            )
        if trainer.current_epoch > 0:
            raise ConfigError(f"{name} needs a Trainer that has fitted nothing yet; make a new one for each fit.")
        part = trainer.limit_train_batches != 1.0 or isinstance(trainer.limit_train_batches, int)  # 1 is one batch
        limited = trainer.max_steps != -1 or (trainer.min_epochs or 1) > 1 or trainer.min_steps is not None
        if not _is_trial(trainer) and (part or limited or trainer.max_epochs == 0):
            raise ConfigError(
                f"{name} knows how long it has to run: leave max_steps, min_steps, min_epochs and limit_train_batches "
                f"alone and max_epochs above 0 (got {trainer.max_steps}, {trainer.min_steps}, {trainer.min_epochs}, "
                f"{trainer.limit_train_batches} and {trainer.max_epochs}), or use fast_dev_run for a trial."
            )


def _is_trial(trainer: Trainer) -> bool:
    return bool(getattr(trainer, "fast_dev_run", False))


def check_positive(**values: float) -> None:
    """Refuse numbers that are not above 0.

    Args:
        values: numbers by the name of the argument.

    Raises:
        ConfigError: if one is 0, negative or NaN.

    Example:
        >>> check_positive(epochs=1, lr=0.1)
    """
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"Expected {name} > 0, got {value}.")


def fresh_optimizer(optimizer: Any) -> None:
    """Forget momentum and moments in place, so that the next step is the first."""
    state = getattr(optimizer, "optimizer", optimizer).state
    for entry in state.values():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                value.zero_()
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                entry[name] = type(value)(0)
