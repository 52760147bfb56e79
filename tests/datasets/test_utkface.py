"""UTKFace on small folders in the official format, read by the real code."""

import shutil
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image

from supreme.datasets import UTKFace
from supreme.errors import ConfigError, DataError
from supreme.scenarios import FullClass, SubClass
from supreme.transforms import Augment

AGES = (1, 5, 6, 10, 11, 15, 16, 20, 21, 27, 30, 31, 40, 41, 50, 51, 60, 61, 70, 71, 116)
GROUPS = ("0-5", "6-10", "11-15", "16-20", "21-30", "31-40", "41-50", "51-60", "61-70", "71+")


@pytest.fixture
def faces(data_root, picture):
    """Four aligned faces of every age."""
    stamp = count(20170109150557335)
    for age in AGES:
        for number in range(4):
            name = f"{age}_{number % 2}_{number}_{next(stamp)}.jpg.chip.jpg"
            picture(data_root / "UTKFace" / name, 10 * age + number, 20, 20, 3)
    return data_root / "UTKFace"


def test_groups_of_ages_are_classes_and_ages_are_fine_classes(faces):
    dataset = UTKFace()
    assert dataset.classes == GROUPS
    assert dataset.subclasses == tuple(str(age) for age in range(117))
    for part in (dataset.train, dataset.test):
        for target, age in zip(part.targets.tolist(), part.subtargets.tolist(), strict=True):
            low, _, high = GROUPS[target].removesuffix("+").partition("-")
            assert int(low) <= age <= int(high or 116)
    ages = torch.cat((dataset.train.subtargets, dataset.test.subtargets))
    assert sorted(ages.tolist()) == sorted(4 * AGES)
    assert torch.bincount(dataset.test.targets).tolist() == [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert dataset.class_index("27", fine=True) == dataset.class_index(27, fine=True) == 27


def test_pixels_belong_to_their_labels(faces, data_root):
    dataset = UTKFace(size=20)
    sums = {int(np.asarray(Image.open(file)).astype(int).sum()): file for file in faces.iterdir()}
    for part in (dataset.train, dataset.test):
        for image, age in zip(part.images, part.subtargets.tolist(), strict=True):
            assert sums[int(image.long().sum())].name.startswith(f"{age}_")


def test_an_age_is_forgotten_while_its_group_stays(faces):
    dataset = UTKFace()
    scenario = SubClass(dataset, "27")
    sets, request = scenario.indices(), scenario.request
    assert (request.forget_classes, request.forget_subclasses) == ((4,), (27,))
    assert dataset.train.subtargets[sets["forget_train"]].unique().tolist() == [27]
    left = dataset.train.subtargets[sets["retain_train"]]
    assert 27 not in left
    assert {21, 30} <= set(left.tolist())
    group = FullClass(dataset, "21-30").indices()
    assert set(sets["forget_train"].tolist()) < set(group["forget_train"].tolist())


def test_groups_without_images_are_left_out(faces):
    for file in faces.glob("[67]_*"):
        file.unlink()
    for file in faces.glob("10_*"):
        file.unlink()
    assert UTKFace().classes == (GROUPS[0], *GROUPS[2:])
    assert UTKFace(age_groups=[17, 64]).classes == ("0-17", "18-64", "65+")


def test_files_without_a_whole_label_are_left_out_and_counted(faces, picture):
    for name in ("61_1_20170109142408075.jpg.chip.jpg", "53__0_20170116184028385.jpg", "a_0_0_1.jpg", "9_2_0_1.jpg"):
        picture(faces / name, 1, 20, 20, 3)
    dataset = UTKFace()
    assert len(dataset.train.targets) + len(dataset.test.targets) == 4 * len(AGES)
    assert dataset.notes == ("4 images without a whole label in their name are left out.",)
    assert UTKFace().notes == dataset.notes  # also when the store is there already


def test_an_archive_with_copies_beside_the_folder(faces, data_root, tmp_path, picture):
    expected, notes = UTKFace().fingerprint, UTKFace().notes
    shutil.copytree(faces, data_root / "crop_part1")
    picture(data_root / "crop_part1" / "61_1_20170109142408075.jpg", 1, 20, 20, 3)
    shutil.rmtree(data_root / "stores")
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", data_root)
    packed = UTKFace(archive)
    assert (packed.fingerprint, packed.notes, notes) == (expected, (), ())


def test_without_the_folder_the_text_says_what_to_fetch(data_root):
    with pytest.raises(DataError) as raised:
        UTKFace().prepare()
    assert str(raised.value) == (
        "UTKFace has to be fetched by hand: get it from https://susanqq.github.io/UTKFace/ and place the folder "
        f"UTKFace in {data_root}, or name its path."
    )


def test_a_folder_without_labels_is_refused(data_root, picture):
    picture(data_root / "UTKFace" / "cat.jpg", 1, 20, 20, 3)
    with pytest.raises(DataError, match=r"<age>_<gender>_<race>_<date>.jpg of at least two groups .* got 0 of 0"):
        UTKFace().prepare()


@pytest.mark.parametrize("groups", [(), (5, 5), (10, 5), (-1, 5)])
def test_groups_that_do_not_ascend_are_refused(groups):
    with pytest.raises(ConfigError, match="ascending highest ages"):
        UTKFace(age_groups=groups)


def test_facts():
    assert UTKFace.needs == ("folder",)
    assert UTKFace(size=64).augmentation == Augment(8, True, 15.0)
    assert UTKFace().config()["age_groups"] == [5, 10, 15, 20, 30, 40, 50, 60, 70]
