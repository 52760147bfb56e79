"""CIFAR-10, CIFAR-100 and CIFAR-20 (CIFAR-100 with its 20 super-classes), from the official archives."""

from typing import Any, ClassVar

import numpy as np
import torch

from supreme.datasets.base import Allocate, Content, Images, Normalisation, data_root
from supreme.datasets.official import fetching, reader
from supreme.datasets.store import StoredDataset
from supreme.transforms.augment import Augment

# Super-class of each of the 100 fine classes, in the order of the official archive.
SUPER_CLASS = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11),
    *(6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5),
    *(5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17),
    *(10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13),
    *(16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


class CIFAR10(StoredDataset):
    """CIFAR-10: 50,000 training and 10,000 test colour images of 32x32 pixels in 10 classes.

    The official archive is downloaded through torchvision and checked when the store is first built. Without a
    network, place the archive (or the folder in it) in ``root``.

    Args:
        root: folder for the archive and the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.
        statistics: ``"train"`` normalises with mean and std of the training pixels, ``"published"`` with the numbers
            that the published implementation states.

    Raises:
        ConfigError: if ``statistics`` is neither.
        DataError: when the images are first needed, if the archive can neither be found nor downloaded.

    Example:
        >>> CIFAR10().augmentation
        Augment(crop_padding=4, flip=True, rotation=15.0, crop_size=None)

    Reference:
        A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009.
    """

    paper: ClassVar[str] = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    needs: ClassVar[tuple[str, ...]] = ("download",)
    archive: ClassVar[str] = "CIFAR10"  # class in torchvision.datasets
    published: ClassVar[Normalisation | None] = (
        (0.4913999140262604, 0.48215872049331665, 0.4465313255786896),
        (0.24703191220760345, 0.243484228849411, 0.2615869343280792),
    )

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``."""
        return {"statistics": self.statistics}

    @property
    def augmentation(self) -> Augment:
        """Crop with padding 4, flip, rotation by up to 15 degrees."""
        return Augment(crop_padding=4, flip=True, rotation=15.0)

    def source(self) -> str:
        """The archive's name: its files are checked against the official sums."""
        return self.archive

    def read(self, allocate: Allocate) -> Content:
        """Download where needed, then read both splits."""
        train, test = self._open()
        return Content(_images(train), _images(test), tuple(train.classes))

    def _open(self, **attributes: Any) -> tuple[Any, Any]:
        """Torchvision's training and test datasets, with class attributes of theirs replaced."""
        official, root = reader(self.archive, **attributes), data_root(self.root)
        advice = f"fetch {official.url} and place {official.filename} in {root}"
        with fetching(self.name, root / f"{official.filename}.lock", advice):
            return official(str(root), train=True, download=True), official(str(root), train=False)


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 training and 10,000 test colour images of 32x32 pixels in 100 classes.

    Args:
        root: folder for the archive and the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.
        statistics: ``"train"`` normalises with mean and std of the training pixels, ``"published"`` with the numbers
            that the published implementation states.

    Raises:
        ConfigError: if ``statistics`` is neither.
        DataError: when the images are first needed, if the archive can neither be found nor downloaded.

    Example:
        >>> CIFAR100().name
        'CIFAR100'

    Reference:
        A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009.
    """

    archive: ClassVar[str] = "CIFAR100"
    paper: ClassVar[str] = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    needs: ClassVar[tuple[str, ...]] = ("download",)
    published: ClassVar[Normalisation | None] = (
        (0.5070753693580627, 0.4865487813949585, 0.44091784954071045),
        (0.2673334777355194, 0.25643861293792725, 0.2761504352092743),
    )


class CIFAR20(CIFAR100):
    """CIFAR-20: the images of CIFAR-100 with its 20 super-classes as classes and its 100 classes as fine classes.

    Args:
        root: folder for the archive and the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.
        statistics: ``"train"`` normalises with mean and std of the training pixels, ``"published"`` with the numbers
            that the published implementation states.

    Raises:
        ConfigError: if ``statistics`` is neither.
        DataError: when the images are first needed, if the archive can neither be found nor downloaded.

    Example:
        >>> CIFAR20().name
        'CIFAR20'

    Reference:
        A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, 2009.
    """

    paper: ClassVar[str] = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
    needs: ClassVar[tuple[str, ...]] = ("download",)

    def read(self, allocate: Allocate) -> Content:
        """Download where needed, then read both splits with both kinds of labels."""
        train, test = self._open()
        _, coarse = self._open(meta={**reader(self.archive).meta, "key": "coarse_label_names"})
        table = torch.tensor(SUPER_CLASS)
        splits = [Images(part.images, table[part.targets], part.targets) for part in map(_images, (train, test))]
        return Content(splits[0], splits[1], tuple(coarse.classes), tuple(train.classes))


def _images(split: Any) -> Images:
    """A split of torchvision as uint8 (N, 3, 32, 32) and int64 targets."""
    pixels = np.ascontiguousarray(split.data.transpose(0, 3, 1, 2))
    return Images(torch.from_numpy(pixels), torch.tensor(split.targets, dtype=torch.int64))
