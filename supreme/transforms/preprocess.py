"""From stored pixels to what a network sees: scale, resize, three channels, normalise."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from supreme.errors import ConfigError


@dataclass(frozen=True)
class Preprocess:
    """Scale images to [0, 1], resize them where needed, make three channels and normalise each.

    ``preprocess(images)`` is ``normalise(scale(images))``; augmentation goes between the two.

    Args:
        mean: mean per channel in the [0, 1] scale, one value (for all channels) or three.
        std: standard deviation per channel in the [0, 1] scale, one value or three, each above 0.
        size: (height, width) to resize to by antialiased bilinear interpolation; None keeps the size that comes.
        shorter_side: resize the shorter side to so many pixels instead, at least as many as ``size`` has, and cut
            ``size`` out of the middle.

    Raises:
        ConfigError: if mean and std do not have one or three values, a std is not above 0, a size is below 1 or
            ``shorter_side`` is below it.

    Example:
        >>> preprocess = Preprocess(mean=(0.5,), std=(0.25,))
        >>> preprocess(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8))[0, :, 0, 0]
        tensor([2., 2., 2.])
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        """Turn sequences into tuples of plain numbers and check them."""
        object.__setattr__(self, "mean", _channels("mean", self.mean))
        object.__setattr__(self, "std", _channels("std", self.std))
        if min(self.std) <= 0.0:
            raise ConfigError(f"Expected every std above 0, got {self.std}; a constant channel takes std 1.")
        if self.size is not None:
            height, width = self.size
            object.__setattr__(self, "size", (int(height), int(width)))
            if min(height, width) < 1:
                raise ConfigError(f"Expected a size of at least 1 x 1 pixels, got {height} x {width}.")
        if self.shorter_side is not None and (self.size is None or self.shorter_side < max(self.size)):
            raise ConfigError(f"Expected a size within shorter_side, got {self.size} and {self.shorter_side}.")

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised float32 images (n, 3, H, W) of uint8 or float images (n, C, H, W), C being 1 or 3."""
        return self.normalise(self.scale(images))

    def scale(self, images: Tensor) -> Tensor:
        """Float32 images in [0, 1] of the wanted size; the number of channels stays.

        Args:
            images: (n, C, H, W) with C 1 or 3; uint8 in [0, 255] or float already in [0, 1].

        Raises:
            ConfigError: if the shape or the type is another one.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ConfigError(f"Expected images (n, C, H, W) with 1 or 3 channels, got {tuple(images.shape)}.")
        if images.dtype == torch.uint8:
            images = images.float().div_(255.0)
        elif not images.is_floating_point():
            raise ConfigError(f"Expected uint8 images or float images in [0, 1], got {images.dtype}; convert them.")
        images = images.float()
        if self.size is None or not len(images):
            return images if self.size is None else images.new_empty(0, images.shape[1], *self.size)
        if self.shorter_side is None:
            return _resize(images, self.size)
        height, width = images.shape[-2:]
        sides = [self.shorter_side * side // min(height, width) for side in (height, width)]
        top, left = (round((whole - part) / 2) for whole, part in zip(sides, self.size, strict=True))
        return _resize(images, sides)[..., top : top + self.size[0], left : left + self.size[1]]

    def normalise(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the std; a grey image becomes three equal channels before.

        Args:
            images: float (n, C, H, W) in [0, 1], C being 1 or 3.
        """
        mean, std = _constants(self.mean, self.std, images.device)
        return (images - mean) / std


def _resize(images: Tensor, size: Sequence[int]) -> Tensor:
    if list(images.shape[-2:]) == list(size):
        return images
    return interpolate(images, list(size), mode="bilinear", align_corners=False, antialias=True)


def _channels(name: str, values: Sequence[float]) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) not in (1, 3):
        raise ConfigError(f"Expected 1 or 3 values of {name}, one per channel, got {len(numbers)}.")
    return numbers


@lru_cache(maxsize=64)
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std as (3, 1, 1) on a device; kept, so that no batch waits for a copy from the host."""
    with torch.inference_mode(False):
        both = torch.tensor([(mean * 3)[:3], (std * 3)[:3]], dtype=torch.float32, device=device)
        return both[0].reshape(3, 1, 1), both[1].reshape(3, 1, 1)
