"""Folders of images from end to end, on made and on real pictures."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from supreme.datasets import ImageFolder
from supreme.datasets.image_files import by_class, list_images
from supreme.errors import ConfigError, DataError
from supreme.scenarios import SubClass
from supreme.transforms import Augment


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def picture(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def grey_folder(tmp_path):
    """Two classes of grey pictures of their final size, without a split."""
    for name, first in (("cat", 0), ("dog", 100)):
        for number in range(10):
            save(tmp_path / "pets" / name / f"{number}.png", picture(first + number, 8, 8))
    return tmp_path / "pets"


@pytest.fixture
def split_folder(tmp_path):
    """Colour pictures of many sizes, with a split."""
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                array = picture(number, 20 + number, 30 - number, 3)
                save(tmp_path / "split" / split / name / f"{number}.png", array)
    return tmp_path / "split"


def stores(root):
    return list((root / "stores").iterdir())


def test_pixels_targets_and_a_drawn_split(grey_folder, data_root):
    dataset = ImageFolder(str(grey_folder), size=8)
    assert dataset.train.images.shape == (16, 1, 8, 8)
    assert dataset.test.images.shape == (4, 1, 8, 8)
    assert torch.bincount(dataset.test.targets).tolist() == [2, 2]
    assert dataset.classes == ("cat", "dog")
    files = json.loads((stores(data_root)[0] / "files.json").read_text())
    assert sorted(files["train"] + files["test"]) == sorted(
        f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)
    )
    for split, part in (("train", dataset.train), ("test", dataset.test)):
        for row, name in enumerate(files[split]):
            assert np.array_equal(part.images[row, 0].numpy(), np.asarray(Image.open(grey_folder / name)))
            assert dataset.classes[part.targets[row]] == name.split("/")[0]


def test_a_given_split_is_taken_and_sizes_are_made_equal(split_folder):
    dataset = ImageFolder(str(split_folder), size=(16, 12), test_fraction=0.5, split_seed=3)
    assert dataset.train.images.shape == (8, 3, 16, 12)
    assert dataset.test.images.shape == (4, 3, 16, 12)
    assert dataset.test.targets.tolist() == [0, 0, 1, 1]
    for row, number in enumerate((0, 1, 0, 1)):
        original = Image.fromarray(picture(number, 20 + number, 30 - number, 3))
        expected = np.asarray(original.resize((12, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.array_equal(dataset.test.images[row].numpy(), expected)


def test_one_colour_picture_makes_three_channels(grey_folder):
    save(grey_folder / "dog" / "colour.png", picture(7, 8, 8, 3))
    dataset = ImageFolder(str(grey_folder), size=8)
    assert dataset.train.images.shape[1] == 3
    grey = torch.cat((dataset.train.images, dataset.test.images))
    equal = (grey[:, 0] == grey[:, 1]).flatten(1).all(1) & (grey[:, 0] == grey[:, 2]).flatten(1).all(1)
    assert int(equal.sum()) == 20


def test_the_store_is_built_once(grey_folder, monkeypatch):
    first = ImageFolder(str(grey_folder), size=8).fingerprint
    monkeypatch.setattr("supreme.datasets.file_dataset.decode", None)
    assert ImageFolder(str(grey_folder), size=8).fingerprint == first


def test_a_changed_folder_is_another_store(grey_folder, data_root):
    seen = {ImageFolder(str(grey_folder), size=8).fingerprint}
    save(grey_folder / "cat" / "new.png", picture(55, 8, 8))
    seen.add(ImageFolder(str(grey_folder), size=8).fingerprint)
    save(grey_folder / "cat" / "new.png", picture(56, 8, 8))
    os.utime(grey_folder / "cat" / "new.png", ns=(1, 1))
    seen.add(ImageFolder(str(grey_folder), size=8).fingerprint)
    (grey_folder / "dog").rename(grey_folder / "wolf")
    seen.add(ImageFolder(str(grey_folder), size=8).fingerprint)
    seen.add(ImageFolder(str(grey_folder), size=9).fingerprint)
    seen.add(ImageFolder(str(grey_folder), size=8, split_seed=1).fingerprint)
    seen.add(ImageFolder(str(grey_folder), size=8, test_fraction=0.4).fingerprint)
    assert len(seen) == len(stores(data_root)) == 7


def test_split_arguments_do_not_matter_where_a_split_is_given(split_folder, data_root):
    ImageFolder(str(split_folder), size=8).prepare()
    ImageFolder(str(split_folder), size=8, split_seed=9, test_fraction=0.4).prepare()
    assert len(stores(data_root)) == 1


def test_an_archive_gives_what_the_folder_gives(split_folder, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", split_folder)
    packed, plain = ImageFolder(archive, size=8), ImageFolder(str(split_folder), size=8)
    assert packed.fingerprint == plain.fingerprint
    assert torch.equal(packed.train.images, plain.train.images)


def test_an_unreadable_picture_is_named_and_nothing_is_kept(grey_folder, data_root):
    (grey_folder / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    with pytest.raises(DataError, match=r"Cannot read the image .*pets/dog/broken.jpg"):
        ImageFolder(str(grey_folder), size=8).prepare()
    data = (grey_folder / "dog" / "1.png").read_bytes()
    (grey_folder / "dog" / "broken.jpg").unlink()
    (grey_folder / "dog" / "half.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"Cannot read the image .*pets/dog/half.png"):
        ImageFolder(str(grey_folder), size=8).prepare()
    assert stores(data_root) == []


def test_a_class_of_one_picture_cannot_be_split(grey_folder):
    save(grey_folder / "emu" / "only.png", picture(1, 8, 8))
    with pytest.raises(DataError, match="at least 2 images of class 'emu'"):
        ImageFolder(str(grey_folder), size=8).prepare()


def test_a_missing_folder_is_said_when_the_images_are_needed(tmp_path):
    dataset = ImageFolder(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere, but nothing is there"):
        dataset.prepare()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 7}, "at least 8 x 8 pixels, got 7 x 7"),
        ({"size": (8, 0)}, "8 x 0"),
        ({"test_fraction": 0.0}, "0 and 1"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        ImageFolder("x", **arguments)


def test_facts():
    dataset = ImageFolder("some/where", size=[64, 48])
    assert dataset.config() == {"path": "some/where", "size": [64, 48], "test_fraction": 0.2, "split_seed": 0}
    assert dataset.augmentation == Augment(crop_padding=6, flip=True, rotation=15.0)
    assert ImageFolder("x").augmentation == Augment(4, True, 15.0)


def test_real_colour_pictures(real_data):
    folder = real_data / "cifar10-small"
    dataset = ImageFolder(str(folder))
    assert dataset.train.images.shape == (2000, 3, 32, 32)
    assert dataset.test.images.shape == (500, 3, 32, 32)
    assert torch.bincount(dataset.train.targets).tolist() == [200] * 10
    assert torch.bincount(dataset.test.targets).tolist() == [50] * 10
    assert dataset.classes == tuple(sorted(path.name for path in (folder / "train").iterdir()))
    first = sorted((folder / "test" / "truck").iterdir())[0]
    expected = np.asarray(Image.open(first).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(dataset.test.images[450].numpy(), expected)
    assert abs(np.array(dataset.mean) - [0.4914, 0.4822, 0.4465]).max() < 0.02


def test_real_grey_pictures_without_a_split(real_data):
    dataset = ImageFolder(str(real_data / "orl_faces"), size=(56, 46))
    assert dataset.train.images.shape == (320, 1, 56, 46)
    assert torch.bincount(dataset.test.targets).tolist() == [2] * 40
    assert dataset.classes[:3] == ("s1", "s10", "s11")
    assert dataset.class_index("s2") == 11


def test_real_archive_is_listed(real_data):
    listing = list_images(real_data / "cifar10-jpeg.zip")
    classes, parts = by_class(listing, "the archive")
    assert len(listing.files) == 60_000
    assert len(classes) == 10
    assert np.bincount(parts["train"].targets).tolist() == [5000] * 10
    assert np.bincount(parts["test"].targets).tolist() == [1000] * 10


# --- groups of folders


@pytest.fixture
def pets(split_folder):
    for split, count in (("train", 4), ("test", 2)):
        for number in range(count):
            save(split_folder / split / "eel" / f"{number}.png", picture(50 + number, 8, 8, 3))
    return str(split_folder)


def test_groups_are_classes_and_folders_fine_classes(pets, data_root):
    dataset = ImageFolder(pets, size=8, groups={"wet": ["eel"], "dry": ["dog", "cat"]})
    assert dataset.classes == ("dry", "wet")
    assert dataset.subclasses == ("cat", "dog", "eel")
    plain = ImageFolder(pets, size=8)
    assert dataset.fingerprint != plain.fingerprint
    for ours, theirs in ((dataset.train, plain.train), (dataset.test, plain.test)):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.subtargets, theirs.targets)
        assert torch.equal(ours.targets, torch.tensor([0, 0, 1])[theirs.targets])
    assert SubClass(dataset, "dog").indices()["forget_train"].tolist() == [4, 5, 6, 7]
    assert "groups" not in plain.config()
    through_a_plan = json.loads(json.dumps(dataset.config(), sort_keys=True))  # which keeps no order of a mapping
    assert ImageFolder(**through_a_plan).fingerprint == dataset.fingerprint
    assert ImageFolder(pets, size=8, groups={"dry": ["cat", "dog"], "wet": ["eel"]}).fingerprint == dataset.fingerprint


def test_groups_of_a_drawn_split(grey_folder, data_root):
    names = {"first": ["cat"], "second": ["dog"]}
    ours, plain = ImageFolder(str(grey_folder), size=8, groups=names), ImageFolder(str(grey_folder), size=8)
    assert torch.equal(ours.train.images, plain.train.images)
    assert torch.equal(ours.train.targets, plain.train.targets)


def test_groups_that_do_not_fit(pets, data_root):
    with pytest.raises(ConfigError, match="'cat' is named twice"):
        ImageFolder(pets, groups={"wet": ["cat"], "dry": ["dog", "cat"]})
    with pytest.raises(ConfigError, match="at least two groups, got 1"):
        ImageFolder(pets, groups={"all": ["cat", "dog", "eel"]})
    with pytest.raises(DataError, match="'eel' lies in no group"):
        ImageFolder(pets, size=8, groups={"a": ["cat"], "b": ["dog"]}).prepare()
    with pytest.raises(DataError, match="'ant' is named in a group but has no images"):
        ImageFolder(pets, size=8, groups={"a": ["cat", "ant"], "b": ["dog", "eel"]}).prepare()
