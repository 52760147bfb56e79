"""Training augmentation of a whole batch at once, drawn per sample, on the device of the images."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supreme.errors import ConfigError
from supreme.seeding import uniform

_DRAWS = 4  # crop row, crop column, flip, rotation: always drawn, so one setting never moves another one's draws


@dataclass(frozen=True)
class Augment:
    """Random crop with zero padding, then horizontal flip, then rotation, each drawn anew for every sample.

    The result is what torchvision's v2 ``RandomCrop``, ``RandomHorizontalFlip`` and ``RandomRotation`` (nearest pixel,
    zero fill, centre of the image) give one sample after the other. The draws depend on (seed, epoch, sample index)
    only, so the batch, its order and the device make no difference. Without arguments nothing is changed.

    Differs from the published code in: a draw belongs to its sample and not to the loader's process that happens to
    read it. The distribution is the same.

    Args:
        crop_padding: pixels of zeros added on every side before the crop back to the image's own size; the offset is
            uniform over all positions in each direction, ``2 * crop_padding + 1`` of them.
        flip: whether half of the samples are mirrored left to right.
        rotation: largest angle in degrees; the angle is uniform in [-rotation, rotation].
        crop_size: height and width of the crop, for images that are larger than the network's; None is their own size.

    Raises:
        ConfigError: if the padding is negative, the angle is outside [0, 180] or the crop is below one pixel.

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> augment = Augment(crop_padding=4, flip=True, rotation=15.0)
        >>> augment(images, seed=0, epoch=0, index=torch.tensor([7, 3])).shape
        torch.Size([2, 3, 32, 32])
    """

    crop_padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    crop_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse settings that have no meaning."""
        if self.crop_padding < 0:
            raise ConfigError(f"Expected crop_padding >= 0 pixels, got {self.crop_padding}; 0 switches the crop off.")
        if not 0.0 <= self.rotation <= 180.0:
            raise ConfigError(f"Expected a rotation of 0 to 180 degrees, got {self.rotation}; 0 switches it off.")
        if self.crop_size is not None:
            height, width = self.crop_size
            object.__setattr__(self, "crop_size", (int(height), int(width)))
            if min(height, width) < 1:
                raise ConfigError(f"Expected a crop of at least 1 x 1 pixels, got {height} x {width}.")

    @property
    def active(self) -> bool:
        """Whether any image can change at all."""
        return bool(self.crop_padding or self.flip or self.rotation or self.crop_size)

    def __call__(self, images: Tensor, seed: int, epoch: int, index: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: (n, C, H, W), float in [0, 1] or uint8, before normalisation.
            seed: seed of the stage.
            epoch: pass over the data.
            index: int64 (n,), sample indices; they key the draws.

        Returns:
            Images of the same type and device, and of the same shape unless ``crop_size`` is another one.

        Raises:
            ConfigError: if the images are not (n, C, H, W), there is not one index per image, or a crop is larger than
                its padded image.
        """
        if images.ndim != 4 or index.shape != images.shape[:1]:
            raise ConfigError(
                f"Expected images (n, C, H, W) and one index per image, got {tuple(images.shape)} and "
                f"{tuple(index.shape)}."
            )
        if not self.active or not len(images):
            return images if self.crop_size is None else images.reshape(*images.shape[:2], *self.crop_size)
        height, width = images.shape[-2:]
        row, column, inside = self._source(uniform(seed, epoch, index.to(images.device), _DRAWS), height, width)
        position = torch.where(inside, row * width + column, 0).flatten(1)
        picked = images.flatten(2).gather(2, position[:, None].expand(-1, images.shape[1], -1))
        picked = picked.view(*images.shape[:2], *inside.shape[1:])
        return torch.where(inside[:, None], picked, torch.zeros((), dtype=images.dtype, device=images.device))

    def _source(self, draws: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Source row and column (n, H, W) of every output pixel, and whether it lies on the image.

        The last step of the pipeline is undone first: rotation, then flip, then crop.
        """
        high, wide = self.crop_size or (height, width)
        row, column, inside = _rotate(draws[:, 3], self.rotation, high, wide)
        if self.flip:
            column = torch.where((draws[:, 2] < 0.5)[:, None, None], wide - 1 - column, column)
        if self.crop_padding or self.crop_size:
            row = row + self._offset(draws[:, 0], height, high)[:, None, None]
            column = column + self._offset(draws[:, 1], width, wide)[:, None, None]
            inside = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return row, column, inside

    def _offset(self, draw: Tensor, size: int, cropped: int) -> Tensor:
        """First source position of a crop, uniform over all that there are in one direction."""
        places = size - cropped + 2 * self.crop_padding + 1
        if places < 1:
            raise ConfigError(f"Expected images of {cropped} or more pixels to crop, got {size} with padding.")
        return (draw * places).floor().long().clamp(max=places - 1) - self.crop_padding


def _rotate(draw: Tensor, limit: float, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest source pixel of every output pixel when sample i is turned by ``(2 draw_i - 1) * limit`` degrees.

    The arithmetic follows torchvision's pixel grid step by step (sine and cosine in float64, the rest in float32,
    halves to even), so that both choose the same pixel.
    """
    y = torch.arange(height, device=draw.device, dtype=torch.float32)[None, :, None] - (height - 1) * 0.5
    x = torch.arange(width, device=draw.device, dtype=torch.float32)[None, None, :] - (width - 1) * 0.5
    if not limit:
        shape = (len(draw), height, width)
        row = torch.arange(height, device=draw.device)[None, :, None].expand(shape)
        column = torch.arange(width, device=draw.device)[None, None, :].expand(shape)
        return row, column, torch.ones(shape, dtype=torch.bool, device=draw.device)
    exact = torch.float32 if draw.device.type == "mps" else torch.float64
    angle = ((2.0 * draw.to(exact) - 1.0) * (limit * math.pi / 180.0))[:, None, None]
    sine, cosine = angle.sin().float(), angle.cos().float()
    across = x * (cosine / (0.5 * width)) - y * (sine / (0.5 * width))
    down = x * (sine / (0.5 * height)) + y * (cosine / (0.5 * height))
    column = (((across + 1.0) * width - 1.0) / 2.0).round()
    row = (((down + 1.0) * height - 1.0) / 2.0).round()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return row.long(), column.long(), inside
