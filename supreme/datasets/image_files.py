"""Image files in a folder or a zip archive: finding them, sorting them into classes, decoding them."""

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from supreme.errors import DataError

# Formats for which Pillow has an entry but no decoder of its own, or which would start another program.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"}


class ImageFile(NamedTuple):
    """One image file.

    Attributes:
        name: path below the folder or inside the archive, with forward slashes.
        size: bytes.
        stamp: modification time in nanoseconds, or the checksum in an archive.
    """

    name: str
    size: int
    stamp: int


class Listing(NamedTuple):
    """Everything found in a folder or an archive.

    Attributes:
        files: image files in name order.
        folders: every folder, by its path with forward slashes.
    """

    files: list[ImageFile]
    folders: set[str]


class Labelled(NamedTuple):
    """Image files with their classes.

    Attributes:
        files: file names, class by class.
        targets: class of every file.
    """

    files: list[str]
    targets: list[int]


class Layout(NamedTuple):
    """How the files of a folder make a dataset.

    Attributes:
        classes: class names.
        parts: the files of ``"train"`` and ``"test"``, or those of ``"all"`` where a split has to be made.
        subclasses: names of the fine classes, None without.
        fine: fine class of every file, by name, None without.
    """

    classes: tuple[str, ...]
    parts: dict[str, Labelled]
    subclasses: tuple[str, ...] | None = None
    fine: dict[str, int] | None = None


def list_images(path: Path) -> Listing:
    """Find all image files below a folder or in a zip archive; hidden ones are left out.

    Raises:
        DataError: if the path does not exist, is neither, or the archive is damaged or unsafe.
    """
    if path.is_dir():
        return _list_folder(path)
    if not path.exists():
        raise DataError(f"Expected a folder of images or a zip archive at {path}, but nothing is there.")
    try:
        with zipfile.ZipFile(path) as archive:
            return _list_archive(archive, path)
    except zipfile.BadZipFile as error:
        raise DataError(f"Expected a folder of images or a zip archive, got the file {path} ({error}).") from error


def _list_folder(path: Path) -> Listing:
    files: list[ImageFile] = []
    folders: set[str] = set()
    seen: set[str] = set()
    for place, below, names in os.walk(path, onerror=_unlisted, followlinks=True):
        real = os.path.realpath(place)
        below[:] = [] if real in seen else sorted(name for name in below if not _hidden(name))
        if real in seen:
            continue
        seen.add(real)
        here = Path(place)
        if here != path:
            folders.add(here.relative_to(path).as_posix())
        files += [_examine(here / name, path) for name in names if _is_image(name) and not _hidden(name)]
    return Listing(sorted(files), folders)


def _unlisted(error: OSError) -> None:
    raise DataError(f"Cannot list the folder {error.filename} ({error.strerror}); make it readable or remove it.")


def _examine(file: Path, path: Path) -> ImageFile:
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(str(file), error) from error
    return ImageFile(file.relative_to(path).as_posix(), status.st_size, status.st_mtime_ns)


def _unreadable(name: str, error: Exception) -> DataError:
    """One sentence about a file; Pillow names the buffer that it was given, which says nothing to the reader."""
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "it is no image, or a damaged one"
    return DataError(f"Cannot read the image {name} ({reason}); repair or remove it.")


def _list_archive(archive: zipfile.ZipFile, path: Path) -> Listing:
    files: list[ImageFile] = []
    folders: set[str] = set()
    for entry in archive.infolist():
        parts = entry.filename.rstrip("/").split("/")
        if ".." in parts or entry.filename.startswith("/") or "\\" in entry.filename or ":" in entry.filename:
            raise DataError(f"The archive {path} has the unsafe name '{entry.filename}'; make it again without it.")
        if any(map(_hidden, parts)):
            continue
        depth = len(parts) + 1 if entry.is_dir() else len(parts)
        folders.update("/".join(parts[:end]) for end in range(1, depth))
        if not entry.is_dir() and _is_image(entry.filename):
            files.append(ImageFile(entry.filename, entry.file_size, entry.CRC))
    return Listing(sorted(files), folders)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


@cache
def _endings() -> frozenset[str]:
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind in Image.OPEN and kind not in _NOT_DECODED)


def _is_image(name: str) -> bool:
    stem, _, ending = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and f".{ending.lower()}" in _endings()


def by_class(listing: Listing, where: str) -> tuple[tuple[str, ...], dict[str, Labelled]]:
    """Sort files into classes by their first folder.

    Files beside the class folders are left out. A single folder around everything is stepped into.

    Args:
        listing: what was found.
        where: the folder or archive, for messages.

    Returns:
        The class names in byte order, and the files of ``"train"`` and ``"test"`` where both folders exist, else
        those of ``"all"``.

    Raises:
        DataError: if there are fewer than two classes, a class without images, a test class that is not in the
            training part, or just one of the two folders train and test.
    """
    prefix = ""
    tops = _below(listing.folders, prefix)
    while len(tops) == 1 and _below(listing.folders, f"{prefix}{tops[0]}/") and tops[0] not in ("train", "test"):
        prefix += tops[0] + "/"
        tops = _below(listing.folders, prefix)
    halves: list[str] = [name for name in ("train", "test") if name in tops]
    if len(halves) == 1:
        raise DataError(
            f"Expected both train and test folders in {where}, found only {halves[0]}; add the other one, or point to "
            f"{halves[0]} itself to have a split drawn."
        )
    roots: dict[str, str] = {half: f"{prefix}{half}/" for half in halves} or {"all": prefix}
    groups = {split: _group(listing, root, where) for split, root in roots.items()}
    first = groups.get("train") or groups.get("all") or {}
    if len(first) < 2:
        raise DataError(f"Expected at least two class folders with images in {where}, got {len(first)}.")
    stray = sorted(set(groups.get("test", {})) - set(first))
    if stray:
        raise DataError(f"Expected every test class of {where} in train too, but '{stray[0]}' is only in test.")
    classes = tuple(sorted(first))
    return classes, {split: _label(group, classes) for split, group in groups.items()}


def _below(folders: Iterable[str], prefix: str) -> list[str]:
    """Names of the folders directly below a prefix."""
    return sorted({name[len(prefix) :].split("/")[0] for name in folders if name.startswith(prefix)})


def _group(listing: Listing, root: str, where: str) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {name: [] for name in _below(listing.folders, root)}
    for file in listing.files:
        name, slash, _ = file.name[len(root) :].partition("/")
        if file.name.startswith(root) and slash:
            groups[name].append(file.name)
    if not any(groups.values()):
        raise DataError(f"Expected one folder of images per class in {where}/{root}".rstrip("/") + ", found no image.")
    empty = [name for name, files in groups.items() if not files]
    if empty:
        raise DataError(f"Expected images in every class folder of {where}, but '{root}{empty[0]}' has none.")
    return groups


def _label(group: dict[str, list[str]], classes: tuple[str, ...]) -> Labelled:
    files = [file for name in classes for file in group.get(name, [])]
    return Labelled(files, [number for number, name in enumerate(classes) for _ in group.get(name, [])])


@contextlib.contextmanager
def opener(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Reader of the bytes of a listed file; it may be used by many threads and names a file that it cannot read."""
    with contextlib.ExitStack() as stack:
        archive = None if path.is_dir() else stack.enter_context(zipfile.ZipFile(path))

        def fetch(name: str) -> bytes:
            try:
                return (path / name).read_bytes() if archive is None else archive.read(name)
            except Exception as error:
                raise _unreadable(str(path / name), error) from error

        yield fetch


def is_grey(data: bytes, name: str) -> bool:
    """Whether an image has no colour by its header.

    Raises:
        DataError: if it is no image that can be read; the message names it.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode in _GREY_MODES
    except Exception as error:
        raise _unreadable(name, error) from error


def decode(data: bytes, name: str, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Pixels of an image, upright, resized by antialiased bilinear interpolation.

    Transparency is dropped, 16-bit grey values are scaled to 8 bits, of an animation the first picture is taken.

    Args:
        data: the file's bytes.
        name: what to call it in messages.
        size: height and width.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 (channels, height, width).

    Raises:
        DataError: if the image cannot be read; the message names it.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            with contextlib.suppress(Exception):  # damaged EXIF data say nothing about the pixels
                ImageOps.exif_transpose(image, in_place=True)
            plain = _eight_bit(image).convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(plain.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    except Exception as error:
        raise _unreadable(name, error) from error
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """The same picture in a mode whose conversion to grey or RGB loses nothing but transparency."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values outside 0 to 65535; save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("P", "PA"):
        return image.convert("RGBA")
    return image
