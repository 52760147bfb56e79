"""The image store: uint8 images in memory-mapped files, built once per machine."""

import errno
import hashlib
import json
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supreme.datasets.base import Content, ImageDataset, Images, Prepared, data_root, summarise
from supreme.datasets.lock import build_once
from supreme.errors import DataError

_FORMAT = 1
_ABOUT = "about.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class StoredDataset(ImageDataset):
    """Base of datasets whose images are decoded once into a store on disk and memory-mapped from then on.

    A store is a folder of ``.npy`` files and ``about.json`` below ``<root>/stores``. It appears by one rename, so it
    is either whole or absent. One process builds it while the others wait. Another :meth:`source` is another store.
    """

    @abstractmethod
    def source(self) -> str:
        """Signature of everything that determines the content; cheap, as it is asked in every process."""

    def _load(self) -> Prepared:
        key = hashlib.sha256(json.dumps([_FORMAT, self.name, self.source()]).encode()).hexdigest()[:16]
        folder = data_root(self.root) / "stores" / f"{self.name}-{key}"
        build_once(folder, self._build)
        return read_store(folder)

    def _build(self, folder: Path) -> None:
        content = self.read(lambda split, shape: _map(folder / f"{split}_images.npy", shape))
        write_store(folder, summarise(content, self.name), {"dataset": self.name, "config": self.config()})


def write_store(folder: Path, prepared: Prepared, about: dict[str, Any]) -> None:
    """Write what has been read and derived into an empty folder.

    Args:
        folder: an existing folder; images that already lie in it are kept.
        prepared: content, statistics and fingerprint.
        about: further plain values for ``about.json``.
    """
    content = prepared.content
    for split, part in (("train", content.train), ("test", content.test)):
        for name, array in part._asdict().items():
            file = folder / f"{split}_{name}.npy"
            if array is not None and not file.exists():
                np.save(file, array.numpy())
    if content.files is not None:
        (folder / "files.json").write_text(json.dumps(content.files, indent=1))
    values = {"format": _FORMAT, **about, **prepared._asdict(), "classes": content.classes}
    del values["content"]
    (folder / _ABOUT).write_text(json.dumps({**values, "subclasses": content.subclasses}, indent=1))


def read_store(folder: Path) -> Prepared:
    """Open a store; images stay on disk until they are used, and writing to them changes nothing there.

    Raises:
        DataError: if a file is missing or damaged.
    """
    try:
        about = json.loads((folder / _ABOUT).read_text())
        files = folder / "files.json"
        content = Content(
            train=_split(folder, "train"),
            test=_split(folder, "test"),
            classes=tuple(about["classes"]),
            subclasses=None if about["subclasses"] is None else tuple(about["subclasses"]),
            files=json.loads(files.read_text()) if files.exists() else None,
        )
        return Prepared(content, tuple(about["mean"]), tuple(about["std"]), str(about["fingerprint"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"The image store {folder} is damaged ({error}); delete that folder and run again.") from error


def _split(folder: Path, split: str) -> Images:
    fine = folder / f"{split}_subtargets.npy"
    return Images(
        images=_open(folder / f"{split}_images.npy"),
        targets=torch.from_numpy(np.load(folder / f"{split}_targets.npy")),
        subtargets=torch.from_numpy(np.load(fine)) if fine.exists() else None,
    )


def _open(file: Path) -> Tensor:
    """A tensor on copy-on-write pages of the file."""
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def _map(file: Path, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A new array on disk whose space is reserved, so that a full disk is an error here and not a crash later."""
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as handle:
            try:
                os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno in _NO_SPACE:  # other errors: a file system that cannot reserve space
                    raise
    return array
