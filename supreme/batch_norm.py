"""BatchNorm over the global batch: the statistics of all ranks' rows, without filler rows."""

import types
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNormBase


class _Rows:
    """Whether this rank's rows of the current batch are filler; shared by all BatchNorm layers of a network."""

    filler: bool = False


def exact_batch_norm(network: nn.Module) -> None:
    """Let every BatchNorm layer use the statistics of the global batch, without filler rows.

    A global batch with one value per channel uses the running statistics, where torch raises. Undone by
    :func:`restore_batch_norm`.
    """
    rows = _Rows()
    object.__setattr__(network, "supreme_rows", rows)
    for layer in network.modules():
        if isinstance(layer, BatchNormBase):
            object.__setattr__(layer, "supreme_rows", rows)
            layer.forward = types.MethodType(_batch_norm, layer)  # type: ignore[method-assign]


def restore_batch_norm(network: nn.Module) -> None:
    """Undo :func:`exact_batch_norm`."""
    network.__dict__.pop("supreme_rows", None)
    for layer in network.modules():
        if isinstance(layer, BatchNormBase):
            layer.__dict__.pop("forward", None)
            layer.__dict__.pop("supreme_rows", None)


def set_filler(network: nn.Module, filler: bool) -> None:
    """Tell the BatchNorm layers whether the rows of the coming forward passes are filler and do not count."""
    rows = network.__dict__.get("supreme_rows")
    if rows is not None:
        rows.filler = filler


def _batch_norm(layer: Any, values: Tensor) -> Tensor:
    """BatchNorm over the rows of all ranks (Ioffe, Szegedy 2015, arXiv:1502.03167, algorithm 1)."""
    if layer.running_mean is not None and not layer.training:
        return _fixed_batch_norm(layer, values)
    if _several():
        filler = layer.training and layer.supreme_rows.filler
        return _global_batch_norm(layer, values, values[:0] if filler else values)
    if layer.running_mean is not None and values.numel() == values.shape[1]:
        return _fixed_batch_norm(layer, values)
    own: Tensor = type(layer).forward(layer, values)
    return own


def _fixed_batch_norm(layer: Any, values: Tensor) -> Tensor:
    return nn.functional.batch_norm(
        values, layer.running_mean, layer.running_var, layer.weight, layer.bias, False, 0.0, layer.eps
    )


def _global_batch_norm(layer: Any, values: Tensor, real: Tensor) -> Tensor:
    axes = [0, *range(2, values.dim())]
    shape = [1, -1, *[1] * (values.dim() - 2)]
    wide = real if real.dtype == torch.float64 else real.float()
    own = wide.new_full((1,), real.numel() / real.shape[1])
    sums = _SumOverRanks.apply(torch.cat([wide.sum(axes), own]))
    count = sums[-1].detach()
    # A rank with several values of its own knows that there are several; only the others have to wait for the sum.
    if layer.running_mean is not None and real.numel() <= real.shape[1] and count.item() <= 1:
        return _fixed_batch_norm(layer, values)
    mean = sums[:-1] / count
    variance = _SumOverRanks.apply((wide - mean.view(shape)).square().sum(axes)) / count
    _update_running(layer, mean.detach(), variance.detach(), count)
    normal: Tensor = (values.to(wide.dtype) - mean.view(shape)) * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        normal = normal * layer.weight.view(shape).to(wide.dtype) + layer.bias.view(shape).to(wide.dtype)
    return normal.to(values.dtype)


@torch.no_grad()
def _update_running(layer: Any, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    if not layer.track_running_stats:
        return
    layer.num_batches_tracked.add_(1)
    factor = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), factor)
    layer.running_var.lerp_((variance * (count / (count - 1))).to(layer.running_var.dtype), factor)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _all_sum(value: Tensor) -> Tensor:
    dist.all_reduce(value)
    return value


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is the all-reduce of the gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_sum(value.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _all_sum(gradients[0].contiguous().clone())
