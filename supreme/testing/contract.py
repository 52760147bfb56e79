"""What the contract tests share: how a broken promise is reported, and a network and data small enough for seconds."""

import copy
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

CLASSES = 3


class Contract:
    """The promises of one component; the first that is broken raises.

    Args:
        name: name of the component, which begins every message.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def require(self, kept: bool, expected: str, got: str, look: str) -> None:
        """Raise unless a promise is kept.

        Args:
            kept: whether it is.
            expected: the promise.
            got: what happened instead.
            look: where the cause usually is.

        Raises:
            AssertionError: if it is broken.
        """
        if not kept:
            raise AssertionError(f"{self.name}: expected {expected}, got {got}. Look at {look}.")

    @contextmanager
    def during(self, what: str, look: str) -> Iterator[None]:
        """Report any exception of the block as a broken promise.

        Args:
            what: what is done in the block.
            look: where the cause usually is.

        Raises:
            AssertionError: if the block raises.
        """
        try:
            yield
        except AssertionError:
            raise
        except Exception as error:
            text = f"{self.name}: expected {what} to work, got {type(error).__name__}: {error} Look at {look}."
            raise AssertionError(text) from error

    def require_portable(self, arguments: Mapping[str, Any]) -> None:
        """Arguments can be copied and sent to another process."""
        for name, value in arguments.items():
            with self.during(f"copying and pickling the argument {name!r}", f"what {name!r} holds; give plain values"):
                copy.deepcopy(value)
                pickle.dumps(value)


def small_network(seed: int = 0) -> nn.Sequential:
    """A convolutional network with BatchNorm in two and in no dimensions: images (n, 1, 4, 4) -> logits (n, 3).

    Example:
        >>> small_network()(torch.zeros(2, 1, 4, 4)).shape
        torch.Size([2, 3])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)),
        )


def small_sets(forget: int, retain: int, shape: tuple[int, ...] = (1, 4, 4)) -> tuple[TensorDataset, TensorDataset]:
    """A forget and a retain set: class 0 is to be forgotten, and every class has a pattern of its own under noise.

    Args:
        forget: samples of D_f.
        retain: samples of D_r.
        shape: shape of an image.

    Example:
        >>> [len(part) for part in small_sets(17, 32)]
        [17, 32]
    """
    draw = torch.Generator().manual_seed(1)
    patterns = torch.randn(CLASSES, *shape, generator=draw)
    target = torch.cat([torch.zeros(forget, dtype=torch.int64), 1 + torch.arange(retain) % (CLASSES - 1)])
    image = patterns[target] + 0.5 * torch.randn(len(target), *shape, generator=draw)
    return TensorDataset(image[:forget], target[:forget]), TensorDataset(image[forget:], target[forget:])


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor], tolerance: float = 0.0) -> str:
    """The largest difference between two states in words, "" where none is above the tolerance.

    Args:
        first: weights and buffers by name.
        second: likewise.
        tolerance: allowed difference, relative to values above 1.

    Example:
        >>> difference({"a": torch.zeros(2)}, {"a": torch.tensor([0.0, 0.5])})
        "'a' differs by 0.5"
    """
    if first.keys() != second.keys():
        return f"other names {sorted(first.keys() ^ second.keys())}"
    worst, text = tolerance, ""
    for name, value in first.items():
        other = second[name]
        if value.shape != other.shape:
            return f"'{name}' of shape {tuple(other.shape)} in place of {tuple(value.shape)}"
        gap = (value.double() - other.double()).abs() / value.double().abs().clamp(min=1.0)
        gap = gap.nan_to_num(nan=torch.inf) if not torch.equal(value.isnan(), other.isnan()) else gap.nan_to_num()
        size = float(gap.max()) if gap.numel() else 0.0
        if size > worst:
            worst, text = size, f"'{name}' differs by {size:.3g}"
    return text
