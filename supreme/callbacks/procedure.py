"""What "the procedure alone" means: the stretch of a fit over which time, memory and utilisation are measured."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

Event = Literal["enter", "leave", "save", "fetch"]

_ENTER = ("on_train_start", "on_train_epoch_start", "on_train_batch_start")
_LEAVE = ("on_train_epoch_end", "on_train_end")


class Procedure(Callback):
    """Base of callbacks that measure the training or unlearning procedure alone.

    The stretch opens when the module's ``on_train_start`` begins: after set-up, after wrapping by the strategy and
    after the ``on_train_start`` of all callbacks. It closes when the module's last ``on_train_batch_end`` is over, so
    edits of weights made there are inside. Validation, everything at the end of an epoch (the module's own
    ``on_train_epoch_end`` too) and every saved checkpoint are outside, also checkpoints saved between two steps.
    Other callbacks' work between steps is inside unless they do it under :func:`unmeasured`.

    No callback hook lies right after the module's ``on_train_batch_end`` or around a save. The Trainer names each
    hook, save and fetch to its profiler, so for the length of the fit the profiler is wrapped in one that passes
    every call on and also tells the measuring callbacks. The position in the list of callbacks does not matter.

    A subclass implements :meth:`resume` and :meth:`suspend`, and :meth:`begin`, :meth:`finish`, :meth:`abort` and
    :meth:`resources` where it needs them.

    Attributes:
        first_out: whether this one stops before, and starts after, the other measurements, so that their own work
            is not in its figure.
    """

    first_out: ClassVar[bool] = False

    def __init__(self, include_data: bool = True) -> None:
        self.include_data = include_data
        self._trainer: Trainer | None = None
        self._begun = False
        self._running = False
        self._interrupted = False

    def begin(self, trainer: Trainer) -> None:
        """Prepare once, just before the procedure starts; every rank calls it."""

    def resume(self) -> None:
        """Start measuring, at the beginning and after each interruption."""
        raise NotImplementedError

    def suspend(self) -> None:
        """Stop measuring, before each interruption and at the end."""
        raise NotImplementedError

    def finish(self, trainer: Trainer) -> None:
        """Make the result; every rank calls it, so reductions over ranks are allowed."""

    def abort(self) -> None:
        """Let go of threads after an exception; must not wait for the device or for other ranks."""

    def resources(self) -> dict[str, float | None]:
        """Results by record key, empty before the end of the procedure."""
        return {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the trainer from now on."""
        watch = _profiler(trainer)
        if not isinstance(watch, _Watch):
            watch = _Watch(watch)
            _replace_profiler(trainer, watch)
        watch.listeners.append(self)
        self._trainer = trainer

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, combine over ranks, and publish the results in ``trainer.callback_metrics`` too."""
        self._close()
        begun = self._begun
        self._detach(trainer)
        if begun:
            self.finish(trainer)
            found = {key: value for key, value in self.resources().items() if value is not None}
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in found.items()})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop without a result."""
        self._release(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop, should the fit have ended by an unusual way."""
        self._release(trainer)

    def _release(self, trainer: Trainer) -> None:
        if self._trainer is not None:
            self._detach(trainer)
            self.abort()

    def _detach(self, trainer: Trainer) -> None:
        self._trainer, self._begun, self._running, self._interrupted = None, False, False, False
        watch = _profiler(trainer)
        if isinstance(watch, _Watch):
            watch.listeners = [listener for listener in watch.listeners if listener is not self]
            if not watch.listeners:
                _replace_profiler(trainer, watch.inner)

    def _notice(self, event: Event, starting: bool) -> None:
        if event == "enter" and starting:
            self._open()
        elif event == "leave" and starting:
            self._close()
        elif event == "save" and starting:
            self._interrupted = self._running
            self._close()
        elif event == "save" and self._interrupted:
            self._open()
        elif event == "fetch" and self._begun:
            if starting and not self.include_data:
                self._close()
            else:
                self._open()

    def _open(self) -> None:
        if self._running or self._trainer is None:
            return
        if not self._begun:
            self.begin(self._trainer)
            self._begun = True
        self._running = True
        self.resume()

    def _close(self) -> None:
        if self._running:
            self._running = False
            self.suspend()


class _Watch(Profiler):
    """Passes every action on to the trainer's own profiler and tells the listeners which of them matter."""

    def __init__(self, inner: Profiler) -> None:
        super().__init__()
        self.inner = inner
        self.listeners: list[Procedure] = []

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        return self.inner.profile(action_name) if _event(action_name) is None else super().profile(action_name)

    def start(self, action_name: str) -> None:
        self.inner.start(action_name)
        event = _event(action_name)
        if event is not None:
            self._tell(event, True)

    def stop(self, action_name: str) -> None:
        event = _event(action_name)
        if event in ("save", "fetch"):
            self._tell(event, False)
        self.inner.stop(action_name)

    def _tell(self, event: Event, starting: bool) -> None:
        for listener in _in_order(self.listeners, closing=starting and event != "enter"):
            listener._notice(event, starting)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


def _profiler(trainer: Any) -> Profiler:
    """The trainer's profiler, an attribute that Lightning does not declare in the class."""
    profiler: Profiler = trainer.profiler
    return profiler


def _replace_profiler(trainer: Any, profiler: Profiler) -> None:
    trainer.profiler = profiler


@lru_cache(maxsize=4096)
def _event(action_name: str) -> Event | None:
    """Meaning of an action that Lightning announces, for example ``"[LightningModule]Net.on_train_start"``."""
    owner, _, hook = action_name.rpartition(".")
    if owner.startswith("[LightningModule]") and hook in _ENTER:
        return "enter"
    if hook in _LEAVE or hook.startswith("on_validation_"):
        return "leave"
    if hook == "train_dataloader_next":
        return "fetch"
    return "save" if action_name == "save_checkpoint" else None


def _in_order(listeners: list[Procedure], closing: bool) -> list[Procedure]:
    return sorted(listeners, key=lambda listener: listener.first_out, reverse=closing)


@contextmanager
def unmeasured(trainer: Trainer) -> Iterator[None]:
    """Keep the work inside the block out of every measurement of this trainer, for example a curve's evaluation.

    Every rank must enter the block, since the clock waits for the device.

    Args:
        trainer: the trainer whose callbacks may hold measurements.

    Example:
        >>> with unmeasured(Trainer(logger=False, enable_checkpointing=False)):
        ...     curve = [0.5]
    """
    watch = _profiler(trainer)
    found = [listener for listener in watch.listeners if listener._running] if isinstance(watch, _Watch) else []
    for callback in _in_order(found, closing=True):
        callback._close()
    try:
        yield
    finally:
        for callback in _in_order(found, closing=False):
            callback._open()


def over_ranks(trainer: Trainer, value: float | None, how: Literal["max", "mean", "sum"]) -> float | None:
    """Combine one number of each rank; None as soon as a rank has none.

    Args:
        trainer: its strategy gathers, which all of them can, while not all take maxima; every rank must call.
        value: this rank's number.
        how: the reduction.

    Returns:
        The combined number, equal on every rank.

    Example:
        >>> over_ranks(Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", devices=1), 2.5, "max")
        2.5
    """
    if trainer.world_size == 1:
        return value
    known = math.inf if value is None else value
    number = torch.tensor(known, dtype=torch.float64, device=trainer.strategy.root_device)
    gathered = trainer.strategy.all_gather(number).flatten()
    reduced = float({"max": gathered.max(), "mean": gathered.mean(), "sum": gathered.sum()}[how])
    return reduced if math.isfinite(reduced) else None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all work that it was given; nothing to wait for on a CPU.

    Example:
        >>> synchronise(torch.device("cpu"))
    """
    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type == "xla":
        xla = import_module("torch_xla.core.xla_model")
        xla.mark_step()  # what has been asked for is computed only now
        xla.wait_device_ops()
    elif device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
