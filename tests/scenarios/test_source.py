"""Sources give the images of any batch of positions, in its order."""

import os
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset, Subset, TensorDataset

from supreme.batch import PARTS
from supreme.scenarios.given_sets import GivenSets
from supreme.scenarios.source import DatasetSource, JoinedSource, MemorySource, as_source

BATCHES = [torch.tensor([6, 0, 3]), torch.tensor([5]), torch.tensor([2, 2, 1, 4])]


class Numbers(Dataset):
    """Image k holds the number ``start + k``; more than two fields are allowed."""

    def __init__(self, count, start=0):
        self.count, self.start = count, start

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((3, 2, 2), float(self.start + index)), torch.tensor(index % 3), "more"


def memory(count, start=0):
    images = torch.arange(start, start + count, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 2, 2)
    return MemorySource(images, torch.arange(count) % 3)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda workers: memory(7),
        lambda workers: DatasetSource(Numbers(7), workers),
        lambda workers: JoinedSource([memory(3), DatasetSource(Numbers(4, start=3), workers)]),
        lambda workers: JoinedSource([DatasetSource(Numbers(6), workers), memory(0), memory(1, start=6)]),
    ],
    ids=["memory", "dataset", "joined", "three"],
)
def test_images_of_each_batch(make, num_workers):
    if num_workers and make(0).__class__ is MemorySource:
        pytest.skip("reads nothing ahead")
    source = make(num_workers)
    for batch, images in zip(BATCHES, source.stream(BATCHES), strict=True):
        assert images.shape == (len(batch), 3, 2, 2)
        assert images[:, 0, 0, 0].tolist() == batch.tolist()
    assert source.targets.dtype == torch.int64
    assert len(source.targets) == 7


class Readers(Numbers):
    """Every pixel is the process that read it."""

    def __getitem__(self, index):
        return torch.full((1, 1, 1), float(os.getpid())), 0


def test_workers_stay_from_pass_to_pass_and_serve_one_stream_at_a_time():
    source = DatasetSource(Readers(7), num_workers=2)
    readers = [{float(images[0, 0, 0, 0]) for images in source.stream(BATCHES)} for _ in range(3)]
    assert readers[0] == readers[1] == readers[2]
    assert len(readers[0]) == 2
    assert os.getpid() not in readers[0]
    next(source.stream(BATCHES))  # left after its first batch, as the loader's look at one image is
    assert {float(images[0, 0, 0, 0]) for images in source.stream(BATCHES)} == readers[0]
    numbers = DatasetSource(Numbers(7), num_workers=1)
    first, second = numbers.stream(BATCHES), numbers.stream(BATCHES[::-1])
    for one, other in zip(first, second, strict=True):
        assert len(one) + len(other) in (7, 2)
    assert [len(images) for images in numbers.stream(BATCHES)] == [3, 1, 4]


class Labelled(Numbers):
    """Has its labels at hand, and counts the items that are read."""

    def __init__(self, count, **attributes):
        super().__init__(count)
        self.reads = 0
        self.__dict__.update({"targets": [index % 3 for index in range(count)], **attributes})

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


LABELS = [index % 3 for index in range(70)]


@pytest.mark.parametrize("targets", [LABELS, torch.tensor(LABELS), np.array(LABELS, dtype=np.int32)])
def test_labels_that_a_dataset_has_are_not_read_from_its_images(targets):
    dataset = Labelled(70, targets=targets, target_transform=None)
    assert DatasetSource(dataset).targets.tolist() == LABELS
    assert dataset.reads == 3
    subset = Subset(dataset, [5, 3, 9, 1])
    assert DatasetSource(subset).targets.tolist() == [2, 0, 0, 1]
    assert dataset.reads == 6


@pytest.mark.parametrize(
    "attributes",
    [
        {"target_transform": lambda label: label},
        {"transforms": lambda image, label: (image, label)},
        {"targets": LABELS[:-1]},
        {"targets": [float(label) for label in LABELS]},
        {"targets": [str(label) for label in LABELS]},
        {"targets": [1, *LABELS[1:]]},
        {"targets": [*LABELS[:-1], 2]},
        {"targets": None},
    ],
)
def test_labels_that_may_be_others_are_read_item_by_item(attributes):
    dataset = Labelled(70, **attributes)
    source = DatasetSource(dataset)
    assert (source.targets.tolist(), source.targets.dtype) == (LABELS, torch.int64)
    assert dataset.reads >= 70


def test_workers_read_labels_too():
    assert DatasetSource(Numbers(70), num_workers=2).targets.tolist() == LABELS
    assert DatasetSource(Numbers(0)).targets.tolist() == []


def test_closed_sources_have_no_workers_and_can_be_read_again():
    before = set(active_children())
    source = JoinedSource([DatasetSource(Numbers(6), num_workers=2), memory(1, start=6)])
    for _ in range(2):
        assert [len(images) for images in source.stream(BATCHES)] == [3, 1, 4]
        assert len(set(active_children()) - before) == 2
        source.close()
        assert not set(active_children()) - before


def test_evaluation_leaves_no_workers_behind():
    before = set(active_children())
    sets = {name: Labelled(6) for name in ("forget", "retain", "forget_test", "retain_test")}
    scenario = GivenSets(**sets, num_classes=3, num_workers=1)
    for _ in scenario.evaluation_loader(PARTS):
        assert len(set(active_children()) - before) == 1
    assert not set(active_children()) - before
    next(scenario._source("retain_train").stream([torch.tensor([0])]))
    assert set(active_children()) - before
    scenario.teardown("fit")
    assert not set(active_children()) - before


@pytest.mark.parametrize("num_workers", [0, 2])
def test_reading_draws_nothing_from_the_global_generator(num_workers):
    state = torch.get_rng_state()
    source = DatasetSource(Numbers(7), num_workers)
    assert len(list(source.stream(BATCHES))) == 3
    assert torch.equal(torch.get_rng_state(), state)


class Operations(TorchDispatchMode):
    """Names of the tensor operations inside."""

    def __enter__(self):
        self.names = []
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_batch_of_bytes_is_gathered_row_by_row():
    """Indexing with brackets copies uint8 images byte by byte, at a tenth of the speed."""
    source = MemorySource(torch.zeros(7, 3, 2, 2, dtype=torch.uint8), torch.zeros(7))
    with Operations() as operations:
        assert len(list(source.stream(BATCHES))) == len(BATCHES)
    assert operations.names == ["index_select"] * len(BATCHES)


def test_a_batch_of_one_set_is_not_copied_again():
    pieces = [torch.zeros(2, 3, 2, 2), torch.ones(1, 3, 2, 2)]
    part = memory(4)
    part.stream = lambda batches: iter(pieces)
    found = list(JoinedSource([memory(3), part]).stream([torch.tensor([4, 5]), torch.tensor([0, 6])]))
    assert found[0] is pieces[0]
    assert found[1][:, 0, 0, 0].tolist() == [0.0, 1.0]


def test_targets_of_joined_sources():
    source = JoinedSource([memory(2), memory(4)])
    assert source.targets.tolist() == [0, 1, 0, 1, 2, 0]


def test_the_quickest_source():
    assert isinstance(
        as_source(TensorDataset(torch.zeros(2, 3, 2, 2), torch.zeros(2, dtype=torch.int32))), MemorySource
    )
    assert isinstance(as_source(Numbers(2)), DatasetSource)
