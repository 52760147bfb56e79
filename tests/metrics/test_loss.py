"""Loss against scikit-learn and the stored published values."""

import math

import pytest
import torch
from sklearn.metrics import log_loss

from supreme.errors import DataError, UnknownNameError
from supreme.metrics.loss import Loss


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_equals_scikit_learn_in_batches_of_any_size(evaluate, sample_logits, batch_size):
    logits = sample_logits(0)
    target = torch.randint(5, (60,), generator=torch.Generator().manual_seed(1))
    expected = log_loss(target.numpy(), logits.double().softmax(dim=1).numpy(), labels=range(5))
    assert evaluate(Loss(), logits, target, batch_size=batch_size) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("place", ["whole", "retain", "forget"])
def test_stored_values(evaluate, golden, place):
    case = golden.expected[f"loss_test_{place}"]
    columns = golden.logits[f"unlearned.test_{place}"], golden.targets[f"test_{place}"]
    assert evaluate(Loss(), *columns, batch_size=4) == pytest.approx(case["value_by_definition"], abs=1e-10)
    published = evaluate(Loss("batch_mean"), *columns, batch_size=golden.meta["batch_size"])
    assert published == pytest.approx(case["value_reference"], rel=1e-5)


def test_a_certain_mistake_is_large_and_finite(evaluate):
    assert evaluate(Loss(), torch.tensor([[1000.0, 0.0]]), torch.tensor([1])) == 1000.0


def test_a_target_that_torch_would_ignore_is_refused():
    with pytest.raises(DataError, match=r"targets in \[0, 2\), got values from -100 to -100"):
        Loss().update(torch.zeros(1, 2), torch.tensor([-100]))


def test_a_diverged_network_has_no_loss():
    metric = Loss()
    metric.update(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))
    with pytest.raises(DataError, match="diverged"):
        metric.compute()


def test_published_reduction_has_its_own_key():
    assert Loss("batch_mean").key == "loss_batch_mean"
    with pytest.raises(UnknownNameError, match="reduction"):
        Loss("sum")
