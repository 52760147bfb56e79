"""check_metric accepts every built-in metric and refuses each kind of broken one."""

import pytest
import torch
from torch import nn

import supreme.metrics
from supreme.components import listing
from supreme.errors import DataError
from supreme.metrics.base import EvaluationMetric, SampleMean, broken_as_nan
from supreme.testing import check_metric

NAMES = [component.name for component in listing("metrics", plugins=False)]


@pytest.mark.distributed
@pytest.mark.parametrize("name", NAMES)
def test_built_in_metrics_keep_the_contract_on_one_process_and_on_two(name):
    check_metric(getattr(supreme.metrics, name), processes=2)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ActivationDistance", {"reduction": "rms"}),
        ("JSDivergence", {"base": 3.0}),
        ("ZRF", {"model": "original"}),
        ("LayerwiseDistance", {"exclude": ["0."]}),
    ],
)
def test_arguments_reach_the_metric(name, arguments):
    check_metric(getattr(supreme.metrics, name), **arguments)


def test_a_published_mean_of_batch_means_depends_on_batches():
    with pytest.raises(AssertionError, match="Accuracy: expected the same value in batches of 7, got"):
        check_metric(supreme.metrics.Accuracy, reduction="batch_mean")


class Good(SampleMean):
    """Mean confidence; what the broken metrics below are made of."""

    key = "confidence"
    inputs = ("unlearned",)

    def values(self, logits):
        return logits.softmax(dim=-1).max(dim=-1).values

    def update(self, unlearned):
        logits = self._wide(unlearned)
        self._add(broken_as_nan(self.values(logits), logits))


class GoodDistance(SampleMean):
    """Mean absolute difference of logits."""

    key = "logit_distance"
    inputs = ("unlearned", "retrained")
    needs = ("retrained",)
    best = "low"
    higher_is_better = False

    def update(self, unlearned, retrained):
        self._add((self._wide(unlearned) - self._wide(retrained)).abs().mean(dim=-1))


class NoKey(Good):
    key = ""


class UnknownSet(Good):
    sets = ("test",)


class UnknownInput(Good):
    inputs = ("logits",)


class NoInput(Good):
    inputs = ()


class MixedInputs(Good):
    inputs = ("unlearned", "unlearned_model")


class UnknownBest(Good):
    best = "median"


class WrongDirection(GoodDistance):
    higher_is_better = True


class UnknownNeed(Good):
    needs = ("magic",)


class UndeclaredNeed(GoodDistance):
    needs = ()


class OtherArguments(Good):
    def update(self):
        """Does not take its inputs."""


class TakesAnything(Good):
    def __init__(self, anything=None, **kwargs):
        super().__init__(**kwargs)


class NeedsAnArgument(Good):
    def __init__(self, anything, **kwargs):
        super().__init__(**kwargs)


class NarrowResult(Good):
    def compute(self):
        return super().compute().float()


class ManyValues(Good):
    def compute(self):
        return super().compute().repeat(2)


class NumberedValues(Good):
    def compute(self):
        return {0: super().compute()}


class Infinite(Good):
    def compute(self):
        return super().compute() / 0


class ChangesItsInput(Good):
    def update(self, unlearned):
        unlearned.sub_(unlearned.mean())
        super().update(unlearned)


class ForgetsAtCompute(Good):
    def compute(self):
        value = super().compute()
        self.total = self.total * 0.5
        return value


class HiddenState(Good):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = 0

    def update(self, unlearned):
        super().update(unlearned)
        self.hidden += 1

    def compute(self):
        return super().compute() * self.hidden


class NarrowState(Good):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.add_state("extra", torch.zeros(()), dist_reduce_fx="sum")


class WeighsBatches(Good):
    def update(self, unlearned):
        logits = self._wide(unlearned)
        self._add_mean(broken_as_nan(self.values(logits), logits))


class WeighsPositions(Good):
    def update(self, unlearned):
        logits = self._wide(unlearned)
        rows = int(self.count) + torch.arange(len(logits))
        self._add(broken_as_nan(self.values(logits), logits) * (1 + rows))


class CountsNothing(Good):
    def update(self, unlearned):
        super().update(unlearned)
        if not len(unlearned):
            self.count = self.count + 1


class NarrowArithmetic(Good):
    def update(self, unlearned):
        self._add(broken_as_nan(self.values(unlearned), unlearned))


class NeverPerfect(GoodDistance):
    def compute(self):
        return super().compute() + 1e-9


class InventsAValue(Good):
    def compute(self):
        return self._mean() if self.count else torch.zeros((), dtype=torch.float64)


class FailsWithoutRows(Good):
    def compute(self):
        if not self.count:
            raise ZeroDivisionError("no rows")
        return self._mean()


class IgnoresNaN(Good):
    def update(self, unlearned):
        self._add(self.values(self._wide(unlearned)).nan_to_num())


class OtherSets(Good):
    sets = ()

    def compute(self):
        return {"elsewhere/confidence": super().compute()}


BROKEN = [
    (nn.Linear, "a subclass of EvaluationMetric"),
    (NoKey, "key in lower case"),
    (UnknownSet, "sets from"),
    (UnknownInput, "inputs from"),
    (NoInput, "inputs from"),
    (MixedInputs, "networks or rows as inputs"),
    (UnknownBest, "best to be retrained, low or high, got 'median'"),
    (WrongDirection, "higher_is_better to be False, as best is 'low', got True"),
    (UnknownNeed, "needs from"),
    (UndeclaredNeed, r"needs to name the models in inputs \(\['retrained'\]\)"),
    (OtherArguments, r"update\(unlearned\) and compute\(\) to work, got TypeError"),
    (NeedsAnArgument, r"metric\(\*\*arguments\) to work, got TypeError"),
    (NarrowResult, "confidence as one float64 value"),
    (ManyValues, "confidence as one float64 value"),
    (NumberedValues, "a tensor or a dict of names to tensors"),
    (Infinite, "a finite confidence, got inf"),
    (ChangesItsInput, "its inputs to stay as they were"),
    (ForgetsAtCompute, "rows to be added after a compute"),
    (HiddenState, "the same value after reset"),
    (NarrowState, r"float64 states, got \['extra'\] in another type"),
    (WeighsBatches, "the same value in batches of 7"),
    (WeighsPositions, "the same value for rows in another order"),
    (CountsNothing, "an update without rows to do nothing"),
    (NarrowArithmetic, "float32 logits to be computed in float64"),
    (NeverPerfect, "logit_distance of a model against itself to be exactly 0, got 1e-09"),
    (InventsAValue, "DataError from compute without any row, got the value"),
    (FailsWithoutRows, "DataError from compute without any row, got ZeroDivisionError"),
    (IgnoresNaN, "DataError from compute for NaN outputs"),
    (OtherSets, r"one value for each of \[''\]"),
]


@pytest.mark.parametrize(("metric", "text"), BROKEN, ids=[metric.__name__ for metric, _ in BROKEN])
def test_every_broken_promise_is_found(metric, text):
    with pytest.raises(AssertionError, match=text) as caught:
        check_metric(metric)
    assert str(caught.value).startswith(f"{metric.__name__}: expected ")
    assert "Look at " in str(caught.value)


def test_the_metrics_that_the_broken_ones_derive_from_are_good():
    check_metric(Good)
    check_metric(GoodDistance)


def test_arguments_have_to_travel():
    with pytest.raises(AssertionError, match="copying and pickling the argument 'anything'"):
        check_metric(TakesAnything, anything=lambda: 0)


@pytest.mark.distributed
def test_a_state_that_is_not_reduced_is_found(apart):
    check_metric(apart.NeverReduced)
    with pytest.raises(AssertionError, match=r"rank 0 of 2 to have the value of one process \(rows dealt out\)"):
        check_metric(apart.NeverReduced, processes=2)


def test_a_metric_of_networks_is_checked_too():
    class Invented(EvaluationMetric):
        key, sets, inputs = "invented", (), ("unlearned_model", "retrained_model")
        needs, best, higher_is_better = ("retrained",), "low", False

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.add_state("total", torch.full((), torch.nan, dtype=torch.float64), dist_reduce_fx="max")

        def update(self, unlearned_model, retrained_model):
            gap = unlearned_model[0].weight.double() - retrained_model[0].weight.double()
            self.total = gap.abs().sum().detach()

        def compute(self):
            if self.total.isnan():
                raise DataError("no networks")
            return self.total

    Invented.__qualname__ = "Invented"
    globals()["Invented"] = Invented
    check_metric(Invented)
    Invented.best, Invented.higher_is_better = "high", True
    with pytest.raises(AssertionError, match="against itself to be exactly 1, got 0"):
        check_metric(Invented)
