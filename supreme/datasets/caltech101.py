"""Caltech-101: objects of 101 categories, from the official archive."""

import shutil
import uuid
from pathlib import Path
from typing import Any, ClassVar

import torch

from supreme.datasets.base import Normalisation, Statistics, data_root
from supreme.datasets.file_dataset import FileDataset, halves
from supreme.datasets.image_files import ImageFile, Layout, Listing, by_class
from supreme.datasets.official import fetching, reader
from supreme.datasets.split import leading_split
from supreme.errors import DataError

PAGE = "https://data.caltech.edu/records/mzrjq-6wc02"
ARCHIVE = "caltech-101.zip"
FOLDER = "101_ObjectCategories"
BACKGROUND = "BACKGROUND_Google"


class Caltech101(FileDataset):
    """Caltech-101: 8,677 images of 101 categories, downloaded through torchvision.

    The background folder is left out. Classes are the folder names in byte order, so that capitalised ones come first.
    Of every class the first 80 % of the images, by number, are for training and the others for testing: 6,907 and
    1,770. The official archive is checked before it is unpacked. Without a network, place it in ``root``, or the folder
    ``101_ObjectCategories`` in it.

    Differs from the published code in: names are those of the folders (published: a table with a category too many,
    which moves every index after ``butterfly`` by one); training and evaluation see images of one scale (published:
    crops of 32 from images of 36 pixels in training, and 36 shrunk to 32 in evaluation; ``margin=4``); the statistics
    are those of the training images (published: of all images at 36 pixels; ``statistics="published"``).

    Args:
        size: height and width that the network sees; one number for a square.
        margin: pixels by which the stored images are larger than ``size``.
        statistics: ``"train"`` normalises with mean and std of the training pixels, ``"published"`` with the numbers
            that the published implementation states.
        root: folder for the archive and the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        ConfigError: if the size is below 8 pixels or ``statistics`` neither.
        DataError: when the images are first needed, if the archive can neither be found nor downloaded.

    Example:
        >>> Caltech101(size=64).config()
        {'size': [64, 64], 'margin': 0, 'statistics': 'train'}

    Reference:
        L. Fei-Fei, R. Fergus, P. Perona, "Learning Generative Visual Models from Few Training Examples", 2004.
    """

    paper: ClassVar[str] = "Fei-Fei, Fergus, Perona 2004, Caltech-101, doi:10.22002/D1.20086"
    needs: ClassVar[tuple[str, ...]] = ("download", "folder")
    official: ClassVar[tuple[int, int]] = (101, 8677)  # classes, images
    published: ClassVar[Normalisation | None] = (
        (0.5458726286888123, 0.5287854075431824, 0.5021448731422424),
        (0.2954096496105194, 0.2890913784503937, 0.3031054437160492),
    )

    def __init__(
        self,
        size: int | tuple[int, int] = 32,
        margin: int = 0,
        statistics: Statistics = "train",
        root: str | None = None,
    ) -> None:
        super().__init__(size, margin, root, statistics)

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``."""
        return {"size": list(self.size), "margin": self.margin, "statistics": self.statistics}

    @property
    def notes(self) -> tuple[str, ...]:
        """Whether images are missing."""
        found = (self.num_classes, len(self.train.targets) + len(self.test.targets))
        if found == self.official:
            return ()
        return (
            f"These are {found[0]} classes with {found[1]} images; the whole dataset has {self.official[0]} with "
            f"{self.official[1]}.",
        )

    def place(self) -> Path:
        """The folder of the categories; it is downloaded and unpacked first where it is not there.

        Raises:
            DataError: if the archive can neither be found nor downloaded.
        """
        root = data_root(self.root)
        known = [root / "caltech101" / FOLDER, root / FOLDER]
        for place in known:
            if place.is_dir():
                return place
        advice = f"fetch {ARCHIVE} from {PAGE} and place it in {root}"
        with fetching(self.name, root / f"{ARCHIVE}.lock", advice):
            if not known[0].is_dir():
                _unpack(root, known[0])
        return known[0]

    def arrange(self, listing: Listing) -> Layout:
        """A class per folder but the background's; the first images of every class are for training.

        Args:
            listing: what lies in the folder.
        """
        classes, parts = by_class(_foreground(listing), str(self.place()))
        if "all" not in parts:
            raise DataError(f"Expected one folder per category in {self.place()}, found train and test; remove them.")
        targets = torch.tensor(parts["all"].targets, dtype=torch.int64)
        fewest = int(torch.bincount(targets).argmin())
        if int((targets == fewest).sum()) < 2:
            raise DataError(
                f"Expected at least 2 images per category in {self.place()}, got one of '{classes[fewest]}'; delete "
                f"that folder to have the archive unpacked again."
            )
        return Layout(classes, halves(parts["all"], leading_split(targets, classes, 0.8)))


def _unpack(root: Path, wanted: Path) -> None:
    """Let torchvision fetch, check and unpack the archive elsewhere, then move the folder into place as a whole."""
    part = root / f"caltech101.{uuid.uuid4().hex[:8]}.part"
    for left in root.glob("caltech101.*.part"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        (part / "caltech101").mkdir(parents=True)
        for archive in (root / ARCHIVE, root / "caltech101" / ARCHIVE):
            if archive.is_file():
                shutil.copyfile(archive, part / "caltech101" / ARCHIVE)
                break
        reader("Caltech101")(str(part), download=True)
        wanted.parent.mkdir(exist_ok=True)
        (part / "caltech101" / FOLDER).rename(wanted)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _foreground(listing: Listing) -> Listing:
    """The same without the background folder."""

    def kept(name: str) -> bool:
        return BACKGROUND not in name.split("/")

    files: list[ImageFile] = [file for file in listing.files if kept(file.name)]
    return Listing(files, {folder for folder in listing.folders if kept(folder)})
