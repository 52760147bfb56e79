"""Forget whole classes."""

import torch
from torch import Tensor

from supreme.datasets.base import ImageDataset, Images
from supreme.scenarios.base import Scenario
from supreme.transforms.augment import Augment


class FullClass(Scenario):
    """Forget every sample of one or several classes.

    D'_f are the test samples of these classes, D'_r the other test samples.

    Args:
        dataset: where the images come from; None takes the embedded digits.
        forget: class name, class index, or a list of them.
        batch_size: rows of a global training batch.
        evaluation_batch_size: rows of a global evaluation batch; None takes 64 on a CPU and 256 elsewhere.
        augmentation: training augmentation; None takes the dataset's.
        resident: keep the images on the CUDA device where they fit.

    Raises:
        UnknownNameError: if a class does not exist; the text names near ones.
        DataError: if nothing would be retained.

    Example:
        >>> scenario = FullClass(forget=3)
        >>> {name: len(index) for name, index in scenario.indices().items()}["forget_train"]
        146
    """

    def __init__(
        self,
        dataset: ImageDataset | None = None,
        forget: int | str | list[int | str] = 0,
        batch_size: int = 64,
        evaluation_batch_size: int | None = None,
        augmentation: Augment | None = None,
        resident: bool = False,
    ) -> None:
        super().__init__(dataset, batch_size, evaluation_batch_size, augmentation, resident)
        self.forget = list(forget) if isinstance(forget, (list, tuple)) else [forget]

    def forget_classes(self) -> tuple[int, ...]:
        """The classes to be forgotten, ascending."""
        return tuple(sorted({self.dataset.class_index(item) for item in self.forget}))

    def target_name(self) -> str:
        """Class names, joined by ``+``."""
        return "+".join(self.dataset.classes[index] for index in self.forget_classes())

    def select(self, images: Images, train: bool) -> Tensor:
        """Samples of the forget classes."""
        return torch.isin(images.targets, torch.tensor(self.forget_classes()))
