"""What datasets of image files share: a margin around the images that the network sees, and one copy of one split."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from supreme.batch import Batch, Step
from supreme.datasets import file_dataset
from supreme.datasets.file_dataset import FileDataset
from supreme.datasets.image_files import Labelled, Layout
from supreme.scenarios import WholeDataset
from supreme.seeding import derive
from supreme.transforms import Augment, Preprocess


class Pictures(FileDataset):
    """All files are both training and test images; the class is the first letter."""

    def __init__(self, folder, size, margin):
        super().__init__(size, margin)
        self.folder = Path(folder)

    def place(self):
        return self.folder

    def arrange(self, listing):
        names = [file.name for file in listing.files]
        part = Labelled(names, ["ab".index(name[0]) for name in names])
        return Layout(("a", "b"), {"train": part, "test": part})


@pytest.fixture
def folder(tmp_path, picture):
    for seed, name in enumerate(("a1", "a2", "b1")):
        picture(tmp_path / "pictures" / f"{name}.png", seed, 20, 22, 3)
    return tmp_path / "pictures"


def seen_by_the_network(dataset, rows, augment, input_spec=None):
    images, rows = dataset.train, torch.tensor(rows)
    step = Step(0, 3, 0, len(rows), False, False, 1.0, augment)
    batch = Batch(images.images[rows], images.targets[rows], rows, torch.ones(len(rows)), rows < 0, step)
    return WholeDataset(dataset)._transform(batch, 7, input_spec)


def test_evaluation_shrinks_and_training_crops_the_stored_images(folder):
    dataset, rows = Pictures(folder, (16, 12), 4), [2, 0]
    assert (dataset.image_size, dataset.input_size) == ((20, 16), (16, 12))
    assert dataset.augmentation == Augment(1, True, 15.0, (16, 12))
    stored, constants = dataset.train.images[rows] / 255.0, Preprocess(dataset.mean, dataset.std)
    shrunk = interpolate(stored, (16, 12), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(seen_by_the_network(dataset, rows, False), constants.normalise(shrunk))
    cropped = dataset.augmentation(stored, derive(7, "augment"), 3, torch.tensor(rows))
    torch.testing.assert_close(seen_by_the_network(dataset, rows, True), constants.normalise(cropped))


def test_a_network_with_a_size_of_its_own_gets_it(folder):
    dataset, spec = Pictures(folder, 16, 4), {"size": (24, 24), "mean": (0.5,), "std": (0.5,)}
    for augment in (False, True):
        image = seen_by_the_network(dataset, [0, 1], augment, spec)
        assert image.shape == (2, 3, 24, 24)
        assert -1.0 - 1e-6 <= float(image.min()) < float(image.max()) <= 1.0 + 1e-6


def test_without_a_margin_images_stay_as_they_are_stored(folder):
    dataset = Pictures(folder, 16, 0)
    assert (dataset.image_size, dataset.input_size, dataset.augmentation.crop_size) == ((16, 16), None, None)
    exact = Preprocess(dataset.mean, dataset.std)(dataset.train.images[[1]])
    assert torch.equal(seen_by_the_network(dataset, [1], False), exact)


def test_one_split_is_decoded_once(folder, monkeypatch):
    seen = []
    decode = file_dataset.decode
    monkeypatch.setattr(file_dataset, "decode", lambda *given: (seen.append(given[1]), decode(*given))[1])
    dataset = Pictures(folder, 8, 0)
    assert torch.equal(dataset.train.images, dataset.test.images)
    assert sorted(Path(name).name for name in seen) == ["a1.png", "a2.png", "b1.png"]
