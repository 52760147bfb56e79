"""The image store: built once, whole or absent, memory-mapped."""

import errno
import json
import threading

import numpy as np
import psutil
import pytest
import torch

from supreme.datasets import store
from supreme.datasets.base import Content, Images
from supreme.datasets.store import StoredDataset, read_store
from supreme.errors import DataError, OutputError


class Shades(StoredDataset):
    """Images of one shade each; counts how often it is read."""

    reads = 0

    def __init__(self, shade=0, fine=False, root=None):
        super().__init__(root)
        self.shade = shade
        self.fine = fine

    def config(self):
        return {"shade": self.shade}

    def source(self):
        return f"{self.shade} {self.fine}"

    def read(self, allocate):
        self.reads += 1
        pixels = allocate("train", (6, 3, 4, 4))
        for row in range(6):
            pixels[row] = self.shade + row
        targets = torch.arange(6) % 2
        extra = (torch.arange(6) % 3, torch.tensor([2, 1])) if self.fine else (None, None)
        return Content(
            Images(torch.from_numpy(pixels), targets, extra[0]),
            Images(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8), targets[:2], extra[1]),
            ("a", "b"),
            ("x", "y", "z") if self.fine else None,
            files={"train": ["f"] * 6, "test": ["g"] * 2},
        )


def folders(root):
    return sorted(path.name for path in (root / "stores").iterdir())


@pytest.mark.parametrize("fine", [False, True])
def test_what_is_read_comes_back(data_root, fine):
    first, second = Shades(10, fine), Shades(10, fine)
    first.prepare()
    second.prepare()
    assert (first.reads, second.reads) == (1, 0)
    expected = second.read(lambda _split, shape: np.empty(shape, np.uint8))
    for got, wanted in ((second.train, expected.train), (second.test, expected.test)):
        assert torch.equal(got.images, wanted.images)
        assert torch.equal(got.targets, wanted.targets)
        assert (got.subtargets is None) == (wanted.subtargets is None) == (not fine)
        assert not fine or torch.equal(got.subtargets, wanted.subtargets)
        assert (got.images.dtype, got.targets.dtype) == (torch.uint8, torch.int64)
    assert (second.classes, second.subclasses) == (expected.classes, expected.subclasses)
    assert (second.mean, second.std, second.fingerprint) == (first.mean, first.std, first.fingerprint)
    scaled = expected.train.images.double().numpy() / 255
    np.testing.assert_allclose(second.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    assert len(folders(data_root)) == 1


def test_the_store_says_what_it_holds(data_root):
    Shades(3).prepare()
    (folder,) = (data_root / "stores").iterdir()
    about = json.loads((folder / "about.json").read_text())
    assert (about["dataset"], about["config"], about["classes"]) == ("Shades", {"shade": 3}, ["a", "b"])
    assert json.loads((folder / "files.json").read_text()) == {"train": ["f"] * 6, "test": ["g"] * 2}


def test_another_source_is_another_store(data_root):
    assert Shades(1).fingerprint != Shades(2).fingerprint
    assert len(folders(data_root)) == 2


def test_images_are_mapped_and_writing_to_them_leaves_the_file_alone(data_root):
    dataset = Shades(5)
    dataset.prepare()
    mapped = {part.path for part in psutil.Process().memory_maps()} if psutil.LINUX else None
    (file,) = data_root.glob("stores/*/train_images.npy")
    assert len(dataset.train.images)
    assert mapped is None or str(file) in mapped
    dataset.train.images.zero_()
    assert int(Shades(5).train.images.max()) == 10


def test_root_argument_wins(tmp_path, data_root):
    Shades(root=str(tmp_path / "own")).prepare()
    assert (tmp_path / "own" / "stores").is_dir()
    assert not data_root.exists()


def test_a_failed_build_leaves_nothing_and_can_be_repeated(data_root):
    class Failing(Shades):
        def read(self, allocate):
            allocate("train", (6, 3, 4, 4))
            raise DataError("no such picture")

    for _ in range(2):
        with pytest.raises(DataError, match="no such picture"):
            Failing().prepare()
        assert folders(data_root) == []


def test_what_a_killed_build_left_is_removed(data_root):
    Shades(4).prepare()
    (name,) = folders(data_root)
    folder = data_root / "stores" / name
    folder.rename(folder.with_name(f"{name}.12345678.part"))
    Shades(4).prepare()
    assert folders(data_root) == [name]


@pytest.mark.parametrize("file", ["about.json", "train_images.npy", "test_targets.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_store_is_named(data_root, file, damage):
    Shades(7).prepare()
    (folder,) = (data_root / "stores").iterdir()
    if damage == "cut":
        (folder / file).write_bytes((folder / file).read_bytes()[:40])
    else:
        (folder / file).unlink()
    with pytest.raises(DataError, match=f"{folder} is damaged .*delete that folder"):
        Shades(7).prepare()
    with pytest.raises(DataError):
        read_store(folder)


def test_many_threads_build_once(data_root):
    datasets = [Shades(8) for _ in range(5)]
    threads = [threading.Thread(target=dataset.prepare) for dataset in datasets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(dataset.reads for dataset in datasets) == 1
    assert len({dataset.fingerprint for dataset in datasets}) == 1


def test_a_full_disk_is_an_error_and_leaves_nothing(data_root, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="No space left on device; free space"):
        Shades(1).prepare()
    assert folders(data_root) == []


def test_a_file_system_that_cannot_reserve_space_is_fine(monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(store.os, "posix_fallocate", unsupported, raising=False)
    assert int(Shades(1).train.images.max()) == 6


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set SUPREME_DATA or the dataset's root"):
        Shades(root=str(tmp_path / "file")).prepare()
