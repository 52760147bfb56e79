"""Completeness against scikit-learn and the stored published values."""

import math

import pytest
import torch
from sklearn.metrics import accuracy_score

from supreme.errors import DataError
from supreme.metrics.completeness import Completeness


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_equals_scikit_learn_in_batches_of_any_size(evaluate, sample_logits, batch_size):
    ours, theirs = sample_logits(0), sample_logits(1)
    expected = accuracy_score(theirs.argmax(dim=1).numpy(), ours.argmax(dim=1).numpy())
    assert evaluate(Completeness(), ours, theirs, batch_size=batch_size) == expected


@pytest.mark.parametrize("place", ["whole", "retain", "forget"])
def test_stored_values(evaluate, golden, place):
    case = golden.expected[f"completeness_test_{place}"]
    columns = [golden.logits[f"{network}.test_{place}"] for network in ("unlearned", "retrained")]
    percent = 100 * evaluate(Completeness(), *columns, batch_size=8)
    assert percent == pytest.approx(case["value_by_definition"], abs=1e-10)
    assert percent == pytest.approx(case["value_reference"], abs=1e-10)


def test_a_model_against_itself_is_exactly_one(evaluate, sample_logits):
    logits = sample_logits(2)
    assert evaluate(Completeness(), logits, logits.clone(), batch_size=7) == 1.0


def test_two_diverged_networks_do_not_agree():
    metric = Completeness()
    broken = torch.tensor([[math.nan, math.nan]])
    metric.update(broken, broken)
    with pytest.raises(DataError, match="diverged"):
        metric.compute()
