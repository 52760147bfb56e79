"""What ranks do in the tests of BatchNorm over the global batch."""

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from supreme.batch_norm import exact_batch_norm, set_filler


class Looks(TorchDispatchMode):
    """How often a tensor's value was asked for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("_local_scalar_dense", "item")
        return func(*args, **(kwargs or {}))


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    return nn.Sequential(*layers).double()


def images(rows):
    return torch.randn(rows, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def result(net, batch, rows=slice(None)):
    """Gradients of the summed squares of some rows of the output, and the running statistics."""
    net(batch)[rows].square().sum().backward()
    found = {name: parameter.grad for name, parameter in net.named_parameters()}
    return found | {name: buffer.double() for name, buffer in net.named_buffers()}


def shared(rows):
    """The same for this rank's rows of a batch; gradients are summed over ranks. Also reductions and looks."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    rank, calls, net = dist.get_rank(), [], network()
    plain, filler = dist.all_reduce, rows <= rank
    exact_batch_norm(net)
    set_filler(net, filler)
    dist.all_reduce = lambda value: (calls.append(value.numel()), plain(value))
    try:
        with Looks() as looks:
            found = result(net, images(rows)[:1] if filler else images(rows)[rank::2], slice(0 if filler else None))
    finally:
        dist.all_reduce = plain
    for parameter in net.parameters():
        dist.all_reduce(parameter.grad)
    return found, calls, looks.count


def all_sizes(sizes):
    return {rows: shared(rows) for rows in sizes}
