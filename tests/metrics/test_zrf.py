"""ZRF against SciPy and the stored published values."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from supreme.errors import DataError, UnknownNameError
from supreme.metrics.zrf import ZRF


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_equals_scipy_in_batches_of_any_size(evaluate, sample_logits, batch_size):
    model, teacher = sample_logits(0), sample_logits(1, scale=0.1)
    p, q = (logits.double().softmax(dim=1).numpy() for logits in (model, teacher))
    expected = 1 - (jensenshannon(p, q, base=2, axis=1) ** 2).mean()
    assert evaluate(ZRF(), model, teacher, batch_size=batch_size) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("case", "network"), [("zrf_initial_test_forget", "original"), ("zrf_final_test_forget", "unlearned")]
)
def test_stored_values(evaluate, golden, case, network):
    case = golden.expected[case]
    columns = [golden.logits[f"{name}.test_forget"] for name in (network, "incompetent_teacher")]
    value = evaluate(ZRF(model=network), *columns, batch_size=4)
    assert value == pytest.approx(case["value_by_definition_bits"], abs=1e-10)
    nats = evaluate(ZRF(model=network, base=math.e), *columns)
    assert nats == pytest.approx(case["value_by_definition_nats"], abs=1e-10)
    published = evaluate(ZRF(model=network, definition="published"), *columns, batch_size=4)
    assert published == pytest.approx(case["value_reference"], rel=1e-5)


def test_the_teacher_itself_is_exactly_one(evaluate, sample_logits):
    logits = sample_logits(2)
    assert evaluate(ZRF(), logits, logits.clone()) == 1.0


def test_the_network_is_chosen_by_argument():
    assert (ZRF().key, ZRF().inputs) == ("zrf", ("unlearned", "incompetent"))
    assert (ZRF("original").key, ZRF("original").inputs) == ("zrf_original", ("original", "incompetent"))
    assert ZRF("retrained", base=math.e).key == "zrf_retrained_nats"
    assert ZRF("original", definition="published").key == "zrf_original_published"
    with pytest.raises(UnknownNameError, match="did you mean 'retrained'"):
        ZRF("retraind")


def test_nan_of_the_published_formula_names_its_cause():
    metric = ZRF(definition="published")
    certain = torch.tensor([[200.0, 0.0]])
    metric.update(certain, certain)
    with pytest.raises(DataError, match="underflow, so use definition='true'"):
        metric.compute()
