"""Compiling the network of a fit, outside the measured time."""

import importlib.util
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from supreme.callbacks.procedure import unmeasured
from supreme.distributed import FSDP2, ZeRO
from supreme.errors import ConfigError
from supreme.precision import kind_of

_MANY = 2000  # batches of a fit from which compiling, some tens of seconds, is expected to pay


class Compile(Callback):
    """Compile the network of a fit with ``torch.compile``; names of weights stay as they are.

    The network is compiled in place and warmed up on the first batch and on a smaller one, with its buffers and the
    generators put back afterwards and outside of every measurement, so ``time_s`` has no compilation in it (but for a
    mode or a shape that comes up later). Teachers and other frozen models, and evaluation, are not compiled.

    Args:
        when: True compiles in every fit; ``"auto"`` on one CUDA device with Triton, for fits of at least 2,000 batches
            in floating point; False never.
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
            _network(pl_module).compile(backend=self.backend)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Warm up before the first batch."""
        if self._due:
            self._due = False
            with unmeasured(trainer):
                _warm_up(trainer, _network(pl_module), batch.image)

    def _wanted(self, trainer: Trainer, module: LightningModule) -> bool:
        if self.when is False or not isinstance(getattr(module, "model", None), nn.Module):
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


def _warm_up(trainer: Trainer, network: nn.Module, images: Tensor) -> None:
    """Forward and backward on the images and on one fewer, without a trace in the network."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    learnable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
        for count in sorted({len(images), max(1, len(images) - 1)}, reverse=True):
            total = network(images[:count]).float().sum()
            torch.autograd.grad(total, learnable, allow_unused=True)
    with torch.no_grad():
        for buffer, value in kept:
            buffer.copy_(value)
