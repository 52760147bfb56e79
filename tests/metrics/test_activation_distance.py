"""Activation distance against NumPy and the stored published values."""

import numpy as np
import pytest

from supreme.errors import UnknownNameError
from supreme.metrics.activation_distance import ActivationDistance


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_equals_numpy_in_batches_of_any_size(evaluate, sample_logits, batch_size):
    ours, theirs = sample_logits(0), sample_logits(1)
    difference = ours.double().softmax(dim=1).numpy() - theirs.double().softmax(dim=1).numpy()
    norms = np.linalg.norm(difference, axis=1)
    value = evaluate(ActivationDistance(), ours, theirs, batch_size=batch_size)
    assert value == pytest.approx(norms.mean(), rel=1e-12)
    root_mean_square = evaluate(ActivationDistance("rms"), ours, theirs, batch_size=batch_size)
    assert root_mean_square == pytest.approx(np.sqrt((norms**2).mean()), rel=1e-12)
    assert root_mean_square >= value


@pytest.mark.parametrize("place", ["whole", "retain", "forget"])
def test_stored_values(evaluate, golden, place):
    case = golden.expected[f"activation_distance_test_{place}"]
    columns = [golden.logits[f"{network}.test_{place}"] for network in ("unlearned", "retrained")]
    value = evaluate(ActivationDistance(), *columns, batch_size=8)
    assert value == pytest.approx(case["value_by_definition"], abs=1e-10)
    published = evaluate(ActivationDistance("rms"), *columns, batch_size=8)
    assert published == pytest.approx(case["value_of_reference_formula_in_float64"], abs=1e-10)
    assert published == pytest.approx(case["value_reference"], rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "rms"])
def test_a_model_against_itself_is_exactly_zero(evaluate, sample_logits, reduction):
    logits = sample_logits(2, scale=20.0)
    assert evaluate(ActivationDistance(reduction), logits, logits.clone(), batch_size=7) == 0.0


def test_published_reduction_has_its_own_key():
    assert ActivationDistance("rms").key == "activation_distance_rms"
    with pytest.raises(UnknownNameError, match="did you mean 'rms'"):
        ActivationDistance("rsm")
