"""Outlines: networks without weights (on the meta device) that know where theirs come from.

An outline is split over the ranks first and filled afterwards, each rank reading its own share, so that no device ever
holds the whole network beside its share of it.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from supreme.sharding import local_rows, rank, scatter

_MARK = "weights_to_come"


class Weights(ABC):
    """Where the weights of an outline come from."""

    @abstractmethod
    def whole(self) -> Mapping[str, Tensor]:
        """All of them, on the CPU."""

    @abstractmethod
    def read(self, tensors: Mapping[str, Tensor]) -> None:
        """Write this rank's share into tensors (name -> parameter or buffer); every rank has to call."""


class StoredWeights(Weights):
    """Weights in a safetensors file, of which each rank reads its rows.

    Args:
        path: the file; every rank has to see it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def whole(self) -> Mapping[str, Tensor]:
        """All of them, on the CPU."""
        with safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> None:
        """Read the rows that belong to this rank."""
        with safe_open(self.path, framework="pt") as file:
            for name, tensor in tensors.items():
                piece, rows = local_rows(tensor)
                piece.copy_(file.get_tensor(name) if rows is None else file.get_slice(name)[rows])


class DrawnWeights(Weights):
    """Weights that a function makes, on rank 0 alone; the others receive their share.

    Args:
        make: gives the whole network.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self.make = make

    def whole(self) -> Mapping[str, Tensor]:
        """All of them, on the CPU."""
        return self.make().state_dict()

    @torch.no_grad()
    def read(self, tensors: Mapping[str, Tensor]) -> None:
        """Receive this rank's share from rank 0, tensor by tensor."""
        own = self.whole() if rank() == 0 else {}
        for name, tensor in tensors.items():
            scatter(own.get(name), tensor)


def outline(make: Callable[[], nn.Module], weights: Weights) -> nn.Module | None:
    """A network without weights.

    Args:
        make: gives the whole network; called where every new tensor is on the meta device.
        weights: what :func:`fill` is to write into it.

    Returns:
        The outline; None for a network that cannot be built so: one with tensors that no state dict holds, with shared
        parameters, or with a constructor that looks at values.
    """
    try:
        with torch.device("meta"):
            network = make()
    except Exception:  # the same constructor without the meta device says what is wrong, if anything is
        return None
    kept, known = network.state_dict(), dict(_tensors(network))
    single = len(known) == len({id(value) for value in known.values()})
    complete = known.keys() == kept.keys() and all(value.is_meta for value in known.values())
    if not single or not complete or _loose(network):
        return None
    vars(network)[_MARK] = weights
    return network


def is_outline(network: nn.Module) -> bool:
    """Whether the weights of a network are still to come."""
    return _MARK in vars(network)


def fill(network: nn.Module, device: torch.device) -> None:
    """Give an outline its weights, or this rank's share of them; any other network stays as it is.

    Args:
        network: split already, where the strategy splits it.
        device: where the weights are wanted.
    """
    weights: Weights | None = vars(network).pop(_MARK, None)
    if weights is not None:
        network.to_empty(device=device)
        weights.read(dict(_tensors(network)))


def whole_copy(network: nn.Module) -> nn.Module:
    """A copy of a network that has its weights, on the CPU if they were still to come."""
    fresh = copy.deepcopy(network)
    weights: Weights | None = vars(fresh).pop(_MARK, None)
    if weights is not None:
        fresh.to_empty(device="cpu").load_state_dict(dict(weights.whole()))
    return fresh


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def _loose(network: nn.Module) -> bool:
    """Whether a module keeps a tensor beside its parameters and buffers."""
    ours = vars(nn.Module()).keys()
    found = (value for module in network.modules() for name, value in vars(module).items() if name not in ours)
    return any(_holds_tensor(value) for value in found)


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(isinstance(item, Tensor) for item in value)
    return isinstance(value, Tensor)
