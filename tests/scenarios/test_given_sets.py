"""GivenSets: the caller's own datasets, as they are."""

import json

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from supreme.errors import ConfigError, DataError
from supreme.scenarios import GivenSets


def sets(forget=5, retain=7, size=2):
    def make(count, label):
        return TensorDataset(torch.randn(count, 3, size, size), torch.full((count,), label))

    return make(forget, 1), make(retain, 0)


def test_retain_comes_before_forget():
    scenario = GivenSets(*sets(), 3, forget_classes=[1])
    assert {k: v.tolist() for k, v in scenario.indices().items()} == {
        "retain_train": list(range(7)),
        "forget_train": list(range(7, 12)),
    }
    assert scenario.request.forget_index.tolist() == list(range(7, 12))
    assert (scenario.request.num_classes, scenario.request.forget_classes) == (3, (1,))


def test_test_sets_are_those_that_are_given():
    forget, retain = sets()
    assert GivenSets(forget, retain, 2, retain_test=retain).indices().keys() == {
        "retain_test",
        "retain_train",
        "forget_train",
    }
    both = GivenSets(forget, retain, 2, retain_test=retain, forget_test=forget)
    assert len(both.indices()["forget_test"]) == 5


def test_images_are_served_as_they_are():
    forget, retain = sets()
    scenario = GivenSets(forget, retain, 2, evaluation_batch_size=4)
    batches = list(scenario.evaluation_loader(("forget_train",)))
    images = torch.cat([scenario._transform(batch, 0, {"size": (4, 4)}) for batch in batches])
    assert torch.equal(images, forget.tensors[0])


def test_the_fingerprint_covers_labels_and_sizes():
    forget, retain = sets()
    prints = {
        GivenSets(forget, retain, 2).request.fingerprint,
        GivenSets(retain, forget, 2).request.fingerprint,
        GivenSets(*sets(forget=6, retain=6), 2).request.fingerprint,
    }
    assert len(prints) == 3
    assert GivenSets(*sets(), 2).request.fingerprint in prints


def test_export(tmp_path):
    scenario = GivenSets(*sets(), 3, forget_classes=(1,))
    splits, counts = scenario.export(tmp_path)
    assert json.loads(splits.read_text())["target"] == "1"
    assert counts.read_text().splitlines() == ["set,0,1,2", "retain_train,7,0,0", "forget_train,0,5,0"]


class Odd(Dataset):
    """Items as a caller might have them."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Endless(Dataset):
    """Has no length."""

    def __getitem__(self, index):
        return torch.zeros(3, 2, 2), 0


@pytest.mark.parametrize(
    ("dataset", "text"),
    [
        (Odd(torch.zeros(3, 2, 2)), "got Tensor"),
        (Odd((torch.zeros(2, 2), 0)), r"tensor \(2, 2\) torch.float32, int"),
        (Odd(([[1]], 0)), r"\(list, int\)"),
        (Odd((torch.zeros(3, 2, 2), 0.5)), "whole number as class of item 0"),
        (Odd((torch.zeros(3, 2, 2), 0), (torch.zeros(3, 2, 2), torch.zeros(2))), "class of item 1"),
        (TensorDataset(torch.zeros(4, 3, 2, 2), torch.zeros(4, 5)), "whole number as class"),
        (TensorDataset(torch.zeros(4, 12), torch.zeros(4, dtype=torch.int64)), "image tensor"),
        (TensorDataset(torch.zeros(0, 3, 2, 2), torch.zeros(0, dtype=torch.int64)), "forget set is empty"),
        (Odd((torch.zeros(3, 2, 2), 2)), r"classes in \[0, 2\)"),
        (Odd((torch.zeros(3, 2, 2), -1)), r"classes in \[0, 2\)"),
        (Endless(), "with a length"),
    ],
)
def test_sets_that_cannot_be_served(dataset, text):
    with pytest.raises(DataError, match=text):
        GivenSets(dataset, sets()[1], 2)


@pytest.mark.parametrize("classes", [[2], [-1], [0, 5], []])
def test_forget_classes_have_to_exist(classes):
    with pytest.raises(ConfigError, match=r"forget classes in \[0, 2\)"):
        GivenSets(*sets(), 2, forget_classes=classes)


def test_sets_of_different_images(fit, tiny):
    from supreme.methods import RandomLabels

    forget, retain = sets(size=8)
    wrong = TensorDataset(forget.tensors[0].double(), forget.tensors[1])
    with pytest.raises(DataError, match="one shape and type"):
        fit(RandomLabels(tiny.network(), epochs=1), GivenSets(wrong, retain, 4))
