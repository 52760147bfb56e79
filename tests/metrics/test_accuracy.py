"""Accuracy against scikit-learn and the stored published values."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score

from supreme.errors import DataError, UnknownNameError
from supreme.metrics.accuracy import Accuracy

SETS = ("whole", "retain", "forget")


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_equals_scikit_learn_in_batches_of_any_size(evaluate, sample_logits, batch_size):
    logits = sample_logits(0)
    target = torch.randint(5, (60,), generator=torch.Generator().manual_seed(1))
    expected = accuracy_score(target.numpy(), logits.argmax(dim=1).numpy())
    assert evaluate(Accuracy(), logits, target, batch_size=batch_size) == expected


@pytest.mark.parametrize("place", SETS)
def test_stored_values(evaluate, golden, place):
    case = golden.expected[f"accuracy_test_{place}"]
    columns = golden.logits[f"unlearned.test_{place}"], golden.targets[f"test_{place}"]
    size = golden.meta["batch_size"]
    assert 100 * evaluate(Accuracy(), *columns, batch_size=5) == pytest.approx(case["value_by_definition"], abs=1e-10)
    published = 100 * evaluate(Accuracy("batch_mean"), *columns, batch_size=size)
    assert published == pytest.approx(case["value_reference"], abs=1e-4)


def test_perfect_and_hopeless(evaluate):
    logits = 5.0 * torch.eye(4)
    assert evaluate(Accuracy(), logits, torch.arange(4)) == 1.0
    assert evaluate(Accuracy(), logits, (torch.arange(4) + 1) % 4) == 0.0


def test_published_reduction_has_its_own_key():
    assert Accuracy().key == "accuracy"
    assert Accuracy("batch_mean").key == "accuracy_batch_mean"
    with pytest.raises(UnknownNameError, match="did you mean 'mean'"):
        Accuracy("meen")


@pytest.mark.parametrize("wrong", [torch.tensor([0, 5]), torch.tensor([-1, 0]), torch.tensor([0])])
def test_targets_have_to_fit(wrong):
    with pytest.raises(DataError, match="Expected"):
        Accuracy().update(torch.zeros(2, 5), wrong)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_network_has_no_accuracy(bad):
    metric = Accuracy()
    metric.update(torch.tensor([[bad, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    with pytest.raises(DataError, match="accuracy, got NaN; the network has diverged"):
        metric.compute()


def test_masked_classes_are_allowed(evaluate):
    logits = torch.tensor([[-math.inf, 1.0, 0.0], [-math.inf, 0.0, 1.0]])
    assert evaluate(Accuracy(), logits, torch.tensor([1, 0])) == 0.5
