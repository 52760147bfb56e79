"""What every dataset derives from its images, against NumPy and hashlib."""

import copy
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from supreme.datasets.base import Content, ImageDataset, Images, data_root
from supreme.errors import ConfigError, DataError, UnknownNameError
from supreme.transforms import Augment


def pixels(n=12, channels=3, seed=0, size=(5, 7)):
    return torch.randint(0, 256, (n, channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Made(ImageDataset):
    """A dataset of given content that counts its reads."""

    reads = 0

    def __init__(self, content=None, **changes):
        super().__init__()
        labels = torch.tensor([0, 1, 2] * 4)
        content = content or Content(Images(pixels(), labels), Images(pixels(6, seed=1), labels[:6]), ("a", "b", "c"))
        self.content = content._replace(**changes)

    def read(self, allocate):
        self.reads += 1
        return self.content


def test_nothing_is_read_before_it_is_needed_and_then_once():
    dataset = Made()
    assert dataset.reads == 0
    dataset.prepare()
    assert dataset.train.images is dataset.content.train.images
    assert dataset.test.targets is dataset.content.test.targets
    assert (dataset.classes, dataset.subclasses, dataset.num_classes) == (("a", "b", "c"), None, 3)
    assert (dataset.image_size, dataset.name, dataset.augmentation) == ((5, 7), "Made", Augment())
    assert dataset.reads == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_all_training_pixels(channels, monkeypatch):
    monkeypatch.setattr("supreme.datasets.base._CHUNK", 100)
    train = Images(pixels(11, channels), torch.tensor([0] * 10 + [1]))
    dataset = Made(train=train, test=Images(pixels(2, channels, seed=5), torch.tensor([0, 1])))
    scaled = train.images.double().numpy() / 255
    np.testing.assert_allclose(dataset.mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(dataset.std, scaled.std(axis=(0, 2, 3)), rtol=1e-13)
    assert len(dataset.mean) == len(dataset.std) == channels


def test_a_constant_channel_has_std_one():
    images = pixels()
    images[:, 1] = 77
    dataset = Made(train=Images(images, torch.tensor([0, 1, 2] * 4)))
    assert dataset.std[1] == 1.0
    assert dataset.mean[1] == pytest.approx(77 / 255, abs=1e-15)


def test_fingerprint_is_that_of_the_bytes():
    dataset = Made()
    content = dataset.content
    digest = hashlib.sha256(b"(('a', 'b', 'c'), None)")
    for part in (content.train, content.test):
        digest.update(repr(tuple(part.images.shape)).encode() + part.images.numpy().tobytes())
        digest.update(part.targets.numpy().astype("<i8").tobytes() + b"-")
    assert dataset.fingerprint == digest.hexdigest()[:16]


def test_fingerprint_changes_with_everything_that_counts():
    content = Made().content
    one_pixel = content.train.images.clone()
    one_pixel[3, 1, 2, 2] ^= 1
    other_label = content.test.targets.clone()
    other_label[0] = 2
    fine = {"subclasses": ("x", "y", "z")}
    part = [split._replace(subtargets=split.targets) for split in (content.train, content.test)]
    moved = [split._replace(subtargets=2 - split.targets) for split in (content.train, content.test)]
    changed = [
        {},
        {"train": content.train._replace(images=one_pixel)},
        {"test": content.test._replace(targets=other_label)},
        {"classes": ("a", "b", "d")},
        {"train": part[0], "test": part[1], **fine},
        {"train": moved[0], "test": moved[1], **fine},
    ]
    assert len({Made(content, **change).fingerprint for change in changed}) == len(changed)


def test_fingerprint_does_not_depend_on_the_layout_in_memory():
    content = Made().content
    strided = content.train.images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not strided.is_contiguous()
    train = content.train._replace(images=strided)
    assert Made(content, train=train).fingerprint == Made(content).fingerprint


@pytest.mark.parametrize(("value", "index"), [("b", 1), (" c ", 2), (0, 0), ("2", 2), (2, 2)])
def test_class_by_name_or_index(value, index):
    assert Made().class_index(value) == index


@pytest.mark.parametrize("value", ["Alex Lawther", "alex_lawther", "alex lawther", "ALEX_Lawther"])
def test_capitals_and_underscores_do_not_matter(value):
    assert Made(classes=("Bo", "alex Tan", "Alex Lawther")).class_index(value) == 2


def test_a_name_that_could_be_two_classes_has_to_be_exact():
    dataset = Made(classes=("a_b", "A b", "c"))
    assert (dataset.class_index("a_b"), dataset.class_index("A b")) == (0, 1)
    with pytest.raises(UnknownNameError, match="Unknown class 'a b'"):
        dataset.class_index("a b")


def test_published_statistics_exist_for_some_datasets_alone():
    with pytest.raises(ConfigError, match="No statistics are published for Made; use statistics 'train'"):
        ImageDataset.__init__(Made(), statistics="published")
    assert (Made().notes, Made().input_size) == ((), None)


def test_a_name_wins_over_an_index():
    dataset = Made(classes=("10", "1", "99"))
    assert dataset.class_index("1") == 1
    assert dataset.class_index(1) == 1
    assert dataset.class_index("10") == 0
    assert dataset.class_index("2") == 2
    assert dataset.class_index(99) == 2


def test_fine_classes_have_names_of_their_own():
    content = Made().content
    train, test = (split._replace(subtargets=split.targets) for split in (content.train, content.test))
    dataset = Made(train=train, test=test, subclasses=("x", "y", "z"))
    assert dataset.class_index("z", fine=True) == 2
    assert dataset.subclasses == ("x", "y", "z")
    with pytest.raises(UnknownNameError, match="Unknown fine class 'a'"):
        dataset.class_index("a", fine=True)
    with pytest.raises(ConfigError, match="Made has no fine classes"):
        Made().class_index("x", fine=True)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("airplan", UnknownNameError, "Unknown class 'airplan'; did you mean 'airplane'"),
        (3, ConfigError, "index from 0 to 2, got 3"),
        (-1, ConfigError, "got -1"),
        ("7", ConfigError, "got '7'"),
        ("", UnknownNameError, "Unknown class ''"),
    ],
)
def test_unknown_classes_are_refused(value, error, text):
    with pytest.raises(error, match=text):
        Made(classes=("airplane", "bird", "cat")).class_index(value)


LABELS = torch.tensor([0, 1, 2] * 4)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train": Images(pixels().float(), LABELS)}, "Made train images as uint8"),
        ({"train": Images(pixels(channels=2), LABELS)}, "1 or 3 channels"),
        ({"train": Images(pixels()[0], LABELS)}, "uint8 .N, C, H, W."),
        ({"train": Images(pixels(0), LABELS[:0])}, "images in Made train, got none"),
        ({"train": Images(pixels(), LABELS[:5])}, "one int64 target per image"),
        ({"train": Images(pixels(), LABELS.int())}, "torch.int32"),
        ({"train": Images(pixels(), LABELS + 1)}, "from 0 to 2, got 1 to 3"),
        ({"train": Images(pixels(), LABELS - 1)}, "from 0 to 2, got -1 to 1"),
        ({"train": Images(pixels(), LABELS, LABELS)}, "fine targets and fine class names, or neither"),
        ({"subclasses": ("x", "y", "z")}, "fine targets and fine class names, or neither"),
        ({"train": Images(pixels(size=(8, 8)), LABELS)}, "one shape"),
    ],
)
def test_content_that_does_not_fit_together_is_refused(changes, text):
    with pytest.raises(DataError, match=text):
        Made(**changes).prepare()


def test_default_root(monkeypatch):
    monkeypatch.setenv("SUPREME_DATA", "/somewhere")
    assert data_root(None) == Path("/somewhere")
    assert data_root("/elsewhere") == Path("/elsewhere")
    assert data_root("~/x") == Path.home() / "x"
    monkeypatch.delenv("SUPREME_DATA")
    assert data_root(None) == Path.home() / ".cache" / "supreme"


class Tiny(ImageDataset):
    """Importable, so that it can be sent to another process."""

    def __init__(self, shade=3):
        super().__init__()
        self.shade = shade

    def config(self):
        return {"shade": self.shade}

    def read(self, allocate):
        images = allocate("train", (2, 1, 8, 8))
        images[:] = self.shade
        split = Images(torch.from_numpy(images), torch.tensor([0, 1]))
        return Content(split, split, ("a", "b"))


def test_copies_leave_the_images_behind_and_read_them_again():
    dataset = Tiny(9)
    dataset.prepare()
    assert repr(dataset) == "Tiny(shade=9)"
    other = copy.deepcopy(dataset)
    assert other._prepared is None
    assert len(pickle.dumps(dataset.__getstate__())) < 200
    assert (other.fingerprint, int(other.train.images.max())) == (dataset.fingerprint, 9)
