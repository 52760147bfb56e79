"""What holds for every metric: declarations, exact sums, devices, plots."""

import copy
import inspect
import math
import pickle

import matplotlib
import pytest
import torch
from torch import nn

from supreme.components import listing
from supreme.errors import DataError, UnknownNameError
from supreme.metrics import base, default_metrics
from supreme.metrics.accuracy import Accuracy
from supreme.metrics.activation_distance import ActivationDistance
from supreme.metrics.base import SETS, EvaluationMetric, SampleMean
from supreme.metrics.completeness import Completeness
from supreme.metrics.js_divergence import JSDivergence
from supreme.metrics.loss import Loss
from supreme.metrics.mia import MIA
from supreme.metrics.zrf import ZRF

matplotlib.use("Agg")

METRICS = [
    *default_metrics(),
    ActivationDistance("rms"),
    JSDivergence(definition="published"),
    Accuracy("batch_mean"),
    Loss("batch_mean"),
]
MEANS = [metric for metric in METRICS if isinstance(metric, SampleMean)]
COLUMNS = {"unlearned", "retrained", "original", "incompetent", "target", "index", "part"}
MODELS = {"unlearned_model", "retrained_model"}


def by_key(metrics):
    return pytest.mark.parametrize("metric", metrics, ids=[metric.key for metric in metrics])


def arguments(metric, n=40):
    """Something that the metric's update accepts."""
    generator = torch.Generator().manual_seed(0)
    made = {
        "target": torch.randint(5, (n,), generator=generator),
        "index": torch.arange(n),
        "part": torch.arange(n) % 4,
        "unlearned_model": nn.Linear(3, 2),
        "retrained_model": nn.Linear(3, 2),
    }
    made |= {name: torch.randn(n, 5, generator=generator) for name in COLUMNS - set(made)}
    return [made[name] for name in metric.inputs]


def numbers(result):
    return {k: v.item() for k, v in result.items()} if isinstance(result, dict) else {"": result.item()}


@by_key(METRICS)
def test_declarations(metric):
    assert set(metric.inputs) <= COLUMNS or set(metric.inputs) <= MODELS
    assert len(inspect.signature(type(metric).update).parameters) == 1 + len(metric.inputs)
    assert set(metric.sets) <= set(SETS)
    assert set(metric.needs) <= {"retrained", "original", "incompetent", "train"}
    assert metric.best in ("retrained", "low", "high")
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    assert type(metric).paper == "" or "arXiv" in type(metric).paper


def test_every_metric_file_is_listed_and_tested_here():
    assert {component.name for component in listing("metrics", plugins=False)} == {type(m).__name__ for m in METRICS}


@by_key(METRICS)
def test_results_are_float64_scalars(metric):
    metric = metric.clone()
    metric.update(*arguments(metric))
    result = metric.compute()
    for value in result.values() if isinstance(result, dict) else [result]:
        assert value.dtype == torch.float64
        assert value.dim() == 0


@by_key([m for m in METRICS if "batch_mean" not in m.key and "unlearned_model" not in m.inputs])
def test_batches_do_not_matter_and_empty_ones_are_allowed(metric):
    columns = arguments(metric)
    results = []
    for size in (40, 7, 1):
        copied = metric.clone()
        copied.update(*(column[:0] for column in columns))
        for start in range(0, 40, size):
            copied.update(*(column[start : start + size] for column in columns))
        results.append(numbers(copied.compute()))
    assert results[1] == pytest.approx(results[0], rel=1e-13)
    assert results[2] == pytest.approx(results[0], rel=1e-13)


@by_key(MEANS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_sample_is_no_result(metric):
    copied = metric.clone()
    with pytest.raises(DataError, match=f"at least one sample for {metric.key}, got none"):
        copied.compute()
    copied.update(*(column[:0] for column in arguments(metric)))
    with pytest.raises(DataError, match="got none"):
        copied.compute()


@by_key(MEANS)
def test_nan_outputs_are_no_result(metric):
    copied, columns = metric.clone(), arguments(metric)
    columns[0][3, 2] = math.nan
    copied.update(*columns)
    with pytest.raises(DataError, match=f"finite network outputs for {metric.key}, got NaN"):
        copied.compute()


@by_key([m for m in METRICS if "unlearned_model" not in m.inputs])
def test_outputs_of_any_precision_are_summed_in_float64(metric):
    columns = arguments(metric)
    half = [column.bfloat16() if column.is_floating_point() else column for column in columns]
    wide = [column.double() if column.is_floating_point() else column for column in half]
    first, second = metric.clone(), metric.clone()
    first.update(*half)
    second.update(*wide)
    assert numbers(first.compute()) == numbers(second.compute())


@by_key(METRICS)
def test_states_keep_float64_when_the_module_changes_its_dtype(metric):
    holder = nn.ModuleDict({"metric": metric.clone()})
    columns = arguments(metric)
    holder["metric"].update(*columns)
    before = numbers(copy.deepcopy(holder["metric"]).compute())
    for convert in (lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.to("cpu", torch.float16)):
        convert(holder)
    states = [
        s for state in holder["metric"].metric_state.values() for s in (state if isinstance(state, list) else [state])
    ]
    assert all(state.dtype == torch.float64 for state in states)
    assert numbers(holder["metric"].compute()) == before


def test_states_follow_the_device_except_where_there_is_no_float64(monkeypatch):
    metric = Accuracy()
    monkeypatch.setattr(base, "_WITHOUT_FLOAT64", ("meta",))
    metric.to("meta")
    assert metric.total.device.type == metric.device.type == "cpu"
    monkeypatch.setattr(base, "_WITHOUT_FLOAT64", ())
    metric.to("meta")
    assert metric.total.device.type == metric.device.type == "meta"


@by_key(METRICS)
def test_reset_copy_and_pickle(metric):
    first = metric.clone()
    assert first.key == metric.key
    columns = arguments(metric)
    first.update(*columns)
    expected = numbers(first.compute())
    assert numbers(pickle.loads(pickle.dumps(first)).compute()) == expected
    first.reset()
    first.update(*columns)
    assert numbers(first.compute()) == expected


@by_key(METRICS)
def test_states_stay_out_of_checkpoints(metric):
    assert metric.state_dict() == {}


@by_key(METRICS)
def test_plot(metric):
    from matplotlib import pyplot

    copied = metric.clone()
    copied.update(*arguments(metric))
    _, axes = copied.plot()
    assert axes.get_ylabel() == type(metric).__name__
    heights = sorted(line.get_ydata()[0] for line in axes.get_lines())
    assert heights == pytest.approx(sorted(numbers(copied.compute()).values()))
    _, given = pyplot.subplots()
    _, again = copied.plot([copied.compute(), copied.compute()], ax=given)
    assert again is given
    pyplot.close("all")


@by_key(MEANS)
def test_forward_returns_the_batch_and_keeps_the_whole(metric):
    columns = arguments(metric)
    whole = metric.clone()
    one, two = [c[:10] for c in columns], [c[10:] for c in columns]
    alone = metric.clone()
    alone.update(*two)
    whole(*one)
    assert numbers(whole(*two)) == pytest.approx(numbers(alone.compute()))
    expected = metric.clone()
    expected.update(*one)
    expected.update(*two)
    assert numbers(whole.compute()) == pytest.approx(numbers(expected.compute()), rel=1e-13)


def test_a_model_against_itself():
    logits = 4 * torch.randn(33, 6, generator=torch.Generator().manual_seed(3))
    for metric, value in ((ActivationDistance(), 0), (JSDivergence(), 0), (Completeness(), 1), (ZRF(), 1)):
        metric.update(logits, logits.clone())
        assert metric.compute().item() == value


def test_large_sums_are_exact():
    metric = Accuracy()
    metric.total, metric.count = metric.total + 2**30, metric.count + 2**30
    metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert metric.compute().item() == 2**30 / (2**30 + 1) < 1.0


def test_a_metric_of_a_user_needs_only_an_update():
    class Margin(SampleMean):
        """Mean distance of the two largest logits."""

        key = "margin"
        inputs = ("unlearned",)

        def update(self, unlearned):
            best = self._wide(unlearned).topk(2, dim=1).values
            self._add(best[:, 0] - best[:, 1])

    metric = Margin()
    metric.update(torch.tensor([[3.0, 1.0, 0.0], [0.0, 4.0, 1.0]]))
    assert metric.compute().item() == 2.5


def test_chosen_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Unknown reduction 'meam'; did you mean 'mean'"):
        base.chosen("reduction", "meam", ("mean", "rms"))


def test_the_base_class_is_abstract_in_update():
    with pytest.raises(TypeError, match="abstract"):
        EvaluationMetric()


def test_membership_attack_needs_the_training_set():
    assert MIA.needs == ("train",)
