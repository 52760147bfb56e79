"""Official sources: archives that torchvision fetches and checks, and folders that have to be fetched by hand."""

import importlib
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supreme.datasets.lock import locked
from supreme.errors import DataError, OutputError

_BROKEN = (EOFError, ValueError, AssertionError, tarfile.TarError, zipfile.BadZipFile)
_FAILURES = (OSError, RuntimeError, HTTPException, *_BROKEN)


@contextmanager
def fetching(name: str, lock: Path, advice: str) -> Iterator[None]:
    """Fetch or read official files in the block: one process at a time, with one sentence should it fail.

    Args:
        name: the dataset, for the message.
        lock: lock file beside the files.
        advice: what to do without a network, as the end of that sentence.

    Raises:
        DataError: if the block cannot download or read them.
        OutputError: if the folder cannot be written.
    """
    try:
        with locked(lock):
            yield
    except (OutputError, DataError):
        raise
    except _FAILURES as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise DataError(f"Cannot download or read {name} ({reason}); {advice}.") from error


def reader(official: str, **attributes: Any) -> Any:
    """Torchvision's class of a dataset, with class attributes replaced; torchvision is imported now.

    Args:
        official: its name in ``torchvision.datasets``.
        attributes: what to replace.
    """
    return type(official, (getattr(importlib.import_module("torchvision.datasets"), official),), attributes)


def placed(name: str, path: str | None, root: Path, usual: tuple[str, ...], page: str) -> Path:
    """The folder or zip archive of a dataset that nothing downloads.

    Args:
        name: the dataset, for the message.
        path: where the user says that it is, or None.
        root: folder in which it is looked for under its usual names.
        usual: those names, the folder's first.
        page: address of the page that offers it.

    Raises:
        DataError: if it is not there; the text says what to fetch from where and where to put it.
    """
    places = [root / file for file in usual] if path is None else [Path(path).expanduser()]
    for place in places:
        if place.exists():
            return place
    where = f"in {root}, or name its path" if path is None else f"at {path}, where nothing is"
    raise DataError(f"{name} has to be fetched by hand: get it from {page} and place the folder {usual[0]} {where}.")
