"""The embedded digits against scikit-learn's arrays."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from supreme.datasets import Digits
from supreme.errors import ConfigError
from supreme.transforms import Augment


@pytest.fixture(scope="module")
def digits():
    dataset = Digits()
    dataset.prepare()
    return dataset


def rows(split):
    return {(bytes(image.numpy().tobytes()), int(target)) for image, target in zip(*split[:2], strict=True)}


def test_all_images_at_their_own_pixels(digits):
    bunch = load_digits()
    stored = torch.cat((digits.train.images, digits.test.images))
    assert (stored.dtype, tuple(stored.shape)) == (torch.uint8, (1797, 1, 8, 8))
    table = {value: round(255 * value / 16) for value in range(17)}
    original = {
        (bytes(np.vectorize(table.get)(image.astype(int)).astype(np.uint8).tobytes()), int(target))
        for image, target in zip(bunch.images, bunch.target, strict=True)
    }
    assert rows(digits.train) | rows(digits.test) == original
    assert set(stored.unique().tolist()) == set(table.values())


def test_the_split_is_stratified_and_has_no_overlap(digits):
    targets = torch.from_numpy(load_digits().target)
    share = torch.bincount(digits.test.targets) / torch.bincount(targets)
    assert (share - 0.2).abs().max() < 0.005
    assert len(digits.train.targets) + len(digits.test.targets) == 1797
    assert digits.train.targets.dtype == torch.int64


def test_the_seed_draws_another_split_of_the_same_digits(digits):
    other, again = Digits(split_seed=1), Digits()
    assert again.fingerprint == digits.fingerprint
    assert other.fingerprint != digits.fingerprint
    assert rows(other.train) | rows(other.test) == rows(digits.train) | rows(digits.test)
    assert len(Digits(test_fraction=0.5).test.targets) == pytest.approx(898, abs=5)


def test_facts(digits):
    assert digits.classes == tuple("0123456789")
    assert (digits.name, digits.image_size, digits.subclasses) == ("Digits", (8, 8), None)
    assert digits.augmentation == Augment()
    assert digits.config() == {"test_fraction": 0.2, "split_seed": 0}
    assert digits.class_index(3) == digits.class_index("3") == 3
    scaled = digits.train.images.double().numpy() / 255
    np.testing.assert_allclose((digits.mean[0], digits.std[0]), (scaled.mean(), scaled.std()), rtol=1e-12)


def test_nothing_is_written(digits, data_root):
    assert not data_root.exists()


def test_a_share_outside_zero_to_one_is_refused():
    with pytest.raises(ConfigError, match="test_fraction"):
        Digits(test_fraction=1.0)
