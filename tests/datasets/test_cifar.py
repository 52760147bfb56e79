"""The CIFAR datasets on small archives in the official format, read and downloaded by the real code."""

import hashlib
import json
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from supreme.datasets import CIFAR10, CIFAR20, CIFAR100
from supreme.datasets.cifar import SUPER_CLASS
from supreme.errors import DataError, OutputError
from supreme.transforms import Augment

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE = [f"fine {number}" for number in range(100)]
COARSE = [f"coarse {number}" for number in range(20)]


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


def batch(count, classes, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8), [i % classes for i in range(count)]


class Archive:
    """A small archive that torchvision takes for the official one."""

    def __init__(self, place, address, monkeypatch, official, files, meta):
        self.official, self.folder = official, place / official.base_folder
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
            monkeypatch.setattr(official, name, value)

    def unpack(self, root):
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.packed) as packed:
            packed.extractall(root, filter="data")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A web server on this machine that stands for the official one."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(Quiet, directory=str(tmp_path / "official"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cifar10(tmp_path, address, monkeypatch):
    files = {}
    for number in range(5):
        data, labels = batch(20, 10, number)
        files[f"data_batch_{number + 1}"] = {"data": data, "labels": labels}
    data, labels = batch(30, 10, 9)
    files["test_batch"] = {"data": data, "labels": labels}
    archive = Archive(
        tmp_path / "official", address, monkeypatch, torchvision.datasets.CIFAR10, files, {"label_names": NAMES_10}
    )
    archive.files = files
    return archive


@pytest.fixture
def cifar100(tmp_path, address, monkeypatch):
    files = {}
    for name, count, seed in (("train", 200, 1), ("test", 100, 2)):
        data, labels = batch(count, 100, seed)
        files[name] = {"data": data, "fine_labels": labels, "coarse_labels": [SUPER_CLASS[label] for label in labels]}
    meta = {"fine_label_names": FINE, "coarse_label_names": COARSE}
    archive = Archive(tmp_path / "official", address, monkeypatch, torchvision.datasets.CIFAR100, files, meta)
    archive.files = files
    return archive


def test_cifar10_from_a_folder_in_the_root(cifar10, data_root):
    cifar10.unpack(data_root)
    dataset = CIFAR10()
    assert dataset.train.images.shape == (100, 3, 32, 32)
    assert dataset.classes == tuple(NAMES_10)
    expected = np.concatenate([cifar10.files[f"data_batch_{number}"]["data"] for number in range(1, 6)])
    assert np.array_equal(dataset.train.images.flatten(1).numpy(), expected)
    assert dataset.train.targets.tolist() == [i % 10 for i in range(20)] * 5
    assert np.array_equal(dataset.test.images.flatten(1).numpy(), cifar10.files["test_batch"]["data"])
    planes = expected.reshape(-1, 3, 1024).astype(float) / 255
    np.testing.assert_allclose(dataset.mean, planes.mean(axis=(0, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, planes.std(axis=(0, 2)), rtol=1e-12)
    assert dataset.class_index("cat") == 3


def test_the_archive_is_downloaded_unpacked_and_then_not_needed_again(cifar10, data_root, monkeypatch):
    first = CIFAR10().fingerprint
    assert (data_root / "cifar-10-batches-py").is_dir()
    for name in ("cifar-10-batches-py", "cifar-10-python.tar.gz"):
        (data_root / name).rename(data_root / f"moved {name}")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/x")
    assert CIFAR10().fingerprint == first


def test_a_placed_archive_is_enough(cifar10, data_root, monkeypatch):
    data_root.mkdir()
    (data_root / "cifar-10-python.tar.gz").write_bytes(cifar10.packed.read_bytes())
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/x")
    assert len(CIFAR10().test.images) == 30


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/cifar-10-python.tar.gz", "http://no-such-host.invalid/x.tar.gz"])
def test_without_network_the_message_says_what_to_place_where(cifar10, data_root, monkeypatch, url):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
    with pytest.raises(DataError) as raised:
        CIFAR10().prepare()
    text = str(raised.value)
    assert text.startswith("Cannot download or read CIFAR10 (")
    assert text.endswith(f"fetch {url} and place cifar-10-python.tar.gz in {data_root}.")
    assert "\n" not in text
    assert not list(data_root.rglob("*.lock"))


def test_a_wrong_archive_is_refused(cifar10, data_root):
    cifar10.packed.write_bytes(b"something else")
    with pytest.raises(DataError, match="Cannot download or read CIFAR10"):
        CIFAR10().prepare()


def test_a_root_that_cannot_be_written_is_an_output_error(cifar10, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set SUPREME_DATA"):
        CIFAR10(root=str(tmp_path / "file")).prepare()


def test_cifar100_has_fine_targets(cifar100, tmp_path):
    dataset = CIFAR100(root=str(tmp_path / "own"))
    assert dataset.classes == tuple(FINE)
    assert dataset.train.targets.tolist() == list(range(100)) * 2
    assert (dataset.subclasses, dataset.train.subtargets) == (None, None)
    assert np.array_equal(dataset.test.images.flatten(1).numpy(), cifar100.files["test"]["data"])
    assert (tmp_path / "own" / "cifar-100-python").is_dir()


def test_cifar20_has_both(cifar100):
    dataset = CIFAR20()
    assert (dataset.classes, dataset.subclasses) == (tuple(COARSE), tuple(FINE))
    assert dataset.train.targets.tolist() == cifar100.files["train"]["coarse_labels"]
    assert dataset.train.subtargets.tolist() == cifar100.files["train"]["fine_labels"]
    assert dataset.class_index("coarse 7") == 7
    assert dataset.class_index("fine 69", fine=True) == 69
    assert dataset.fingerprint != CIFAR100().fingerprint


def test_golden_super_classes():
    expected = json.loads((GOLDEN / "cifar20_map" / "expected.json").read_text())["coarse_of_fine"]
    assert list(SUPER_CLASS) == expected
    assert torch.bincount(torch.tensor(SUPER_CLASS)).tolist() == [5] * 20


def test_facts():
    for dataset in (CIFAR10(), CIFAR100(), CIFAR20()):
        assert dataset.augmentation == Augment(crop_padding=4, flip=True, rotation=15.0)
        assert dataset.config() == {}
        assert dataset.needs == ("download",)
