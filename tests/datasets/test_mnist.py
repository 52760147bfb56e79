"""MNIST and Fashion-MNIST on small idx files in the official format, downloaded and read by torchvision's own code."""

import gzip
import hashlib

import numpy as np
import pytest
import torch
import torchvision

from supreme.datasets import MNIST, FashionMNIST
from supreme.errors import ConfigError, DataError
from supreme.transforms import Augment

PAIRS = [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")]


@pytest.fixture
def official(tmp_path, monkeypatch, address, official_files):
    """Serve four small files for a class of torchvision; its table of sums and its addresses are replaced."""

    def make(name):
        kind, arrays, resources = getattr(torchvision.datasets, name), {}, []
        for part, count in (("train", 40), ("t10k", 20)):
            arrays[part] = official_files.digits(count)
            for file, array in zip(("images-idx3", "labels-idx1"), arrays[part], strict=True):
                place = tmp_path / "official" / f"{part}-{file}-ubyte.gz"
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(gzip.compress(official_files.idx(array)))
                resources.append((place.name, hashlib.md5(place.read_bytes()).hexdigest()))
        assert {file for file, _ in resources} == {file for file, _ in kind.resources}
        monkeypatch.setattr(kind, "resources", resources)
        monkeypatch.setattr(kind, "mirrors", [f"{address}/"])
        return arrays

    return make


@pytest.mark.parametrize(("dataset", "name"), PAIRS)
def test_files_are_downloaded_checked_and_read(official, data_root, dataset, name):
    arrays, made = official(name), dataset()
    for part, split in (("train", made.train), ("t10k", made.test)):
        assert np.array_equal(split.images[:, 0].numpy(), arrays[part][0])
        assert split.targets.tolist() == arrays[part][1].tolist()
    scaled = arrays["train"][0].astype(float) / 255
    np.testing.assert_allclose((*made.mean, *made.std), (scaled.mean(), scaled.std()), rtol=1e-12)
    assert (made.train.images.shape, made.train.targets.dtype) == ((40, 1, 28, 28), torch.int64)
    assert (data_root / name / "raw").is_dir()


def test_the_store_is_all_that_is_needed_later(official, data_root):
    official("MNIST")
    first = MNIST().fingerprint
    (data_root / "MNIST").rename(data_root / "moved")
    assert MNIST().fingerprint == first


def test_classes(official):
    official("MNIST")
    assert MNIST().classes == tuple("0123456789")
    assert MNIST().class_index("7") == MNIST().class_index(7) == 7


def test_garments_have_names(official):
    official("FashionMNIST")
    assert FashionMNIST().class_index("ankle boot") == 9
    assert FashionMNIST().class_index("T-shirt/top") == 0


def test_placed_files_are_enough(official, data_root, tmp_path, monkeypatch):
    official("MNIST")
    (data_root / "MNIST").mkdir(parents=True)
    (tmp_path / "official").rename(data_root / "MNIST" / "raw")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    assert len(MNIST().test.images) == 20


@pytest.mark.parametrize("fault", ["no network", "wrong sum", "cut"])
def test_what_is_missing_or_wrong_is_said_in_one_sentence(official, official_files, data_root, monkeypatch, fault):
    official("MNIST")
    kind = torchvision.datasets.MNIST
    if fault == "no network":
        monkeypatch.setattr(kind, "mirrors", ["http://127.0.0.1:9/"])
    if fault == "wrong sum":
        monkeypatch.setattr(kind, "resources", [(file, "0" * 32) for file, _ in kind.resources])
    if fault == "cut":
        for file, _ in kind.resources:
            place = data_root / "MNIST" / "raw" / file.removesuffix(".gz")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(official_files.idx(np.zeros((4, 28, 28), np.uint8))[:100])
    with pytest.raises(DataError) as raised:
        MNIST().prepare()
    text = str(raised.value)
    assert text.startswith("Cannot download or read MNIST (")
    assert text.endswith(f"and place them, and nothing else, in {data_root / 'MNIST' / 'raw'}.")
    assert "\n" not in text
    assert not list(data_root.rglob("*.lock"))


def test_facts():
    assert MNIST().augmentation == Augment()
    assert FashionMNIST().augmentation == Augment(3, True)
    for dataset in (MNIST(), FashionMNIST()):
        assert (dataset.config(), dataset.needs) == ({}, ("download",))
    with pytest.raises(TypeError):
        MNIST(statistics="published")
    with pytest.raises(ConfigError, match="No statistics are published for MNIST"):
        super(MNIST, MNIST()).__init__(statistics="published")
