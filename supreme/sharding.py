"""Shards: parameters piece by piece, whatever layout the strategy gives them, and sums over ranks.

Four layouts of a parameter exist: whole on every rank (one process, DDP), a DTensor shard (FSDP2), a whole parameter
with a partitioned master copy (DeepSpeed ZeRO-1 and 2), and a flat partition (ZeRO-3). Everything else in the package
goes through the functions below and never sees the difference.
"""

import importlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

Layout = Literal["whole", "dtensor", "master", "flat"]
SomeSGD = TypeVar("SomeSGD", bound=torch.optim.SGD)
_FUSED = ("cpu", "cuda", "mps", "xpu")  # kinds of device for which torch has optimisers of one kernel
_LISTS = (nn.ModuleList, nn.ModuleDict)  # containers without a forward pass


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


def fused(parameters: Iterable[nn.Parameter]) -> bool | None:
    """What the argument ``fused`` of an optimiser has to be: one kernel for all parameters where torch has it.

    Args:
        parameters: what the optimiser is to train, on the device where it will.

    Returns:
        True on CPUs and GPUs; None, which leaves the choice to torch, on other devices: XLA's raises at the first step.

    Example:
        >>> fused(nn.Linear(2, 2).parameters()), fused(nn.Linear(2, 2, device="meta").parameters())
        (True, None)
    """
    return True if all(parameter.device.type in _FUSED for parameter in parameters) else None


def sgd(
    parameters: Iterable[nn.Parameter],
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    kind: type[SomeSGD] = torch.optim.SGD,  # type: ignore[assignment]
) -> SomeSGD:
    """SGD, or a kind of it, in one kernel where torch has one: not for the parameters of FSDP2."""
    found = list(parameters)
    together = None if any(layout(parameter) == "dtensor" for parameter in found) else fused(found)
    return kind(found, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=together)


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
def whole_piece(parameter: Any, piece: Tensor) -> Tensor:
    """The whole tensor of which every rank has a piece, as :func:`local_piece` cut it; every rank has to call.

    Args:
        parameter: says how the tensor is split.
        piece: this rank's part.
    """
    kind = layout(parameter)
    if kind == "dtensor":
        shape = {"shape": parameter.shape, "stride": parameter.stride()}
        whole: Tensor = DTensor.from_local(piece, parameter.device_mesh, parameter.placements, **shape).full_tensor()
        return whole
    if kind != "flat":
        return piece
    padded = torch.zeros_like(_flat_weight(parameter), dtype=piece.dtype)
    padded[: piece.numel()] = piece
    gathered = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(gathered, padded)
    return torch.cat(gathered)[: parameter.ds_numel].view(parameter.ds_shape)


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
    """L2 norm of a tensor of which ``piece`` is this rank's part: a scalar, equal on every rank.

    In float64, or in float32 on MPS, which knows no other.
    """
    square = piece.to(torch.float32 if piece.device.type == "mps" else torch.float64).square().sum()
    return (all_sum(square) if is_split(parameter) else square).sqrt()


def loss_scale(module: LightningModule) -> float | Tensor:
    """Factor by which the precision plug-in, or DeepSpeed's optimiser, multiplies gradients (16-mixed), else 1.

    That of a plug-in is a float32 scalar on the device, which nobody waits for.
    """
    scaler = getattr(module.trainer.precision_plugin, "scaler", None)
    if scaler is not None:
        scale: Tensor = scaler.scale(torch.ones((), device=module.device))
        return scale
    return float(next((getattr(optimizer, "loss_scale", 1.0) for optimizer in module.trainer.optimizers), 1.0))


@torch.no_grad()
def full_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Whole weights and buffers on the CPU; every rank has to call and gets them.

    A device holds one whole tensor at a time beside its own pieces.
    """
    return {name: _on_host(value) for name, value in _state(module)}


def _on_host(value: Tensor) -> Tensor:
    """A copy on the CPU of a whole parameter or buffer."""
    if layout(value) == "flat":
        with importlib.import_module("deepspeed").zero.GatheredParameters([value]):
            return value.detach().cpu().clone()
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.detach().cpu().clone()


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers without what layers of a precision keep beside them (transformer-engine's scales)."""
    state = module.state_dict(keep_vars=True)  # the parameters themselves, which know how they are split
    return ((name, value) for name, value in state.items() if not name.endswith("_extra_state"))


def reshard(*networks: nn.Module) -> None:
    """Split parameters again that a forward pass without a backward pass has left whole under FSDP2."""
    for network in networks:
        for module in network.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def shard(network: nn.Module, mesh: Any) -> None:
    """Shard the blocks of a network, its children and then itself (FSDP2), so that a pass gathers one at a time.

    A block is an element, of several layers, of a list or sequence at any depth. A module that shares a parameter with
    another part of the network goes with the unit that holds both.

    Args:
        network: sharded in place; one that is sharded already stays as it is.
        mesh: the data-parallel mesh.
    """
    if isinstance(network, FSDPModule):
        return
    everywhere, chosen = _uses(network), []
    for unit in _units(network):
        own = _uses(unit)
        if own and all(everywhere[parameter] == count for parameter, count in own.items()):
            chosen.append(unit)
    for unit in (*chosen, network):  # only now, as parameters are replaced by others
        fully_shard(unit, mesh=mesh)


def _uses(module: nn.Module) -> Counter[int]:
    """How often each parameter, by its identity, stands in a module."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))


def _units(network: nn.Module) -> Iterator[nn.Module]:
    """Children, and the blocks below each before it; containers without a forward pass give theirs."""
    for child in network.children():
        if isinstance(child, _LISTS):
            yield from _units(child)
        else:
            yield from _blocks(child)
            yield child


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Elements of several layers of the lists and sequences below a module, inner ones first."""
    for child in module.children():
        yield from _blocks(child)
        several = any(True for _ in child.children()) and not isinstance(child, _LISTS)
        if several and isinstance(module, (*_LISTS, nn.Sequential)):
            yield child


def local_rows(tensor: Tensor) -> tuple[Tensor, slice | None]:
    """This rank's piece of a parameter or buffer, and which rows of the whole it is; None for all of them.

    ``fully_shard`` splits the first dimension as ``torch.chunk`` does.
    """
    if not isinstance(tensor, DTensor):
        return tensor, None
    mesh, count = tensor.device_mesh, tensor.shape[0]
    size = -(-count // mesh.size())
    start = min(count, mesh.get_local_rank() * size)
    return tensor.to_local(), slice(start, min(count, start + size))


def scatter(source: Tensor | None, target: Tensor) -> None:
    """Write what rank 0 has into the pieces that the ranks hold; every rank has to call.

    Args:
        source: the whole tensor on rank 0; not looked at elsewhere.
        target: parameter or buffer, split or whole, of the same shape.
    """
    whole = torch.empty(target.shape, dtype=target.dtype, device=target.device)
    if rank() == 0 and source is not None:
        whole.copy_(source)
    if isinstance(target, DTensor):
        target.to_local().copy_(distribute_tensor(whole, target.device_mesh, target.placements).to_local())
        return
    if world_size() > 1:
        dist.broadcast(whole, 0)
    target.copy_(whole)
