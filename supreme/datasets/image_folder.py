"""Any folder of images as a dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from supreme.datasets.file_dataset import FileDataset, halves
from supreme.datasets.image_files import Labelled, Layout, Listing, by_class
from supreme.datasets.split import check_fraction, stratified_split
from supreme.errors import ConfigError, DataError


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
        groups: classes made of several folders: class name -> folder names. The folders are the fine classes then;
            both are in the order of their names. None makes every folder a class, without fine classes.
        root: folder for the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        ConfigError: if the size is below 8 pixels, ``test_fraction`` outside (0, 1), there is one group, or a folder
            is in two.
        DataError: when the images are first needed, if the folder is missing, empty, has just one class, a class in
            test that train lacks, too few images of a class to split, an image that cannot be read, or other folders
            than the groups name.

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
        groups: Mapping[str, Sequence[str]] | None = None,
        root: str | None = None,
    ) -> None:
        super().__init__(size, root=root)
        check_fraction(test_fraction)
        self.path = str(path)
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        pairs = sorted((str(name), sorted(map(str, few))) for name, few in (groups or {}).items())
        self.groups = None if groups is None else dict(pairs)  # sorted, as plans do not keep the order of a mapping
        if self.groups is not None and len(self.groups) < 2:
            raise ConfigError(f"Expected at least two groups, got {len(self.groups)}; leave 'groups' out for none.")
        named = [folder for few in (self.groups or {}).values() for folder in few]
        twice = next((folder for folder in named if named.count(folder) > 1), None)
        if twice is not None:
            raise ConfigError(f"Expected every folder in one group, but '{twice}' is named twice; name it once.")

    def config(self) -> dict[str, Any]:
        """All arguments but ``root``, and the groups where there are some."""
        plain = {"path": self.path, "size": list(self.size)}
        split = {"test_fraction": self.test_fraction, "split_seed": self.split_seed}
        return {**plain, **split, **({} if self.groups is None else {"groups": self.groups})}

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
        return Layout(classes, parts) if self.groups is None else _grouped(self.groups, classes, parts)


def _grouped(groups: Mapping[str, Sequence[str]], folders: Sequence[str], parts: Mapping[str, Labelled]) -> Layout:
    """Groups as classes, folders as fine classes."""
    group_of = {folder: place for place, few in enumerate(groups.values()) for folder in few}
    odd = sorted(group_of.keys() ^ set(folders))
    if odd:
        where = "lies in no group" if odd[0] in folders else "is named in a group but has no images"
        raise DataError(f"Expected every folder in one group, but '{odd[0]}' {where}; correct 'groups'.")
    coarse = {
        split: Labelled(part.files, [group_of[folders[target]] for target in part.targets])
        for split, part in parts.items()
    }
    fine = {name: target for part in parts.values() for name, target in zip(part.files, part.targets, strict=True)}
    return Layout(tuple(groups), coarse, tuple(folders), fine)
