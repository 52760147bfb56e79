"""The CIFAR datasets on small archives in the official format, read and downloaded by the real code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from supreme.datasets import CIFAR10, CIFAR20, CIFAR100
from supreme.datasets.cifar import SUPER_CLASS
from supreme.errors import ConfigError, DataError, OutputError
from supreme.methods import SSD
from supreme.scenarios import SubClass
from supreme.transforms import Augment

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def cifar10(tmp_path, address, monkeypatch, official_files):
    return official_files.cifar10(tmp_path / "official", address, monkeypatch)


@pytest.fixture
def cifar100(tmp_path, address, monkeypatch, official_files):
    return official_files.cifar100(tmp_path / "official", address, monkeypatch)


def test_cifar10_from_a_folder_in_the_root(cifar10, data_root, official_files):
    cifar10.unpack(data_root)
    dataset = CIFAR10()
    assert dataset.train.images.shape == (100, 3, 32, 32)
    assert dataset.classes == tuple(official_files.TEN)
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


def test_cifar100_has_fine_targets(cifar100, tmp_path, official_files):
    dataset = CIFAR100(root=str(tmp_path / "own"))
    assert dataset.classes == tuple(official_files.FINE)
    assert dataset.train.targets.tolist() == list(range(100)) * 2
    assert (dataset.subclasses, dataset.train.subtargets) == (None, None)
    assert np.array_equal(dataset.test.images.flatten(1).numpy(), cifar100.files["test"]["data"])
    assert (tmp_path / "own" / "cifar-100-python").is_dir()


def test_cifar20_has_both(cifar100, official_files):
    dataset = CIFAR20()
    assert (dataset.classes, dataset.subclasses) == (tuple(official_files.COARSE), tuple(official_files.FINE))
    assert dataset.train.targets.tolist() == cifar100.files["train"]["coarse_labels"]
    assert dataset.train.subtargets.tolist() == cifar100.files["train"]["fine_labels"]
    assert dataset.class_index("coarse 7") == 7
    assert dataset.class_index("fine 68", fine=True) == 68
    assert dataset.fingerprint != CIFAR100().fingerprint


def test_golden_super_classes():
    expected = json.loads((GOLDEN / "cifar20_map" / "expected.json").read_text())["coarse_of_fine"]
    assert list(SUPER_CLASS) == expected
    assert torch.bincount(torch.tensor(SUPER_CLASS)).tolist() == [5] * 20


def test_facts():
    for dataset in (CIFAR10(), CIFAR100(), CIFAR20()):
        assert dataset.augmentation == Augment(crop_padding=4, flip=True, rotation=15.0)
        assert dataset.config() == {"statistics": "train"}
        assert dataset.needs == ("download",)


@pytest.mark.parametrize(("dataset", "name"), [(CIFAR10, "cifar10"), (CIFAR100, "cifar100"), (CIFAR20, "cifar20")])
def test_published_statistics_are_an_option(cifar10, cifar100, dataset, name):
    stored = json.loads((GOLDEN / "transforms" / "expected.json").read_text())["normalisation"][name]
    published = dataset(statistics="published")
    assert (list(published.mean), list(published.std)) == (stored["mean"], stored["std"])
    assert published.config() == {"statistics": "published"}
    own = dataset()
    assert own.fingerprint == published.fingerprint
    assert own.mean != published.mean
    with pytest.raises(ConfigError, match="'train' or 'published', got 'mine'"):
        dataset(statistics="mine")


def test_a_sub_class_of_cifar20_is_forgotten(cifar100, fit, tasks):
    scenario = SubClass(CIFAR20(), ["Rocket", "fine_41"], batch_size=32)
    sets, request = scenario.indices(), scenario.request
    assert request.forget_classes == (19,)  # 41 and 69 are vehicles 2
    assert request.forget_subclasses == (41, 69)
    assert request.num_classes == 20
    assert sets["forget_train"].tolist() == [41, 69, 141, 169]
    assert sets["forget_test"].tolist() == [41, 69]
    assert len(sets["retain_train"]) == 196
    left = scenario.dataset.train.targets[sets["retain_train"]]
    assert int((left == 19).sum()) == 6  # three fine classes of the super-class stay
    method = SSD(tasks.tiny_network(classes=20))
    before = {name: value.clone() for name, value in method.model.state_dict().items()}
    after = fit(method, scenario).model.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
