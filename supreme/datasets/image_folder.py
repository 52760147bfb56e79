"""Any folder of images as a dataset."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from supreme.datasets.base import Allocate, Content, Images
from supreme.datasets.image_files import Labelled, Listing, by_class, decode, is_grey, list_images, opener
from supreme.datasets.split import check_fraction, stratified_split
from supreme.datasets.store import StoredDataset
from supreme.errors import ConfigError
from supreme.transforms.augment import Augment


class ImageFolder(StoredDataset):
    """Any folder of images, or a zip archive of one: a sub-folder per class, with or without train and test folders.

    ``<path>/train/<class>/...`` and ``<path>/test/<class>/...`` are taken as they are; with ``<path>/<class>/...`` a
    seeded, stratified split is drawn. Class names are the folder names in byte order. All formats that Pillow decodes
    are read; every image is resized once, without keeping its aspect ratio, when the store is built. The store keeps
    one channel where all images are grey. It is built again when a file is added, removed or changed.

    Differs from the published code in: images are held out where there is no split (published: the face images are
    tested on the training images), and images are turned upright as their EXIF data say.

    Args:
        path: the folder or the zip archive.
        size: height and width of the stored images; one number for a square.
        test_fraction: share of every class that is held out, where there are no train and test folders.
        split_seed: seeds that split.
        root: folder for the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        ConfigError: if the size is below 8 pixels or ``test_fraction`` outside (0, 1).
        DataError: when the images are first needed, if the folder is missing, empty, has just one class, a class in
            test that train lacks, too few images of a class to split, or an image that cannot be read.

    Example:
        >>> ImageFolder("my_faces", size=32)
        ImageFolder(path='my_faces', size=[32, 32], test_fraction=0.2, split_seed=0)
    """

    paper: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("folder",)

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] = 32,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        root: str | None = None,
    ) -> None:
        super().__init__(root)
        check_fraction(test_fraction)
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 8:
            raise ConfigError(f"Expected a size of at least 8 x 8 pixels, got {height} x {width}.")
        self.path = str(path)
        self.size = (height, width)
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self._listing: Listing | None = None

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``."""
        return {
            "path": self.path,
            "size": list(self.size),
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
        }

    @property
    def augmentation(self) -> Augment:
        """The usual recipe for small images: crop with an eighth of the size as padding, flip, 15 degrees."""
        return Augment(crop_padding=min(self.size) // 8, flip=True, rotation=15.0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the list of files behind too."""
        return {**super().__getstate__(), "_listing": None}

    def source(self) -> str:
        """Hash of the names, sizes and times of all image files, the target size and the split."""
        self._listing = list_images(Path(self.path).expanduser())
        classes, parts = by_class(self._listing, self.path)
        drawn = (self.test_fraction, self.split_seed) if "all" in parts else None
        return hashlib.sha256(repr((self._listing.files, classes, self.size, drawn)).encode()).hexdigest()

    def read(self, allocate: Allocate) -> Content:
        """Decode every image into the store."""
        path = Path(self.path).expanduser()
        classes, parts = by_class(self._listing or list_images(path), self.path)
        if "all" in parts:
            parts = self._split(parts["all"], classes)
        with opener(path) as fetch, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            names = [name for part in parts.values() for name in part.files]
            grey = all(pool.map(lambda name: is_grey(fetch(name), self._full(name)), names))
            splits = {}
            for split, part in parts.items():
                pixels = allocate(split, (len(part.files), 1 if grey else 3, *self.size))
                list(pool.map(partial(self._fill, fetch, pixels), range(len(part.files)), part.files))
                splits[split] = Images(torch.from_numpy(pixels), torch.tensor(part.targets, dtype=torch.int64))
        files = {split: part.files for split, part in parts.items()}
        return Content(splits["train"], splits["test"], classes, files=files)

    def _fill(self, fetch: Callable[[str], bytes], pixels: NDArray[np.uint8], row: int, name: str) -> None:
        pixels[row] = decode(fetch(name), self._full(name), self.size, pixels.shape[1])

    def _full(self, name: str) -> str:
        return str(Path(self.path) / name)

    def _split(self, part: Labelled, classes: tuple[str, ...]) -> dict[str, Labelled]:
        """Draw a train/test split."""
        rows = stratified_split(
            torch.tensor(part.targets, dtype=torch.int64), classes, self.test_fraction, self.split_seed
        )
        halves = dict(zip(("train", "test"), (chosen.tolist() for chosen in rows), strict=True))
        return {
            split: Labelled([part.files[row] for row in chosen], [part.targets[row] for row in chosen])
            for split, chosen in halves.items()
        }
