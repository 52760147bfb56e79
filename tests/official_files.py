"""Small files in the official formats of the datasets; loaded by the fixture ``official_files`` when used."""

import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from numpy.typing import NDArray
from PIL import Image

from supreme.datasets.cifar import SUPER_CLASS

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE = [f"fine {number}" if number != 69 else "rocket" for number in range(100)]
COARSE = [f"coarse {number}" for number in range(20)]


def dump(path: Path, value: Any) -> str:
    """Pickle a value; gives the file's MD5 sum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


def rows(count: int, classes: int, seed: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels as CIFAR stores them, and classes in turn."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8), [i % classes for i in range(count)]


class Archive:
    """A small archive that torchvision takes for the official one: its sums and its address are replaced."""

    def __init__(self, place: Path, address: str, patch: Any, official: Any, files: dict[str, Any], meta: Any) -> None:
        self.official, self.files, self.folder = official, files, place / official.base_folder
        sums = {name: dump(self.folder / name, value) for name, value in files.items()}
        changes = {
            "train_list": [[name, sums[name]] for name, _ in official.train_list],
            "test_list": [[name, sums[name]] for name, _ in official.test_list],
            "meta": {**official.meta, "md5": dump(self.folder / official.meta["filename"], meta)},
        }
        self.packed = place / official.filename
        with tarfile.open(self.packed, "w:gz") as made:
            made.add(self.folder, official.base_folder)
        changes["tgz_md5"] = hashlib.md5(self.packed.read_bytes()).hexdigest()
        changes["url"] = f"{address}/{self.packed.name}"
        for name, value in changes.items():
            patch.setattr(official, name, value)

    def unpack(self, root: Path) -> None:
        """Unpack it as torchvision does."""
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.packed) as packed:
            packed.extractall(root, filter="data")


def cifar10(place: Path, address: str, patch: Any) -> Archive:
    """CIFAR-10 with 100 training and 30 test images."""
    files = {}
    for number in range(5):
        data, labels = rows(20, 10, number)
        files[f"data_batch_{number + 1}"] = {"data": data, "labels": labels}
    data, labels = rows(30, 10, 9)
    files["test_batch"] = {"data": data, "labels": labels}
    return Archive(place, address, patch, torchvision.datasets.CIFAR10, files, {"label_names": TEN})


def cifar100(place: Path, address: str, patch: Any) -> Archive:
    """CIFAR-100 with 200 training and 100 test images."""
    files = {}
    for name, count, seed in (("train", 200, 1), ("test", 100, 2)):
        data, labels = rows(count, 100, seed)
        files[name] = {"data": data, "fine_labels": labels, "coarse_labels": [SUPER_CLASS[label] for label in labels]}
    meta = {"fine_label_names": FINE, "coarse_label_names": COARSE}
    return Archive(place, address, patch, torchvision.datasets.CIFAR100, files, meta)


def idx(array: NDArray[np.uint8]) -> bytes:
    """An idx file as MNIST has them: magic number with type and dimensions, big-endian sizes, values."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def digits(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images and classes of one part of MNIST."""
    draw = np.random.default_rng(count)
    return draw.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10


def jpeg(seed: int, *shape: int) -> bytes:
    """A picture of noise as a JPEG file."""
    buffer = io.BytesIO()
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(buffer, "JPEG")
    return buffer.getvalue()


def fill(root: Path, patch: Any) -> None:
    """Everything in its place below a data root, so that no dataset needs a network."""
    for make in (cifar10, cifar100):
        make(root / "official", "http://127.0.0.1:9", patch).unpack(root)
    for name in ("MNIST", "FashionMNIST"):
        for part, count in (("train", 40), ("t10k", 20)):
            for kind, array in zip(("images-idx3", "labels-idx1"), digits(count), strict=True):
                _write(root / name / "raw" / f"{part}-{kind}-ubyte", idx(array))
    for number in range(20):
        person = ("Adriana Lima", "tom ellis")[number % 2]
        _write(root / "105_classes_pins_dataset" / f"pins_{person}" / f"{person}{number}.jpg", jpeg(number, 12, 12, 3))
        category = ("airplanes", "car_side", "BACKGROUND_Google")[number % 3]
        _write(root / "101_ObjectCategories" / category / f"image_{number + 1:04d}.jpg", jpeg(number, 12, 9, 3))
        face = f"{5 * (number % 4) + 3}_{number % 2}_{number % 5}_2017010915055{number:04d}.jpg.chip.jpg"
        _write(root / "UTKFace" / face, jpeg(number, 20, 20, 3))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
