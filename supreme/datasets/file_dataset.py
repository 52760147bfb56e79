"""Datasets made of image files: listed, arranged into classes and splits, decoded once into the store."""

import hashlib
import os
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supreme.datasets.base import Allocate, Content, Images, Statistics
from supreme.datasets.image_files import Labelled, Layout, Listing, decode, is_grey, list_images, opener
from supreme.datasets.store import StoredDataset
from supreme.errors import ConfigError
from supreme.transforms.augment import Augment


class FileDataset(StoredDataset):
    """Base of datasets whose images are files: say where they are (:meth:`place`) and what they mean (:meth:`arrange`).

    Every image is resized once, without keeping its aspect ratio, when the store is built. The store keeps one channel
    where all images are grey. It is built again when a file is added, removed or changed.

    Args:
        size: height and width that the network sees; one number for a square.
        margin: pixels by which the stored images are larger than that; training images are then random crops of the
            stored ones, and evaluation images are the stored ones made smaller.
        root: folder for the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.
        statistics: ``"train"`` or ``"published"``.

    Raises:
        ConfigError: if the size is below 8 pixels or the margin negative.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        margin: int = 0,
        root: str | None = None,
        statistics: Statistics = "train",
    ) -> None:
        super().__init__(root, statistics)
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 8:
            raise ConfigError(f"Expected a size of at least 8 x 8 pixels, got {height} x {width}.")
        if margin < 0:
            raise ConfigError(f"Expected a margin of 0 or more pixels, got {margin}.")
        self.size = (height, width)
        self.margin = margin
        self._listing: Listing | None = None

    @abstractmethod
    def place(self) -> Path:
        """The folder or the zip archive of the images; it is fetched first where that is possible."""

    @abstractmethod
    def arrange(self, listing: Listing) -> Layout:
        """Which file is of which class and in which split.

        Args:
            listing: what lies in the folder or the archive.
        """

    @property
    def augmentation(self) -> Augment:
        """The usual recipe for small images: crop with an eighth of the size as padding, flip, 15 degrees."""
        return Augment(crop_padding=min(self.size) // 8, flip=True, rotation=15.0, crop_size=self.input_size)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """The size without the margin, where there is one."""
        return self.size if self.margin else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the list of files behind too."""
        return {**super().__getstate__(), "_listing": None}

    def source(self) -> str:
        """Hash of the names, sizes and times of all image files, their arrangement and the stored size."""
        self._listing = list_images(self.place())
        described = (self._listing.files, self.arrange(self._listing), self._stored())
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def read(self, allocate: Allocate) -> Content:
        """Decode every image into the store."""
        place = self.place()
        layout = self.arrange(self._listing or list_images(place))
        train, test = layout.parts["train"], layout.parts["test"]
        with opener(place) as fetch, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            names = sorted({*train.files, *test.files})
            grey = all(pool.map(lambda name: is_grey(fetch(name), str(place / name)), names))
            splits: dict[str, Images] = {}
            for split, part in layout.parts.items():
                if split == "test" and test == train:
                    splits[split] = splits["train"]
                    continue
                pixels = allocate(split, (len(part.files), 1 if grey else 3, *self._stored()))
                list(pool.map(partial(_fill, fetch, place, pixels), range(len(part.files)), part.files))
                splits[split] = _images(pixels, part, layout.fine)
        files = {split: part.files for split, part in layout.parts.items()}
        return Content(splits["train"], splits["test"], layout.classes, layout.subclasses, files)

    def _stored(self) -> tuple[int, int]:
        """Height and width of the stored images."""
        return self.size[0] + self.margin, self.size[1] + self.margin


def halves(part: Labelled, rows: tuple[Tensor, Tensor]) -> dict[str, Labelled]:
    """The files of both splits.

    Args:
        part: all files with their classes.
        rows: positions of the training files and of the test files.
    """
    train, test = (
        Labelled([part.files[row] for row in chosen], [part.targets[row] for row in chosen])
        for chosen in (rows[0].tolist(), rows[1].tolist())
    )
    return {"train": train, "test": test}


def _fill(fetch: Callable[[str], bytes], place: Path, pixels: NDArray[np.uint8], row: int, name: str) -> None:
    pixels[row] = decode(fetch(name), str(place / name), (pixels.shape[2], pixels.shape[3]), pixels.shape[1])


def _images(pixels: NDArray[np.uint8], part: Labelled, fine: dict[str, int] | None) -> Images:
    below = None if fine is None else torch.tensor([fine[name] for name in part.files], dtype=torch.int64)
    return Images(torch.from_numpy(pixels), torch.tensor(part.targets, dtype=torch.int64), below)
