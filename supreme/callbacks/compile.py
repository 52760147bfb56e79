"""Compiling the network of a fit, outside the measured time."""

import importlib.util
from contextlib import nullcontext
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from supreme.batch import laid_out_as
from supreme.callbacks.procedure import unmeasured
from supreme.distributed import FSDP2, ZeRO
from supreme.errors import ConfigError
from supreme.precision import kind_of

_MANY = 20_000  # batches of a fit from which compiling, some tens of seconds, is expected to pay


class Compile(Callback):
    """Compile the network of a fit with ``torch.compile``; names of weights stay as they are.

    The network is compiled in place for the time of the fit and warmed up before the first batch for every shape and
    mode that the phases have; buffers, modes and generators are put back. That is outside of every measurement, so
    ``time_s`` has no compilation in it. Teachers and other frozen models, evaluation, and methods that say so
    (``compiles = False``) are not compiled. Inductor draws dropout masks of its own.

    Args:
        when: True compiles in every fit; ``"auto"`` on one CUDA device with Triton, for fits of at least 20,000 batches
            in floating point, and where compiling fails it goes on without, with a warning; False never.
        backend: of ``torch.compile``.

    Raises:
        ConfigError: for another value, or under FSDP2 and DeepSpeed.

    Example:
        >>> Compile("auto").when
        'auto'
    """

    def __init__(self, when: bool | Literal["auto"] = "auto", backend: str = "inductor") -> None:
        if when not in (True, False, "auto"):
            raise ConfigError(f"Expected compile to be true, false or auto, got {when!r}.")
        self.when, self.backend = when, backend
        self.compiled = False
        self._due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide, and compile; the code is generated in the first batch."""
        self.compiled = self._due = self._wanted(trainer, pl_module)
        if self._due:
            _network(pl_module).compile(backend=self.backend, dynamic=False)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Warm up before the first batch."""
        if not self._due:
            return
        self._due = False
        try:
            with unmeasured(trainer):
                _warm_up(trainer, pl_module, batch.image)
        except Exception as error:  # a compiler can fail in almost any way
            if self.when != "auto":
                raise
            self.compiled = False
            _undo(pl_module)
            rank_zero_warn(f"{type(pl_module).__name__} goes on without torch.compile, which failed: {error}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the network as it was: what comes after has other shapes."""
        _undo(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the network as it was."""
        _undo(pl_module)

    def _wanted(self, trainer: Trainer, module: LightningModule) -> bool:
        if self.when is False or not isinstance(getattr(module, "model", None), nn.Module):
            return False
        if not getattr(module, "compiles", True):
            return False
        if isinstance(trainer.strategy, FSDP2 | ZeRO):  # splits the weights, or has an engine of its own
            if self.when == "auto":
                return False
            raise ConfigError(
                "Expected a strategy that leaves the network whole for compile, got "
                f"{type(trainer.strategy).__name__}; use auto or ddp, or leave compile out."
            )
        return self.when is True or _pays(trainer)


def _pays(trainer: Trainer) -> bool:
    on_cuda = trainer.strategy.root_device.type == "cuda" and importlib.util.find_spec("triton") is not None
    enough = trainer.num_training_batches * max(1, trainer.max_epochs or 1) >= _MANY
    return on_cuda and enough and trainer.world_size == 1 and kind_of(trainer.precision) == "float"


def _network(module: Any) -> nn.Module:
    network: nn.Module = module.model
    return network


def _undo(module: LightningModule) -> None:
    network = getattr(module, "model", None)
    if isinstance(network, nn.Module):
        vars(network).pop("_compiled_call_impl", None)  # what Module.compile has set; nothing public takes it


def _warm_up(trainer: Trainer, module: LightningModule, images: Tensor) -> None:
    """Forward and backward for every shape and mode of the fit, without a trace in the network."""
    network, modes = _network(module), {part: part.training for part in _network(module).modules()}
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    learnable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        with torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
            for mode, exact, rows in _kinds(trainer, module, len(images)):
                network.train(mode == "train")
                autocast = torch.autocast(images.device.type, enabled=False) if exact else nullcontext()
                with trainer.precision_plugin.forward_context(), autocast:
                    zeros = torch.zeros(rows, *images.shape[1:], dtype=images.dtype, device=images.device)
                    total = network(laid_out_as(zeros, images)).float().sum()
                    torch.autograd.grad(total, learnable, allow_unused=True)
    finally:
        for part, training in modes.items():
            part.training = training
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def _kinds(trainer: Trainer, module: Any, rows: int) -> list[tuple[str, bool, int]]:
    """Mode, whether autocast is off, and rows of this rank's batches; as many on every rank."""
    sizes = getattr(trainer.train_dataloader, "sizes", None)
    if sizes is None:  # no loader of a scenario
        return [("train", False, rows)]
    found = dict.fromkeys((phase.mode, phase.full_precision, size) for phase, size in sizes())
    rank, world = trainer.global_rank, trainer.world_size
    return [(mode, exact, len(range(rank, size, world)) or 1) for mode, exact, size in found]
