"""Pins face recognition on a small folder in Kaggle's format, read by the real code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from supreme.batch import EvaluationBatch
from supreme.datasets import PinsFaceRecognition
from supreme.errors import ConfigError, DataError
from supreme.scenarios import FullClass
from supreme.transforms import Augment

GOLDEN = Path(__file__).parents[1] / "golden" / "transforms"
PEOPLE = ("Adriana Lima", "Alex Lawther", "Zoe Saldana", "alycia dabnem carey", "tom ellis")
FOLDER = "105_classes_pins_dataset"


@pytest.fixture
def pins(data_root, picture):
    """Five people with ten photographs each, of differing sizes."""
    for person, name in enumerate(PEOPLE):
        for number in range(10):
            file = data_root / FOLDER / f"pins_{name}" / f"{name}{number}_{100 + number}.jpg"
            picture(file, 10 * person + number, 40 + number, 50 - person, 3)
    return data_root / FOLDER


def test_names_come_from_the_folders_in_byte_order(pins):
    dataset = PinsFaceRecognition()
    assert dataset.classes == PEOPLE
    assert [dataset.class_index(name) for name in ("alex_lawther", "zoe_saldana", "tom_ellis", "4")] == [1, 2, 4, 4]
    assert dataset.subclasses is None


def test_a_fifth_of_every_person_is_held_out_by_a_seed(pins):
    dataset = PinsFaceRecognition()
    assert dataset.train.images.shape == (40, 3, 32, 32)
    assert torch.bincount(dataset.train.targets).tolist() == [8] * 5
    assert torch.bincount(dataset.test.targets).tolist() == [2] * 5
    assert PinsFaceRecognition(split_seed=1).fingerprint != dataset.fingerprint
    assert torch.bincount(PinsFaceRecognition(holdout=0.5).test.targets).tolist() == [5] * 5


def test_the_published_arrangement_tests_on_the_training_images_and_says_so(pins):
    dataset = PinsFaceRecognition(holdout=0)
    assert len(dataset.train.images) == 50
    assert torch.equal(dataset.train.images, dataset.test.images)
    assert torch.equal(dataset.train.targets, dataset.test.targets)
    assert dataset.config()["holdout"] == 0
    assert dataset.notes[0].startswith("The test images are the training images (holdout=0")
    sets = FullClass(dataset, "Alex Lawther").indices()
    assert torch.equal(sets["forget_train"], sets["forget_test"])


def test_missing_images_are_noted(pins, monkeypatch):
    text = ("These are 5 people with 50 images; the whole dataset has 105 with 17534.",)
    assert PinsFaceRecognition().notes == text
    assert PinsFaceRecognition(holdout=0).notes[1:] == text
    monkeypatch.setattr(PinsFaceRecognition, "official", (5, 50))
    assert PinsFaceRecognition().notes == ()


@pytest.mark.parametrize("name", ["pins-face-recognition.zip", "else.zip"])
def test_kaggles_archive_needs_no_unpacking(pins, data_root, tmp_path, name):
    expected = PinsFaceRecognition().fingerprint
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", data_root, FOLDER)
    shutil.rmtree(pins)
    shutil.move(packed, data_root / name)
    path = None if name.startswith("pins") else str(data_root / name)
    assert PinsFaceRecognition(path).fingerprint == expected


@pytest.mark.parametrize("path", [None, "some/where"])
def test_without_the_folder_the_text_says_what_to_fetch(data_root, path):
    with pytest.raises(DataError) as raised:
        PinsFaceRecognition(path).prepare()
    text = str(raised.value)
    assert text.startswith(
        "PinsFaceRecognition has to be fetched by hand: get it from https://www.kaggle.com/datasets/"
    )
    assert "105_classes_pins_dataset" in text
    assert (path or str(data_root)) in text


def test_another_folder_is_refused(pins):
    (pins / "pins_tom ellis").rename(pins / "tom ellis")
    with pytest.raises(DataError, match=r"one folder pins_<name> per person in .*, found 'tom ellis'"):
        PinsFaceRecognition().prepare()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"holdout": 1.0}, "below 1, got 1.0"), ({"holdout": -0.1}, "-0.1"), ({"margin": -1}, "margin of 0 or more")],
)
def test_arguments_without_meaning_are_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        PinsFaceRecognition(**arguments)


def test_facts():
    dataset = PinsFaceRecognition()
    assert (dataset.official, dataset.needs) == ((105, 17534), ("folder",))
    assert dataset.augmentation == Augment(4, True, 15.0)
    assert dataset.input_size is None
    assert set(dataset.config()) == {"path", "size", "holdout", "split_seed", "margin", "statistics"}


def test_golden_published_evaluation_images(pins):
    """margin=4 and published statistics: 36 pixels in the store, shrunk to 32, as the published code evaluates."""
    array = np.load(GOLDEN / "data.npz")["image_other_size"]
    files = sorted((pins / "pins_Alex Lawther").iterdir())
    Image.fromarray(array).save(files[0].with_suffix(".png"))
    files[0].unlink()
    dataset = PinsFaceRecognition(holdout=0, margin=4, statistics="published")
    assert dataset.test.images.shape == (50, 3, 36, 36)
    row = torch.tensor([10])
    assert torch.equal(dataset.test.targets[row], torch.tensor([1]))
    scenario = FullClass(dataset, 1)
    batch = EvaluationBatch(
        dataset.test.images[row], dataset.test.targets[row], row, torch.ones(1), row * 0, "retain_test", False
    )
    got = scenario._transform(batch, 0, None)[0]
    expected = load_file(GOLDEN / "expected.safetensors")["faces.image_other_size"]
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)
    constants = json.loads((GOLDEN / "expected.json").read_text())["normalisation"]["faces"]
    assert (list(dataset.mean), list(dataset.std)) == (constants["mean"], constants["std"])
    assert dataset.augmentation == Augment(4, True, 15.0, (32, 32))
