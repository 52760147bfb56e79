"""Modules that behave alike on any number of devices, and the doors to what the strategy decides.

Which strategy runs is asked here and in the two files beside it: :mod:`supreme.sharding` (parameters, piece by piece)
and :mod:`supreme.strategies` (strategies by name, the Trainer). Everything else imports their functions from here.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from supreme.batch import Batch
from supreme.batch_norm import exact_batch_norm, restore_batch_norm
from supreme.errors import ConfigError
from supreme.outline import DrawnWeights, fill, is_outline, outline
from supreme.sharding import (
    add_to_gradient,
    all_extremes,
    all_sum,
    full_state_dict,
    fused,
    is_split,
    layout,
    local_gradient,
    local_piece,
    local_weight,
    loss_scale,
    pieces,
    rank,
    reshard,
    set_weight,
    sgd,
    shard,
    whole_norm,
    whole_piece,
    world_size,
)
from supreme.strategies import (
    FSDP2,
    ZeRO,
    check_gradients,
    check_strategy,
    evaluation_strategy,
    hushed,
    matmul_precision,
    quiet_trainer,
    ranks_needed,
    resolve_strategy,
    splits_weights,
)

__all__ = [
    "DistributedModule",
    "FSDP2",
    "Frozen",
    "NoStep",
    "ZeRO",
    "add_to_gradient",
    "all_extremes",
    "all_sum",
    "check_gradients",
    "drops",
    "evaluation_strategy",
    "full_state_dict",
    "fused",
    "hushed",
    "is_split",
    "layout",
    "local_gradient",
    "local_piece",
    "local_weight",
    "loss_scale",
    "matmul_precision",
    "pieces",
    "quiet_trainer",
    "rank",
    "ranks_needed",
    "reshard",
    "resolve_strategy",
    "set_weight",
    "sgd",
    "splits_weights",
    "whole_norm",
    "whole_piece",
    "world_size",
]


_RATES = ("dropout", "attention_dropout", "dropout_prob")  # of layers that drop values beside what else they do
_PLAIN = (str, type(None), bool, int, float)


class NoStep(torch.optim.Optimizer):
    """An optimiser that runs the closure and leaves the weights as they are, for methods that edit weights once."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.0})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Compute the gradients only."""
        if closure is None:
            return None
        with torch.enable_grad():
            return closure()


class Frozen:
    """A frozen model in evaluation mode that is no submodule: it is neither trained, saved nor set to train mode.

    Under FSDP2 it is sharded like the trained model; under DDP and DeepSpeed every rank holds it whole.

    Args:
        model: taken over as it is; its parameters stop requiring gradients.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model.requires_grad_(False).eval()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n, K) without gradient."""
        with torch.no_grad():
            logits: Tensor = self.model(images)
        return logits


class DistributedModule(LightningModule):
    """A LightningModule with a network ``model`` that behaves alike on any number of devices.

    It shards the network where the strategy shards, replaces BatchNorm statistics by those of the global batch and
    keeps filler rows out of them.
    """

    model: nn.Module
    frozen_names: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """Change an attribute that is there and is no part of the network without a look at the network.

        The Trainer notes the name of every hook that it calls in the module, dozens of times a step.
        """
        own = self.__dict__
        if name in own and type(value) in _PLAIN:
            own[name] = value
        else:
            super().__setattr__(name, value)

    def configure_model(self) -> None:
        """Shard the network and the frozen models under FSDP2, then read weights that are still to come.

        Other strategies wrap by themselves.

        Raises:
            ConfigError: under tensor parallelism.
        """
        mesh = self.device_mesh
        if mesh is not None and mesh["tensor_parallel"].size() > 1:
            raise ConfigError('Expected all devices to be data parallel, got tensor parallelism; use strategy "fsdp".')
        for network in (self.model, *(frozen.model for frozen in self._frozen())):
            if mesh is not None:
                shard(network, mesh["data_parallel"])
            if is_outline(network):
                fill(network, self.trainer.strategy.root_device)  # the module's own device is still the host

    def laid_out(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The network that a function makes.

        Under FSDP2 its outline, where that is possible: rank 0 makes the network on the host and the others receive
        their share of it. Elsewhere the network itself.

        Args:
            make: gives the network; equal on every rank.
        """
        found = outline(make, DrawnWeights(make)) if self.device_mesh is not None else None
        return make() if found is None else found

    def on_fit_start(self) -> None:
        """Enter train mode, move the frozen models to the device and make BatchNorm exact.

        Warns where the number of processes will change the result: dropout draws from each process's own generator.
        """
        self.train()
        self.place_frozen()
        exact_batch_norm(self.model)
        if self.trainer.world_size > 1 and self.trainer.is_global_zero:
            self._warn_of_dropout()

    def _warn_of_dropout(self) -> None:
        found = next((name for name, module in self.model.named_modules() if drops(module)), None)
        if found is not None:
            warnings.warn(
                f"'{found}' drops values at random in each process on its own, so weights that are trained in "
                f"{self.trainer.world_size} processes differ from those of one; set its rate to 0 to compare them.",
                stacklevel=2,
            )

    def on_fit_end(self) -> None:
        """Give BatchNorm its own forward back."""
        restore_batch_norm(self.model)

    def place_frozen(self) -> None:
        """Move the frozen models to the device and, where the precision converted the network, to its type.

        Raises:
            ConfigError: under Lightning's first FSDP, and where several processes form no group of torch.distributed.
        """
        check_strategy(self.trainer.strategy)
        if self.trainer.world_size > 1 and world_size() == 1:  # each would take its share of the data for all of them
            raise ConfigError(
                f"Expected processes that form a group of torch.distributed, but the {self.trainer.world_size} of "
                f"{type(self.trainer.strategy).__name__} do not; use one core, or GPUs or CPUs."
            )
        for frozen in self._frozen():
            frozen.model = self.trainer.precision_plugin.convert_module(frozen.model)
            ours, theirs = (_float_type(network) for network in (self.model, frozen.model))
            frozen.model.to(self.device, ours if ours != theirs else None)

    def mean_loss(self, losses: Tensor, batch: Batch) -> Tensor:
        """Loss whose gradient, averaged over ranks, is that of the global batch.

        Args:
            losses: float (n,), one value per row.
            batch: the rows.
        """
        counted = batch.weight.to(losses.dtype) * losses if batch.step.filler else losses
        return counted.sum() * batch.step.scale

    def _frozen(self) -> Iterator[Frozen]:
        for name in self.frozen_names:
            frozen = getattr(self, name, None)
            if isinstance(frozen, Frozen):
                yield frozen


def drops(module: nn.Module) -> bool:
    """Whether a module drops values at random while it is trained.

    Known are torch's dropout layers, its recurrent layers and attention, torchvision's StochasticDepth, and layers of
    other packages with the words dropout or drop path in their class name or a rate called so (transformers, timm).

    Example:
        >>> drops(nn.Dropout(0.1)), drops(nn.Dropout(0.0)), drops(nn.Linear(2, 2))
        (True, False, False)
    """
    name = type(module).__name__.lower()
    named = any(word in name for word in ("dropout", "droppath", "stochasticdepth"))
    rates = (*_RATES, "p", "drop_prob") if named else _RATES
    values = (vars(module).get(rate) for rate in rates)
    return any(isinstance(value, (int, float)) and value > 0 for value in values)


def _float_type(network: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
