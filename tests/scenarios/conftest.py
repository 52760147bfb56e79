"""Datasets made of labels alone, and loaders over samples that carry their own position."""

import pytest
import torch

from supreme.batch import Phase
from supreme.datasets.base import Content, ImageDataset, Images
from supreme.scenarios.loader import PhaseLoader, Place
from supreme.scenarios.source import MemorySource


class Labels(ImageDataset):
    """Images whose first pixel is their position, with given labels (and fine labels)."""

    def __init__(self, train, test, fine_train=None, fine_test=None, classes=10, fine_classes=15):
        super().__init__()
        self.given = (train, test, fine_train, fine_test)
        self.names = tuple(f"c{k}" for k in range(classes))
        self.fine_names = None if fine_train is None else tuple(f"f{k}" for k in range(fine_classes))

    def read(self, allocate):
        train, test, fine_train, fine_test = (None if x is None else torch.as_tensor(x) for x in self.given)
        return Content(
            Images(numbered(len(train)), train, fine_train),
            Images(numbered(len(test)), test, fine_test),
            self.names,
            self.fine_names,
        )


def numbered(count):
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count) % 256
    return images


@pytest.fixture
def labels():
    """Build a dataset from labels."""
    return Labels


@pytest.fixture
def golden_labels(case):
    """The dataset of the stored splits, and what they are."""
    golden = case("splits")
    arrays, meta = golden.arrays, golden.meta
    dataset = Labels(
        arrays["coarse_train"],
        arrays["coarse_test"],
        arrays["fine_train"],
        arrays["fine_test"],
        meta["coarse_classes"],
        meta["fine_classes"],
    )
    return dataset, meta, golden.json(), arrays


@pytest.fixture
def loader():
    """Build a loader over numbered images; D_f is every seventh sample."""

    def make(*phases, count=45, batch_size=8, seed=0, rank=0, world=1, shuffle=True):
        source = MemorySource(numbered(count), torch.arange(count) % 4)
        forget = torch.arange(0, count, 7)
        chosen = list(phases) or [Phase("full")]
        return PhaseLoader(source, forget, chosen, batch_size, seed, Place(rank, world), shuffle)

    return make
