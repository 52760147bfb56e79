"""UTKFace: faces with their age, in groups of ages."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from supreme.datasets.base import data_root
from supreme.datasets.file_dataset import FileDataset, halves
from supreme.datasets.image_files import Labelled, Layout, Listing
from supreme.datasets.official import placed
from supreme.datasets.split import check_fraction, stratified_split
from supreme.errors import ConfigError, DataError

PAGE = "https://susanqq.github.io/UTKFace/"
FOLDER = "UTKFace"
AGE_GROUPS = (5, 10, 15, 20, 30, 40, 50, 60, 70)
_LABEL = re.compile(r"(\d{1,3})_[01]_[0-4]_\d+\.")  # <age>_<gender>_<race>_<date>.jpg


class UTKFace(FileDataset):
    """UTKFace: 23,708 aligned faces of people aged 1 to 116, in groups of ages, fetched by hand.

    Classes are groups of ages; fine classes are the ages in years, so that fine class 27 is the age of 27. Labels are
    read from the file names ``<age>_<gender>_<race>_<date>.jpg``; files named otherwise are left out, and
    :attr:`notes` counts them. There is no official split, so a seeded, stratified one is drawn.

    The groups are those of Zhang, Song and Qi, who made the dataset: 0-5, 6-10, 11-15, 16-20, then every ten years up
    to 61-70, and all older people. A group without images is left out.

    Args:
        path: the folder ``UTKFace`` or a zip archive of it; None looks for ``UTKFace`` and ``UTKFace.zip`` in ``root``.
        size: height and width of the stored images; one number for a square.
        test_fraction: share of every group that is held out.
        split_seed: seeds that split.
        age_groups: highest age of every group but the last, ascending.
        root: folder for the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        ConfigError: if the size is below 8 pixels, ``test_fraction`` outside (0, 1) or the groups do not ascend.
        DataError: when the images are first needed, if they are not there, or no file name has a label.

    Example:
        >>> UTKFace(age_groups=(17, 64)).config()["age_groups"]
        [17, 64]

    Reference:
        Z. Zhang, Y. Song, H. Qi, "Age Progression/Regression by Conditional Adversarial Autoencoder", 2017,
        arXiv:1702.08423.
    """

    paper: ClassVar[str] = "Zhang, Song, Qi 2017, arXiv:1702.08423"
    needs: ClassVar[tuple[str, ...]] = ("folder",)

    def __init__(
        self,
        path: str | None = None,
        size: int | tuple[int, int] = 32,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        age_groups: Sequence[int] = AGE_GROUPS,
        root: str | None = None,
    ) -> None:
        super().__init__(size, root=root)
        check_fraction(test_fraction)
        groups = tuple(int(age) for age in age_groups)
        if not groups or groups[0] < 0 or list(groups) != sorted(set(groups)):
            raise ConfigError(f"Expected age_groups as ascending highest ages such as (17, 64), got {groups}.")
        self.path = path
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.age_groups = groups

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``."""
        return {
            "path": self.path,
            "size": list(self.size),
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
            "age_groups": list(self.age_groups),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """How many files have no label."""
        self.prepare()
        left = sum(_age(name) is None for name in _faces(self._listing)) if self._listing else 0
        return (f"{left} images without a whole label in their name are left out.",) if left else ()

    def place(self) -> Path:
        """The folder or the archive.

        Raises:
            DataError: if it is not there; the text says what to fetch and where to put it.
        """
        return placed(self.name, self.path, data_root(self.root), (FOLDER, f"{FOLDER}.zip"), PAGE)

    def arrange(self, listing: Listing) -> Layout:
        """A class per group of ages, a fine class per age; every group is split alike.

        Args:
            listing: what lies in the folder or the archive.

        Raises:
            DataError: if no file name has a label, or all are of one group.
        """
        ages = {name: age for name in _faces(listing) if (age := _age(name)) is not None}
        group = {name: sum(age > highest for highest in self.age_groups) for name, age in ages.items()}
        present = sorted(set(group.values()))
        if len(present) < 2:
            raise DataError(
                f"Expected images <age>_<gender>_<race>_<date>.jpg of at least two groups of ages in {self.place()}, "
                f"got {len(ages)} of {len(present)}; get the folder {FOLDER} from {PAGE}."
            )
        files = sorted(ages, key=lambda name: (group[name], name))
        everyone = Labelled(files, [present.index(group[name]) for name in files])
        classes = tuple(self._name(number) for number in present)
        rows = stratified_split(torch.tensor(everyone.targets), classes, self.test_fraction, self.split_seed)
        years = tuple(str(age) for age in range(max(ages.values()) + 1))
        return Layout(classes, halves(everyone, rows), years, ages)

    def _name(self, number: int) -> str:
        """Name of a group: its lowest and highest age."""
        low = self.age_groups[number - 1] + 1 if number else 0
        return f"{low}-{self.age_groups[number]}" if number < len(self.age_groups) else f"{low}+"


def _faces(listing: Listing) -> list[str]:
    """The files of the folder UTKFace, where there are others beside it, else all files."""
    folders = sorted({_folder(file.name) for file in listing.files}, key=lambda folder: (folder.count("/"), folder))
    chosen = next((folder for folder in folders if folder.rpartition("/")[2] == FOLDER), None)
    return [file.name for file in listing.files if chosen is None or _folder(file.name) == chosen]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _age(name: str) -> int | None:
    """Age in years by the name of a file, None without a whole label."""
    label = _LABEL.match(name.rpartition("/")[2])
    return int(label[1]) if label else None
