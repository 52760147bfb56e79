"""Photographs of 105 celebrities, from a folder of Kaggle."""

from pathlib import Path
from typing import Any, ClassVar

import torch

from supreme.datasets.base import Normalisation, Statistics, data_root
from supreme.datasets.file_dataset import FileDataset, halves
from supreme.datasets.image_files import Layout, Listing, by_class
from supreme.datasets.official import placed
from supreme.datasets.split import stratified_split
from supreme.errors import ConfigError, DataError

PAGE = "https://www.kaggle.com/datasets/hereisburak/pins-face-recognition"
_PREFIX = "pins_"


class PinsFaceRecognition(FileDataset):
    """Pins face recognition: 17,534 colour photographs of 105 celebrities, fetched from Kaggle by hand.

    The folder has a folder ``pins_<name>`` per person; classes are these names in byte order, so that capitalised ones
    come first. There is no official split, so a seeded, stratified one is drawn. The zip archive that Kaggle gives
    works as well, without unpacking it.

    Differs from the published code in: images are held out (published: the test images are the training images, image
    for image; ``holdout=0`` gives that, and :attr:`notes` says so); training and evaluation see images of one scale
    (published: crops of 32 from images of 36 pixels in training, and 36 shrunk to 32 in evaluation; ``margin=4``); the
    statistics are those of the training images (published: of all images at 36 pixels; ``statistics="published"``).

    Args:
        path: the folder ``105_classes_pins_dataset`` or a zip archive of it; None looks for
            ``105_classes_pins_dataset`` and ``pins-face-recognition.zip`` in ``root``.
        size: height and width that the network sees; one number for a square.
        holdout: share of every person's images that is held out; 0 tests on the training images.
        split_seed: seeds that split.
        margin: pixels by which the stored images are larger than ``size``.
        statistics: ``"train"`` normalises with mean and std of the training pixels, ``"published"`` with the numbers
            that the published implementation states.
        root: folder for the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        ConfigError: if the size is below 8 pixels, ``holdout`` outside [0, 1) or ``statistics`` neither.
        DataError: when the images are first needed, if they are not there, or a folder is not named ``pins_<name>``.

    Example:
        >>> PinsFaceRecognition(holdout=0).config()["holdout"]
        0

    Reference:
        "Pins Face Recognition", Kaggle dataset hereisburak/pins-face-recognition.
    """

    paper: ClassVar[str] = "Kaggle hereisburak/pins-face-recognition"
    needs: ClassVar[tuple[str, ...]] = ("folder",)
    official: ClassVar[tuple[int, int]] = (105, 17534)  # people, images
    published: ClassVar[Normalisation | None] = (
        (0.516226053237915, 0.4191001355648041, 0.37332481145858765),
        (0.2862764596939087, 0.2552863657474518, 0.2460651993751526),
    )

    def __init__(
        self,
        path: str | None = None,
        size: int | tuple[int, int] = 32,
        holdout: float = 0.2,
        split_seed: int = 0,
        margin: int = 0,
        statistics: Statistics = "train",
        root: str | None = None,
    ) -> None:
        super().__init__(size, margin, root, statistics)
        if not 0.0 <= holdout < 1.0:
            raise ConfigError(
                f"Expected holdout from 0 up to below 1, got {holdout}; 0 tests on the training images, as published."
            )
        self.path = path
        self.holdout = holdout
        self.split_seed = split_seed

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``."""
        return {
            "path": self.path,
            "size": list(self.size),
            "holdout": self.holdout,
            "split_seed": self.split_seed,
            "margin": self.margin,
            "statistics": self.statistics,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether the test images are the training images, and whether images are missing."""
        images = len(self.train.targets) + (len(self.test.targets) if self.holdout else 0)
        found, notes = (self.num_classes, images), []
        if not self.holdout:
            notes.append(
                "The test images are the training images (holdout=0, the published arrangement): test values are no "
                "held-out values, and membership attacks against them say nothing."
            )
        if found != self.official:
            notes.append(
                f"These are {found[0]} people with {found[1]} images; the whole dataset has {self.official[0]} with "
                f"{self.official[1]}."
            )
        return tuple(notes)

    def place(self) -> Path:
        """The folder or the archive.

        Raises:
            DataError: if it is not there; the text says what to fetch and where to put it.
        """
        usual = ("105_classes_pins_dataset", "pins-face-recognition.zip")
        return placed(self.name, self.path, data_root(self.root), usual, PAGE)

    def arrange(self, listing: Listing) -> Layout:
        """A class per folder ``pins_<name>``; every class is split alike.

        Args:
            listing: what lies in the folder or the archive.
        """
        place = str(self.place())
        folders, parts = by_class(listing, place)
        wrong = [name for name in folders if not name.startswith(_PREFIX)]
        if wrong or "all" not in parts:
            raise DataError(
                f"Expected one folder pins_<name> per person in {place}, found '{(wrong or ['train'])[0]}'; get the "
                f"folder 105_classes_pins_dataset from {PAGE}."
            )
        classes = tuple(name.removeprefix(_PREFIX) for name in folders)
        everyone = parts["all"]
        if not self.holdout:
            return Layout(classes, {"train": everyone, "test": everyone})
        targets = torch.tensor(everyone.targets, dtype=torch.int64)
        return Layout(classes, halves(everyone, stratified_split(targets, classes, self.holdout, self.split_seed)))
