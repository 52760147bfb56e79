"""Divergences against SciPy, hand-computed vectors and the stored published values."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from supreme.errors import ConfigError, DataError
from supreme.functional.divergence import activation_distance, agreement, js_divergence, published_js_divergence

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"


def logits(seed, n=50, classes=7, scale=3.0):
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(*rows):
    return torch.tensor(rows, dtype=torch.float64).log()


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("base", [2.0, math.e, 10.0])
def test_js_divergence_equals_scipy(scale, base):
    p, q = logits(0, scale=scale), logits(1, scale=scale)
    expected = jensenshannon(softmax(p.numpy(), axis=1), softmax(q.numpy(), axis=1), base=base, axis=1) ** 2
    np.testing.assert_allclose(js_divergence(p, q, base).numpy(), expected, rtol=1e-9, atol=1e-14)


def test_js_divergence_of_nearly_equal_outputs_keeps_its_digits():
    shift = torch.tensor([1.0, -1.0], dtype=torch.float64)
    p = torch.zeros(1, 2, dtype=torch.float64)
    for step in (1e-3, 1e-5, 1e-6):  # to second order JS = step**2 / 8 nats for two equal classes shifted by +-step
        value = js_divergence(p, p + step * shift / 2, base=math.e).item()
        assert value == pytest.approx(step**2 / 32, rel=1e-3)


def test_js_divergence_of_a_pair_computed_by_hand():
    p, q = probabilities([0.7, 0.1, 0.1, 0.1]), probabilities([0.1, 0.1, 0.1, 0.7])
    assert js_divergence(p, q, math.e).item() == pytest.approx(0.253102, abs=5e-7)
    assert published_js_divergence(p, q).item() == pytest.approx(0.082668, abs=5e-7)
    p, q = probabilities([0.97, 0.01, 0.01, 0.01]), probabilities([0.01, 0.01, 0.01, 0.97])
    assert js_divergence(p, q, math.e).item() == pytest.approx(0.623486, abs=5e-7)
    assert published_js_divergence(p, q).item() == pytest.approx(0.393094, abs=5e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_logits_have_distance_exactly_zero(dtype):
    p = logits(2, scale=10.0).to(dtype)
    assert js_divergence(p, p.clone()).eq(0).all()
    assert activation_distance(p, p.clone()).eq(0).all()
    assert agreement(p, p.clone()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_js_divergence_is_symmetric_and_within_zero_and_one(dtype):
    for scale in (0.1, 3.0, 50.0, 1000.0):
        p, q = logits(3, n=500, scale=scale).to(dtype), logits(4, n=500, scale=scale).to(dtype)
        value = js_divergence(p, q)
        assert torch.equal(value, js_divergence(q, p))
        assert value.ge(0).all()
        assert value.le(1).all()


@pytest.mark.parametrize("gap", [50.0, 120.0, 745.0, 5e3, 1e30])
def test_js_divergence_of_certain_outputs_is_finite(gap):
    p = torch.tensor([[gap, 0.0, -gap], [gap, 0.0, 0.0], [gap, 0.0, 0.0]])
    q = torch.tensor([[-gap, 0.0, gap], [gap, 0.0, -gap], [0.0, 0.0, 0.0]])
    value = js_divergence(p, q)
    assert value[0] == pytest.approx(1.0, abs=1e-6)
    assert value[1] == pytest.approx(0.0, abs=1e-6)
    # one-hot against uniform over three classes, in bits
    assert value[2] == pytest.approx(jensenshannon([1, 0, 0], [1 / 3] * 3, base=2) ** 2, abs=1e-6)


def test_js_divergence_of_masked_classes():
    masked = torch.tensor([[1.0, 2.0, -math.inf]], dtype=torch.float64)
    other = torch.tensor([[2.0, 1.0, -math.inf], [1.0, 2.0, 3.0]], dtype=torch.float64)
    value = js_divergence(masked.expand(2, 3), other).numpy()
    p, q = softmax(masked.numpy(), axis=1), softmax(other.numpy(), axis=1)
    np.testing.assert_allclose(value, jensenshannon(p, q, base=2, axis=1) ** 2, rtol=1e-9)


def test_undefined_outputs_give_nan_and_never_zero():
    bad, good = torch.tensor([[math.nan, 0.0], [math.inf, 0.0]]), torch.zeros(2, 2)
    for a, b in ((bad, good), (good, bad), (bad, bad)):
        assert js_divergence(a, b).isnan().all()
        assert activation_distance(a, b).isnan().all()


def test_published_js_divergence_restates_the_formula():
    p, q = logits(5), logits(6)
    a, b = softmax(p.numpy(), axis=1), softmax(q.numpy(), axis=1)
    m = (a + b) / 2
    reversed_terms = m * (np.log(m) - np.log(a)) + m * (np.log(m) - np.log(b))
    np.testing.assert_allclose(published_js_divergence(p, q).numpy(), 0.5 * reversed_terms.mean(axis=1), rtol=1e-12)


def test_degenerate_published_case():
    case = json.loads((GOLDEN / "expected.json").read_text())["jsdiv_degenerate"]
    p, q = torch.tensor(case["logits_p"]), torch.tensor(case["logits_q"])
    assert published_js_divergence(p, q).mean().item() == float(case["value_reference"])
    true = js_divergence(p.double(), q.double()).mean().item()
    assert true == pytest.approx(case["value_by_definition_bits"], abs=1e-10)
    assert true * math.log(2) == pytest.approx(case["value_by_definition_nats"], abs=1e-10)


def test_published_js_divergence_is_nan_where_both_underflow():
    p = torch.tensor([[200.0, 0.0]])
    assert published_js_divergence(p, p).isnan().all()
    assert js_divergence(p, p).eq(0).all()


def test_activation_distance_equals_numpy():
    p, q = logits(7), logits(8)
    expected = np.linalg.norm(softmax(p.numpy(), axis=1) - softmax(q.numpy(), axis=1), axis=1)
    np.testing.assert_allclose(activation_distance(p, q).numpy(), expected, rtol=1e-12)
    opposite = activation_distance(torch.tensor([[900.0, 0.0]]), torch.tensor([[0.0, 900.0]]))
    assert opposite.item() == pytest.approx(math.sqrt(2))


def test_agreement_compares_first_largest_logits():
    p = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    q = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert agreement(p, q).tolist() == [True, False]


def test_half_precision_is_computed_in_float32():
    p, q = logits(9).bfloat16(), logits(10).bfloat16()
    assert torch.equal(js_divergence(p, q), js_divergence(p.float(), q.float()))
    assert js_divergence(p, q.double()).dtype == torch.float64


@pytest.mark.parametrize("function", [js_divergence, published_js_divergence, activation_distance, agreement])
def test_shapes_have_to_fit(function):
    with pytest.raises(DataError, match=r"one shape \(n, K\), got \(2, 3\) and \(2, 4\)"):
        function(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(DataError, match="one shape"):
        function(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("base", [1.0, 0.5, -2.0, math.nan])
def test_base_has_to_be_above_one(base):
    with pytest.raises(ConfigError, match="base above 1"):
        js_divergence(torch.zeros(1, 2), torch.zeros(1, 2), base)
