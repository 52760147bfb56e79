"""Forget training samples drawn at random."""

import math
from typing import ClassVar

import torch
from torch import Tensor

from supreme.datasets.base import ImageDataset, Images
from supreme.errors import ConfigError
from supreme.scenarios.base import Scenario
from supreme.seeding import generator
from supreme.transforms.augment import Augment


class RandomSample(Scenario):
    """Forget a fraction of the training samples, drawn without regard to class.

    The draw has a generator of its own, so it is the same on every rank, device and network. D'_f is D_f itself and
    D'_r is all of D'.

    Args:
        dataset: where the images come from; None takes the embedded digits.
        fraction: share of D, in (0, 1); ``ceil(fraction * N)`` samples are drawn, and at least one is kept.
        draw_seed: seed of the draw.
        batch_size: rows of a global training batch.
        evaluation_batch_size: rows of a global evaluation batch; None takes 64 on a CPU and 256 elsewhere.
        augmentation: training augmentation; None takes the dataset's.
        resident: keep the images on the CUDA device where they fit.

    Raises:
        ConfigError: if the fraction is not inside (0, 1).

    Differs from the published code, which draws from the global generator, so that its draw depends on the network
    and on the device.

    Example:
        >>> len(RandomSample(fraction=0.05).indices()["forget_train"])
        72
    """

    random: ClassVar[bool] = True

    def __init__(
        self,
        dataset: ImageDataset | None = None,
        fraction: float = 0.1,
        draw_seed: int = 0,
        batch_size: int = 64,
        evaluation_batch_size: int | None = None,
        augmentation: Augment | None = None,
        resident: bool = False,
    ) -> None:
        super().__init__(dataset, batch_size, evaluation_batch_size, augmentation, resident)
        if not 0 < fraction < 1:
            raise ConfigError(
                f"Expected a forget fraction inside (0, 1), got {fraction}; 0.05 forgets 5 % of the training samples."
            )
        self.fraction, self.draw_seed = fraction, draw_seed

    def target_name(self) -> str:
        """The fraction."""
        return f"{self.fraction:g}"

    def select(self, images: Images, train: bool) -> Tensor:
        """The drawn samples of D; none of D'."""
        count = len(images.targets)
        mask = torch.zeros(count, dtype=torch.bool)
        if train:
            # Rounding first keeps 0.1 * 30 = 3.0000000000000004 from asking for four samples.
            size = min(math.ceil(round(self.fraction * count, 9)), count - 1)
            order = torch.randperm(count, generator=generator(self.draw_seed, "forget draw"))
            mask[order[:size]] = True
        return mask
