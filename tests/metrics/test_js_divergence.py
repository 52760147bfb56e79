"""JS divergence against SciPy and the stored published values."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from supreme.errors import ConfigError, DataError, UnknownNameError
from supreme.metrics.js_divergence import JSDivergence


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_equals_scipy_in_batches_of_any_size(evaluate, sample_logits, batch_size):
    ours, theirs = sample_logits(0), sample_logits(1)
    p, q = (logits.double().softmax(dim=1).numpy() for logits in (ours, theirs))
    expected = (jensenshannon(p, q, base=2, axis=1) ** 2).mean()
    assert evaluate(JSDivergence(), ours, theirs, batch_size=batch_size) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("place", ["whole", "retain", "forget"])
def test_stored_values(evaluate, golden, place):
    case = golden.expected[f"jsdiv_test_{place}"]
    columns = [golden.logits[f"{network}.test_{place}"] for network in ("unlearned", "retrained")]
    value = evaluate(JSDivergence(), *columns, batch_size=8)
    assert value == pytest.approx(case["value_by_definition_bits"], abs=1e-10)
    nats = evaluate(JSDivergence(base=math.e), *columns)
    assert nats == pytest.approx(case["value_by_definition_nats"], abs=1e-10)
    published = evaluate(JSDivergence(definition="published"), *columns, batch_size=5)
    assert published == pytest.approx(case["value_reference"], rel=1e-5)
    wide = JSDivergence(definition="published")._wide(columns[0])
    assert wide.dtype == torch.float64


def test_published_definition_in_float64_restates_the_stored_formula(golden):
    from supreme.functional.divergence import published_js_divergence

    case = golden.expected["jsdiv_test_whole"]
    p, q = (golden.logits[f"{network}.test_whole"].double() for network in ("unlearned", "retrained"))
    value = published_js_divergence(p, q).mean().item()
    assert value == pytest.approx(case["value_of_that_formula_in_float64"], abs=1e-10)


def test_degenerate_stored_case(evaluate, golden):
    case = golden.expected["jsdiv_degenerate"]
    columns = torch.tensor(case["logits_p"]), torch.tensor(case["logits_q"])
    assert evaluate(JSDivergence(), *columns) == pytest.approx(case["value_by_definition_bits"], abs=1e-10)
    assert evaluate(JSDivergence(definition="published"), *columns) == math.inf


def test_a_model_against_itself_is_exactly_zero(evaluate, sample_logits):
    logits = sample_logits(2, scale=20.0)
    assert evaluate(JSDivergence(), logits, logits.clone(), batch_size=7) == 0.0


def test_symmetric_and_within_zero_and_one(evaluate, sample_logits):
    for scale in (0.1, 5.0, 300.0):
        ours, theirs = sample_logits(3, scale=scale), sample_logits(4, scale=scale)
        value = evaluate(JSDivergence(), ours, theirs)
        assert 0.0 <= value <= 1.0
        assert value == evaluate(JSDivergence(), theirs, ours)
    opposite = torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1000.0]])
    assert evaluate(JSDivergence(), *opposite) == 1.0


def test_keys_tell_units_and_definitions_apart():
    keys = [JSDivergence(), JSDivergence(math.e), JSDivergence(10.0), JSDivergence(definition="published")]
    names = ["js_divergence", "js_divergence_nats", "js_divergence_base_10", "js_divergence_published"]
    assert [metric.key for metric in keys] == names


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="base above 1"):
        JSDivergence(base=1.0)
    with pytest.raises(UnknownNameError, match="did you mean 'published'"):
        JSDivergence(definition="publishd")


def test_nan_of_the_published_formula_names_its_cause():
    metric = JSDivergence(definition="published")
    certain = torch.tensor([[200.0, 0.0]])
    metric.update(certain, certain)
    with pytest.raises(DataError, match="underflow, so use definition='true'"):
        metric.compute()
