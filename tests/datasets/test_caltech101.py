"""Caltech-101 on a small archive in the official format, downloaded and unpacked by torchvision's own code."""

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from supreme.datasets import Caltech101
from supreme.errors import DataError
from supreme.transforms import Augment

GOLDEN = Path(__file__).parents[1] / "golden" / "transforms"
FACT = (5, "airplanes"), (19, "car_side"), (22, "chair"), (36, "elephant"), (56, "lamp")
TEXT = """
accordion airplanes anchor ant barrel bass beaver binocular bonsai brain brontosaurus buddha butterfly camera cannon
car_side ceiling_fan cellphone chair chandelier cougar_body cougar_face crab crayfish crocodile crocodile_head cup
dalmatian dollar_bill dolphin dragonfly electric_guitar elephant emu euphonium ewer Faces Faces_easy ferry flamingo
flamingo_head garfield gerenuk gramophone grand_piano hawksbill headphone hedgehog helicopter ibis inline_skate
joshua_tree kangaroo ketch lamp laptop Leopards llama lobster lotus mandolin mayfly menorah metronome minaret Motorbikes
nautilus octopus okapi pagoda panda pigeon pizza platypus pyramid revolver rhino rooster saxophone schooner scissors
scorpion sea_horse snoopy soccer_ball stapler starfish stegosaurus stop_sign strawberry sunflower tick trilobite
umbrella watch water_lilly wheelchair wild_cat windsor_chair wrench yin_yang BACKGROUND_Google
"""
NAMES = TEXT.split()


def packed(jpeg, names, count):
    """``101_ObjectCategories.tar.gz`` with ``count(name)`` images per category; one of them is grey."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for place, name in enumerate(names):
            for number in range(1, count(name) + 1):
                shape = (12, 11) if (name, number) == ("butterfly", 2) else (12 + number % 3, 11, 3)
                data = jpeg(100 * place + number, *shape)
                entry = tarfile.TarInfo(f"101_ObjectCategories/{name}/image_{number:04d}.jpg")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def official(tmp_path, monkeypatch, address, official_files):
    """Serve a small ``caltech-101.zip``; torchvision's address and sum, which stand in its code, are replaced."""

    def make(names=NAMES, count=lambda name: 2, broken=False):
        (tmp_path / "official").mkdir(exist_ok=True)
        place = tmp_path / "official" / "caltech-101.zip"
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("caltech-101/101_ObjectCategories.tar.gz", packed(official_files.jpeg, names, count))
            archive.writestr("caltech-101/Annotations.tar", b"not read")
            archive.writestr("__MACOSX/caltech-101/._Annotations.tar", b"x")
        sum_ = "0" * 32 if broken else hashlib.md5(place.read_bytes()).hexdigest()
        fetch = torchvision.datasets.utils.download_and_extract_archive

        def replaced(url, download_root, filename, md5):
            assert (url.endswith("/caltech-101.zip"), md5) == (True, "3138e1922a9193bfa496528edbbc45d0")
            fetch(f"{address}/caltech-101.zip", download_root=download_root, filename=filename, md5=sum_)

        monkeypatch.setattr("torchvision.datasets.caltech.download_and_extract_archive", replaced)
        return place

    return make


def test_101_classes_by_folder_names_without_the_background(official, data_root):
    official()
    (data_root / "caltech101.0123abcd.part" / "caltech101").mkdir(parents=True)  # left by a process that was killed
    dataset = Caltech101(size=8)
    assert len(dataset.classes) == 101
    assert dataset.classes == tuple(sorted(set(NAMES) - {"BACKGROUND_Google"}))
    assert dataset.classes[:5] == ("Faces", "Faces_easy", "Leopards", "Motorbikes", "accordion")
    for index, name in FACT:
        assert (dataset.class_index(name), dataset.classes[index]) == (index, name)
    assert len(dataset.train.images) == len(dataset.test.images) == 101
    kept = sorted(path.name for path in data_root.iterdir())
    assert kept == ["caltech101", "stores"]  # nothing half unpacked, no lock
    assert (data_root / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google").is_dir()


def test_the_first_four_fifths_by_number_are_for_training(official, data_root):
    counts = {"Faces": 10, "ant": 11, "butterfly": 31, "BACKGROUND_Google": 7}
    official(sorted(counts), counts.get)
    dataset = Caltech101()
    assert dataset.classes == ("Faces", "ant", "butterfly")
    assert torch.bincount(dataset.train.targets).tolist() == [8, 8, 24]
    assert torch.bincount(dataset.test.targets).tolist() == [2, 3, 7]
    files = json.loads(next((data_root / "stores").glob("*/files.json")).read_text())
    assert files["train"][:8] == [f"Faces/image_{number:04d}.jpg" for number in range(1, 9)]
    assert files["test"][:2] == ["Faces/image_0009.jpg", "Faces/image_0010.jpg"]
    folder = data_root / "caltech101" / "101_ObjectCategories"
    for row, name in enumerate(files["test"]):
        expected = Image.open(folder / name).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        assert np.array_equal(dataset.test.images[row].numpy(), np.asarray(expected).transpose(2, 0, 1))
    grey = dataset.train.images[8 + 8 + 1]
    assert torch.equal(grey[0], grey[1])
    assert dataset.notes == ("These are 3 classes with 52 images; the whole dataset has 101 with 8677.",)


def test_a_category_of_one_image_is_refused(data_root, picture):
    for name, count in (("a", 2), ("b", 1)):
        for number in range(count):
            picture(data_root / "101_ObjectCategories" / name / f"image_{number:04d}.jpg", number, 9, 9, 3)
    with pytest.raises(DataError, match=r"at least 2 images per category in .*, got one of 'b'"):
        Caltech101().prepare()


@pytest.mark.parametrize("place", ["caltech-101.zip", "caltech101/caltech-101.zip"])
def test_a_placed_archive_is_enough_and_stays(official, data_root, place):
    data = official(["a", "b", "BACKGROUND_Google"]).read_bytes()
    (data_root / place).parent.mkdir(parents=True)
    (data_root / place).write_bytes(data)
    (data_root.parent / "official" / "caltech-101.zip").unlink()
    assert Caltech101().classes == ("a", "b")
    assert (data_root / place).read_bytes() == data


@pytest.mark.parametrize("place", ["101_ObjectCategories", "caltech101/101_ObjectCategories"])
def test_a_placed_folder_is_enough(data_root, picture, place):
    for name in ("a", "b", "BACKGROUND_Google"):
        for number in (1, 2):
            picture(data_root / place / name / f"image_{number:04d}.jpg", number, 9, 9, 3)
    assert Caltech101(size=8).classes == ("a", "b")


@pytest.mark.parametrize("broken", [False, True])
def test_an_archive_that_is_missing_or_wrong_leaves_nothing(official, data_root, broken):
    place = official(["a", "b"], broken=broken)
    if not broken:
        place.unlink()
    with pytest.raises(DataError) as raised:
        Caltech101().prepare()
    text = str(raised.value)
    assert text.startswith("Cannot download or read Caltech101 (")
    assert text.endswith(
        f"fetch caltech-101.zip from https://data.caltech.edu/records/mzrjq-6wc02 and place it in {data_root}."
    )
    assert list(data_root.iterdir()) == []


def test_an_archive_that_points_outside_is_refused(official, data_root, tmp_path):
    official(["../../../../out", "b"])
    with pytest.raises(DataError, match="Cannot download or read Caltech101"):
        Caltech101().prepare()
    assert not [path for path in tmp_path.rglob("*") if path.name == "out"]
    assert list(data_root.iterdir()) == []


def test_published_statistics_and_sizes():
    stored = json.loads((GOLDEN / "expected.json").read_text())["normalisation"]["caltech"]
    dataset = Caltech101(margin=4, statistics="published")
    assert (list(dataset.mean), list(dataset.std)) == (stored["mean"], stored["std"])
    assert dataset.input_size == (32, 32)
    assert dataset.augmentation == Augment(4, True, 15.0, (32, 32))
    assert Caltech101.needs == ("download", "folder")
