"""The stratified split, counted class by class."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from supreme.datasets.split import leading_split, stratified_split
from supreme.errors import ConfigError, DataError

TARGETS = torch.tensor([0] * 40 + [1] * 10 + [2] * 3 + [3] * 2)[torch.randperm(55)]
CLASSES = ("a", "b", "c", "d")


@pytest.mark.parametrize(("fraction", "expected"), [(0.2, [8, 2, 1, 1]), (0.5, [20, 5, 2, 1]), (0.99, [39, 9, 2, 1])])
def test_every_class_gives_its_share_and_keeps_one(fraction, expected):
    train, test = stratified_split(TARGETS, CLASSES, fraction, seed=0)
    assert torch.bincount(TARGETS[test], minlength=4).tolist() == expected
    assert sorted(torch.cat((train, test)).tolist()) == list(range(55))
    assert train.tolist() == sorted(train.tolist())
    assert test.tolist() == sorted(test.tolist())


def test_the_seed_decides():
    first, again, other = (stratified_split(TARGETS, CLASSES, 0.2, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_sample_is_as_likely_as_any_other():
    counts = torch.zeros(20)
    targets = torch.tensor([0, 1] * 10)
    for seed in range(400):
        counts[stratified_split(targets, ("x", "y"), 0.3, seed)[1]] += 1
    assert counts.sum() == 400 * 6
    # 400 draws with probability 0.3: mean 120, standard deviation 9.2.
    assert (counts - 120).abs().max() < 40


def test_a_class_is_split_alike_whatever_other_classes_there_are():
    lone = torch.tensor([0] * 30)
    with_others = torch.tensor([0] * 20 + [1] * 30)
    train, _ = stratified_split(with_others, ("new", "kept"), 0.4, seed=3)
    alone, _ = stratified_split(lone, ("kept",), 0.4, seed=3)
    assert (train[train >= 20] - 20).tolist() == alone.tolist()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_a_share_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(ConfigError, match=f"between 0 and 1, got {fraction}"):
        stratified_split(TARGETS, CLASSES, fraction, seed=0)


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(DataError, match=r"at least 2 images of class 'b'.*got 1"):
        stratified_split(torch.tensor([0, 0, 1]), ("a", "b"), 0.2, seed=0)


def test_golden_the_first_of_every_class_are_for_training():
    folder = Path(__file__).parents[1] / "golden" / "per_class_split"
    labels = torch.from_numpy(np.load(folder / "data.npz")["labels"])
    expected = json.loads((folder / "expected.json").read_text())
    train, test = leading_split(labels, tuple("abcdefghij"[: int(labels.max()) + 1]), 0.8)
    assert (train.tolist(), test.tolist()) == (expected["train_indices"], expected["test_indices"])


@pytest.mark.parametrize("count", [1, 2, 4, 5, 31, 800])
def test_four_fifths_rounded_down(count):
    targets = torch.tensor([0] * 10 + [1] * count)
    train, test = leading_split(targets, ("a", "b"), 0.8)
    assert (int(targets[train].sum()), int(targets[test].sum())) == (count * 4 // 5, count - count * 4 // 5)
