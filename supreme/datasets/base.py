"""What a dataset is: uint8 train and test images, targets, class names and statistics."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supreme.errors import ConfigError, DataError, UnknownNameError
from supreme.transforms.augment import Augment

Allocate = Callable[[str, tuple[int, int, int, int]], NDArray[np.uint8]]
Statistics = Literal["train", "published"]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std per channel
_CHUNK = 1 << 24  # bytes of images looked at in one go


class Images(NamedTuple):
    """One split of a dataset.

    Attributes:
        images: uint8 (N, C, H, W), in memory or memory-mapped; C is 1 (grey) or 3.
        targets: int64 (N,), class.
        subtargets: int64 (N,), fine class, or None where the dataset has none.
    """

    images: Tensor
    targets: Tensor
    subtargets: Tensor | None = None


class Content(NamedTuple):
    """What :meth:`ImageDataset.read` returns: both splits and the names of the classes.

    Attributes:
        train: training split.
        test: test split.
        classes: name of class 0, 1, ...
        subclasses: name of fine class 0, 1, ..., or None.
        files: name of the file behind every image, by split, where images come from files.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    subclasses: tuple[str, ...] | None = None
    files: dict[str, list[str]] | None = None


class Prepared(NamedTuple):
    """Content together with what is derived from it once."""

    content: Content
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str


class ImageDataset(ABC):
    """Base of all datasets: implement :meth:`read` and, where arguments determine the content, :meth:`config`.

    The constructor reads nothing. :meth:`prepare` reads once; the properties call it on demand. Many processes may
    prepare the same dataset at the same time.

    Args:
        root: folder for downloads and image stores; None takes the environment variable ``SUPREME_DATA`` or, failing
            that, ``~/.cache/supreme``.
        statistics: what images are normalised with: ``"train"`` takes mean and std of the training pixels,
            ``"published"`` the numbers of the published implementation, where it has some for this dataset.

    Attributes:
        published: mean and std per channel that the published implementation uses, None where it has none.

    Raises:
        ConfigError: if ``statistics`` is neither, or nothing is published for this dataset.

    Example:
        >>> class Noise(ImageDataset):
        ...     def read(self, allocate):
        ...         images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
        ...         split = Images(images, torch.tensor([0, 1, 0, 1]))
        ...         return Content(split, split, classes=("cat", "dog"))
        >>> Noise().class_index("dog")
        1
    """

    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    published: ClassVar[Normalisation | None] = None

    def __init__(self, root: str | None = None, statistics: Statistics = "train") -> None:
        if statistics not in ("train", "published"):
            raise ConfigError(f"Expected statistics 'train' or 'published', got {statistics!r}.")
        if statistics == "published" and self.published is None:
            raise ConfigError(f"No statistics are published for {self.name}; use statistics 'train'.")
        self.root = root
        self.statistics = statistics
        self._prepared: Prepared | None = None

    @abstractmethod
    def read(self, allocate: Allocate) -> Content:
        """Read both splits.

        Args:
            allocate: gives an empty uint8 array for the images of ``"train"`` or ``"test"``; in a stored dataset it
                lies on disk, so that a split never has to fit into memory. Its use is optional.
        """

    def config(self) -> dict[str, Any]:
        """Constructor arguments that determine the content, as plain values."""
        return {}

    def prepare(self) -> None:
        """Make the images available: read them, and check what was read. A second call does nothing."""
        if self._prepared is None:
            self._prepared = self._load()

    def _load(self) -> Prepared:
        return summarise(self.read(lambda _split, shape: np.empty(shape, np.uint8)), self.name)

    def _ready(self) -> Prepared:
        self.prepare()
        if self._prepared is None:
            raise DataError(f"Dataset {self.name} gave nothing; its _load must return the prepared content.")
        return self._prepared

    @property
    def name(self) -> str:
        """Name of the dataset in records."""
        return type(self).__name__

    @property
    def train(self) -> Images:
        """Training split D."""
        return self._ready().content.train

    @property
    def test(self) -> Images:
        """Test split D'."""
        return self._ready().content.test

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the target."""
        return self._ready().content.classes

    @property
    def subclasses(self) -> tuple[str, ...] | None:
        """Fine class names; the position is the subtarget. None where the dataset has no fine classes."""
        return self._ready().content.subclasses

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel in the [0, 1] scale: over all training pixels, or as published."""
        return self.published[0] if self.published and self.statistics == "published" else self._ready().mean

    @property
    def std(self) -> tuple[float, ...]:
        """Population std per channel: over all training pixels (1 for a constant channel), or as published."""
        return self.published[1] if self.published and self.statistics == "published" else self._ready().std

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the stored images."""
        height, width = self.train.images.shape[-2:]
        return height, width

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width to which images are resized for a network without a size of its own; None: as stored."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results has to know of these images, as sentences; records keep them."""
        return ()

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over images, targets and class names of both splits."""
        return self._ready().fingerprint

    @property
    def augmentation(self) -> Augment:
        """Default training augmentation of this dataset."""
        return Augment()

    def class_index(self, value: int | str, fine: bool = False) -> int:
        """Index of a class given by name or index.

        A name wins over a number: ``"7"`` is the class named 7 where there is one, else index 7. Capitals do not
        matter, nor whether words are joined by blanks or by underscores, as long as one class alone is meant.

        Args:
            value: name or index.
            fine: whether a fine class is meant.

        Raises:
            UnknownNameError: if no class has that name.
            ConfigError: if the index is out of range or the dataset has no fine classes.
        """
        names = self.subclasses if fine else self.classes
        kind = "fine class" if fine else "class"
        if names is None:
            raise ConfigError(f"Dataset {self.name} has no fine classes; name one of its {len(self.classes)} classes.")
        text = str(value).strip()
        if isinstance(value, str) and text in names:
            return names.index(text)
        alike = [number for number, name in enumerate(names) if _plain(name) == _plain(text)]
        if isinstance(value, str) and len(alike) == 1:
            return alike[0]
        try:
            index = int(text)
        except ValueError:
            raise UnknownNameError(kind, text, names) from None
        if 0 <= index < len(names):
            return index
        if text in names:
            return names.index(text)
        raise ConfigError(
            f"Expected a {kind} of {self.name} as a name or as an index from 0 to {len(names) - 1}, got {value!r}."
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images behind when the dataset is copied to another process; it prepares itself there."""
        return {**self.__dict__, "_prepared": None}

    def __repr__(self) -> str:
        """Class and the arguments that determine the content."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.config().items())})"


def data_root(root: str | None) -> Path:
    """Folder for downloads and image stores: the argument, else ``SUPREME_DATA``, else ``~/.cache/supreme``."""
    return Path(root or os.environ.get("SUPREME_DATA") or "~/.cache/supreme").expanduser()


def _plain(name: str) -> str:
    """A name without its capitals and underscores."""
    return name.replace("_", " ").casefold()


def summarise(content: Content, name: str) -> Prepared:
    """Check what was read and derive the statistics and the fingerprint.

    Raises:
        DataError: if shapes, types, targets or class names do not fit together.
    """
    for split, part in (("train", content.train), ("test", content.test)):
        _check_split(f"{name} {split}", part, content)
    if content.train.images.shape[1:] != content.test.images.shape[1:]:
        raise DataError(
            f"Expected train and test images of {name} of one shape, got {tuple(content.train.images.shape[1:])} and "
            f"{tuple(content.test.images.shape[1:])}."
        )
    mean, std = _statistics(content.train.images)
    return Prepared(content, mean, std, _fingerprint(content))


def _check_split(where: str, part: Images, content: Content) -> None:
    images, targets, subtargets = part
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"Expected {where} images as uint8 (N, C, H, W) with 1 or 3 channels, got {images.dtype} "
            f"{tuple(images.shape)}."
        )
    if not len(images):
        raise DataError(f"Expected images in {where}, got none.")
    for labels, names in ((targets, content.classes), (subtargets, content.subclasses)):
        if (labels is None) != (names is None):
            raise DataError(f"Expected {where} to have fine targets and fine class names, or neither.")
        if labels is None or names is None:
            continue
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"Expected one int64 target per image in {where}, got {labels.dtype} {tuple(labels.shape)}."
            )
        if int(labels.min()) < 0 or int(labels.max()) >= len(names):
            raise DataError(
                f"Expected targets of {where} from 0 to {len(names) - 1}, got {int(labels.min())} to "
                f"{int(labels.max())}."
            )


def _chunks(images: Tensor) -> list[Tensor]:
    """Views of a limited number of bytes, so that a memory-mapped split never has to fit into memory."""
    rows = max(1, _CHUNK // max(1, images[0].numel()))
    return [images[start : start + rows] for start in range(0, len(images), rows)]


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Exact pixel-wise mean and population std per channel, from the counts of the 256 values."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in _chunks(images):
        for channel in range(images.shape[1]):
            counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255.0
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = (share * values).sum(1)
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std = torch.where((counts > 0).sum(1) > 1, std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _fingerprint(content: Content) -> str:
    digest = hashlib.sha256(repr((content.classes, content.subclasses)).encode())
    for images, targets, subtargets in (content.train, content.test):
        digest.update(repr(tuple(images.shape)).encode())
        for chunk in _chunks(images):
            digest.update(chunk.contiguous().numpy().tobytes())
        for labels in (targets, subtargets):
            digest.update(b"-" if labels is None else labels.contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]
