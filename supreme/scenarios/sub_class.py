"""Forget fine classes below the classes that the network tells apart."""

import torch
from torch import Tensor

from supreme.datasets.base import ImageDataset, Images
from supreme.errors import DataError
from supreme.scenarios.base import Scenario
from supreme.transforms.augment import Augment


class SubClass(Scenario):
    """Forget every sample of one or several fine classes, while their super-class stays.

    Args:
        dataset: a dataset with fine labels; None takes the embedded digits, which have none.
        forget: fine-class name, index, or a list of them.
        batch_size: rows of a global training batch.
        evaluation_batch_size: rows of a global evaluation batch; None takes 64 on a CPU and 256 elsewhere.
        augmentation: training augmentation; None takes the dataset's.
        resident: keep the images on the CUDA device where they fit.

    Raises:
        DataError: if the dataset has no fine labels.
        UnknownNameError: if a fine class does not exist; the text names near ones.

    Example:
        >>> SubClass(forget=["baby", "otter"]).forget
        ['baby', 'otter']
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

    def forget_subclasses(self) -> tuple[int, ...]:
        """The fine classes to be forgotten, ascending."""
        if self.dataset.subclasses is None:
            raise DataError(
                f"SubClass needs a dataset with fine labels, and {self.dataset.name} has none; "
                "use FullClass, or a dataset with a class hierarchy."
            )
        return tuple(sorted({self.dataset.class_index(item, fine=True) for item in self.forget}))

    def forget_classes(self) -> tuple[int, ...]:
        """The classes that contain the fine classes, ascending."""
        train = self.dataset.train
        return tuple(sorted(set(train.targets[self.select(train, True)].tolist())))

    def target_name(self) -> str:
        """Fine-class names, joined by ``+``."""
        fine = self.forget_subclasses()
        return "+".join((self.dataset.subclasses or ())[index] for index in fine)

    def select(self, images: Images, train: bool) -> Tensor:
        """Samples of the forget fine classes."""
        fine = torch.tensor(self.forget_subclasses())
        if images.subtargets is None:
            raise DataError(f"{self.dataset.name} gives no fine labels for its {'train' if train else 'test'} images.")
        return torch.isin(images.subtargets, fine)
