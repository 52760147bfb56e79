"""The only file that asks which strategy runs: shards of parameters, shares of global batches, the Trainer.

Four layouts of a parameter exist: whole on every rank (one process, DDP), a DTensor shard (FSDP2), a whole parameter
with a partitioned master copy (DeepSpeed ZeRO-1 and 2), and a flat partition (ZeRO-3). Everything else in the package
goes through the functions below and never sees the difference.
"""

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from supreme.batch import Batch
from supreme.batch_norm import exact_batch_norm, restore_batch_norm
from supreme.errors import ConfigError

Layout = Literal["whole", "dtensor", "master", "flat"]


class FSDP2(ModelParallelStrategy):
    """Fully sharded data parallel over all devices (torch ``fully_shard``), without tensor parallelism.

    Lightning's model-parallel strategy puts the devices of a node into one tensor-parallel group by default; this class
    makes all of them data parallel. The modules of this package shard themselves in ``configure_model``.

    Example:
        >>> strategy = FSDP2(save_distributed_checkpoint=False)
    """

    def setup_environment(self) -> None:
        """Make every process a member of the data-parallel group."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()


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

    def configure_model(self) -> None:
        """Shard the network and the frozen models under FSDP2; other strategies wrap by themselves.

        Raises:
            ConfigError: under tensor parallelism.
        """
        mesh = self.device_mesh
        if mesh is None:
            return
        if mesh["tensor_parallel"].size() > 1:
            raise ConfigError('Expected all devices to be data parallel, got tensor parallelism; use strategy "fsdp".')
        for network in (self.model, *(frozen.model for frozen in self._frozen())):
            _fully_shard(network, mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Enter train mode, move the frozen models to the device and make BatchNorm exact."""
        self.train()
        self.place_frozen()
        exact_batch_norm(self.model)

    def on_fit_end(self) -> None:
        """Give BatchNorm its own forward back."""
        restore_batch_norm(self.model)

    def place_frozen(self) -> None:
        """Move the frozen models to the device and, where the precision converted the network, to its type.

        Raises:
            ConfigError: under Lightning's first FSDP.
        """
        _check_strategy(self.trainer.strategy)
        for frozen in self._frozen():
            ours, theirs = (_float_type(network) for network in (self.model, frozen.model))
            frozen.model.to(self.device, ours if ours != theirs else None)

    def mean_loss(self, losses: Tensor, batch: Batch) -> Tensor:
        """Loss whose gradient, averaged over ranks, is that of the global batch.

        Args:
            losses: float (n,), one value per row.
            batch: the rows.
        """
        return (batch.weight.to(losses.dtype) * losses).sum() * batch.step.scale

    def _frozen(self) -> Iterator[Frozen]:
        for name in self.frozen_names:
            frozen = getattr(self, name, None)
            if isinstance(frozen, Frozen):
                yield frozen


def _float_type(network: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)


def world_size() -> int:
    """Number of processes of the group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, 0 without a group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_sum(value: Tensor) -> Tensor:
    """Sum over ranks, in place; the same tensor without a process group."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def all_extremes(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum of ``low`` and maximum of ``high`` over ranks, in place."""
    if world_size() > 1:
        dist.all_reduce(low, op=dist.ReduceOp.MIN)
        dist.all_reduce(high, op=dist.ReduceOp.MAX)
    return low, high


# --- parameters, piece by piece -------------------------------------------------------------------------------------


def layout(parameter: Tensor) -> Layout:
    """How the strategy holds a parameter."""
    if hasattr(parameter, "ds_id"):
        return "flat"
    if hasattr(parameter, "_hp_mapping"):
        return "master"
    return "dtensor" if isinstance(parameter, DTensor) else "whole"


def pieces(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters that learn, in the module's order."""
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def is_split(parameter: Tensor) -> bool:
    """Whether each rank holds a part of the parameter only, so that sums over ranks count it once."""
    return layout(parameter) in ("flat", "dtensor")


@torch.no_grad()
def local_weight(parameter: Tensor) -> Tensor:
    """This rank's piece of a parameter, in the master precision; do not write to it."""
    kind = layout(parameter)
    if kind in ("whole", "dtensor"):
        return _local(parameter.detach())
    if kind == "flat":
        return _without_padding(parameter, _flat_weight(parameter))
    piece: Tensor = _zero().safe_get_full_fp32_param(parameter)
    return piece


@torch.no_grad()
def local_piece(parameter: Any, value: Tensor) -> Tensor:
    """This rank's piece of a tensor, shaped as :func:`local_weight` of the parameter.

    Args:
        parameter: says how the tensor is to be split.
        value: of the parameter's whole shape; whole on every rank, or split as the parameter is.
    """
    kind, device = layout(parameter), local_weight(parameter).device
    if kind == "dtensor" and layout(value) == "whole":
        value = distribute_tensor(value.detach().to(device), parameter.device_mesh, parameter.placements)
    if kind == "flat" and layout(value) != "flat":
        size = _flat_weight(parameter).numel()
        return value.detach().flatten()[rank() * size :][:size].to(device)
    return local_weight(value).to(device)


@torch.no_grad()
def local_gradient(parameter: Tensor) -> Tensor:
    """This rank's piece of the gradient, averaged over ranks, shaped as :func:`local_weight`; zeros without one."""
    kind = layout(parameter)
    if kind == "flat":
        return _without_padding(parameter, _zero().safe_get_local_grad(parameter))
    if kind == "master":
        gradient = _zero().safe_get_full_grad(parameter)
    else:
        gradient = None if parameter.grad is None else _local(parameter.grad)
    return torch.zeros_like(local_weight(parameter)) if gradient is None else gradient


@torch.no_grad()
def add_to_gradient(parameter: Tensor, value: Tensor) -> None:
    """Add ``value`` (shaped as :func:`local_weight`) to this rank's piece of the gradient."""
    kind = layout(parameter)
    if kind == "flat":
        gradient = _zero().safe_get_local_grad(parameter).clone()
        _without_padding(parameter, gradient).add_(value)
        _zero().safe_set_local_grad(parameter, gradient)
    elif kind == "master":
        _zero().safe_set_full_grad(parameter, local_gradient(parameter) + value)
    elif parameter.grad is not None:
        _local(parameter.grad).add_(value)


@torch.no_grad()
def set_weight(parameter: Tensor, value: Tensor) -> None:
    """Write this rank's piece of a parameter, in the working copy and in the optimiser's master copy."""
    kind = layout(parameter)
    if kind in ("whole", "dtensor"):
        _local(parameter).copy_(value)
    elif kind == "master":
        _zero().safe_set_full_fp32_param(parameter, value)
        parameter.data.copy_(value)
    else:
        _set_flat(parameter, value)


def _set_flat(parameter: Tensor, value: Tensor) -> None:
    """ZeRO-3 keeps a master piece and a working piece; both have to be set."""
    piece = _flat_weight(parameter).clone()
    _without_padding(parameter, piece).copy_(value)
    _zero().safe_set_local_fp32_param(parameter, piece)
    whole = _zero().safe_get_full_fp32_param(parameter)
    gathered = importlib.import_module("deepspeed").zero.GatheredParameters
    with gathered([parameter], modifier_rank=0):
        if rank() == 0:
            parameter.data.copy_(whole)


def _zero() -> Any:
    return importlib.import_module("deepspeed.utils")


def _flat_weight(parameter: Any) -> Tensor:
    """This rank's flat piece, padding included: of the master copy, or of the weights where nothing is trained."""
    trained = hasattr(parameter, "_z3_optimizer") and parameter.requires_grad
    piece: Tensor = _zero().safe_get_local_fp32_param(parameter) if trained else parameter.ds_tensor.detach().flatten()
    return piece


def _without_padding(parameter: Any, piece: Tensor) -> Tensor:
    """A view of the elements that belong to the parameter; what DeepSpeed appends is not initialised."""
    return piece[: max(0, parameter.ds_numel - rank() * piece.numel())]


def _local(tensor: Tensor) -> Tensor:
    piece: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return piece


def whole_norm(parameter: Tensor, piece: Tensor) -> Tensor:
    """L2 norm of a tensor of which ``piece`` is this rank's part, in float64 (a scalar, equal on every rank)."""
    square = piece.double().square().sum()
    return (all_sum(square) if is_split(parameter) else square).sqrt()


def loss_scale(module: LightningModule) -> float:
    """Factor by which the precision plug-in multiplies gradients (16-mixed), else 1."""
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0


def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Whole weights and buffers on the CPU; every rank has to call and gets them."""
    if any(layout(p) == "flat" for p in module.parameters()):
        gathered = importlib.import_module("deepspeed").zero.GatheredParameters
        with gathered(list(module.parameters())):
            return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
    state = module.state_dict().items()
    whole = ((name, value.full_tensor() if isinstance(value, DTensor) else value) for name, value in state)
    return {name: value.detach().cpu().clone() for name, value in whole}


def reshard(*networks: nn.Module) -> None:
    """Split parameters again that a forward pass without a backward pass has left whole under FSDP2."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _fully_shard(network: nn.Module, mesh: Any) -> None:
    """Shard each child and then the network; children that share parameters stay in the network's own group."""
    if isinstance(network, FSDPModule):
        return
    children = list(_callable_children(network))
    owned = sum(len(list(child.parameters())) for child in children)
    if owned == len({id(p) for child in children for p in child.parameters()}):
        for child in children:
            fully_shard(child, mesh=mesh)
    fully_shard(network, mesh=mesh)


def _callable_children(network: nn.Module) -> Iterator[nn.Module]:
    """Children with parameters and a forward pass; containers without one give theirs."""
    for child in network.children():
        if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            yield from _callable_children(child)
        elif any(True for _ in child.parameters()):
            yield child


def _check_strategy(strategy: Strategy | str | None) -> None:
    if isinstance(strategy, FSDPStrategy) or (isinstance(strategy, str) and strategy.startswith("fsdp_")):
        raise ConfigError('Expected FSDP2 in place of Lightning\'s FSDPStrategy; use strategy "fsdp".')


# --- the Trainer -----------------------------------------------------------------------------------------------------


def resolve_strategy(strategy: str | Strategy) -> str | Strategy:
    """The strategy that a name stands for here: ``"fsdp"`` is :class:`FSDP2`, the others are Lightning's.

    Raises:
        ConfigError: for Lightning's first FSDP, which several methods cannot run on.
    """
    _check_strategy(strategy)
    return FSDP2(save_distributed_checkpoint=False) if strategy in ("fsdp", "fsdp2") else strategy


def quiet_trainer(
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str | Strategy = "auto",
    precision: Any = "32-true",
    **arguments: Any,
) -> Trainer:
    """A Trainer without logger, checkpoint, bar or summary, for work that reports in another way."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = {**dict.fromkeys(off, False), "num_sanity_val_steps": 0}
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=resolve_strategy(strategy),
        precision=precision,
        **(quiet | arguments),
    )


@contextmanager
def hushed() -> Iterator[None]:
    """Keep Lightning's notices about devices and unused settings out of the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning|torch|torchmetrics|jsonargparse")
            warnings.filterwarnings("ignore", message=".*(LeafSpec|litlogger|num_workers|lr_scheduler.step).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
