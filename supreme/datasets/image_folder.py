"""Any folder of images as a dataset."""

from pathlib import Path
from typing import Any, ClassVar

import torch

from supreme.datasets.file_dataset import FileDataset, halves
from supreme.datasets.image_files import Layout, Listing, by_class
from supreme.datasets.split import check_fraction, stratified_split


class ImageFolder(FileDataset):
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
        super().__init__(size, root=root)
        check_fraction(test_fraction)
        self.path = str(path)
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``."""
        return {
            "path": self.path,
            "size": list(self.size),
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
        }

    def place(self) -> Path:
        """The folder or the archive that the user named."""
        return Path(self.path).expanduser()

    def arrange(self, listing: Listing) -> Layout:
        """A class per folder; the split that is there, else a drawn one.

        Args:
            listing: what lies in the folder or the archive.
        """
        classes, parts = by_class(listing, self.path)
        if "all" in parts:
            targets = torch.tensor(parts["all"].targets, dtype=torch.int64)
            rows = stratified_split(targets, classes, self.test_fraction, self.split_seed)
            parts = halves(parts["all"], rows)
        return Layout(classes, parts)
