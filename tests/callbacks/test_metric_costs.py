"""What each metric of an evaluation costs."""

import gc
import time

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from supreme.callbacks import MetricCosts
from supreme.distributed import quiet_trainer
from supreme.evaluation import Evaluation
from supreme.metrics import Accuracy
from supreme.scenarios.given_sets import GivenSets

PAUSE_S, BLOCK = 0.05, 64 * 2**20


class Slow(Accuracy):
    """Sleeps in every call."""

    key = "slow"
    sets = ("retain", "forget")

    def update(self, unlearned, target):
        time.sleep(PAUSE_S)
        super().update(unlearned, target)

    def compute(self):
        time.sleep(PAUSE_S)
        return super().compute()


class Large(Accuracy):
    """Holds 64 MiB for a while, and lets them go."""

    key = "large"
    sets = ("forget",)

    def compute(self):
        block = torch.ones(BLOCK, dtype=torch.uint8)
        time.sleep(10 * PAUSE_S)  # memory is read at intervals, late on a busy machine
        return super().compute() * block[0]


class Collecting(Large):
    """Meets a garbage collection, as can happen at any time."""

    def compute(self):
        gc.collect()
        return super().compute()


class Broken(Accuracy):
    """Raises."""

    def compute(self):
        raise RuntimeError("no value")


def data():
    images, targets = torch.randn(12, 1, 2, 2), torch.tensor([0, 1] * 6)
    sets = [TensorDataset(images[rows], targets[rows]) for rows in (slice(0, 4), slice(4, 8), slice(8, 12))]
    return GivenSets(sets[0], sets[1], 2, forget_test=sets[0], retain_test=sets[2])


def evaluated(*metrics, callback=None):
    evaluation = Evaluation(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), metrics=metrics)
    callbacks = [] if callback is None else [callback]
    quiet_trainer("cpu", callbacks=callbacks).test(evaluation, datamodule=data(), verbose=False)
    return evaluation


def test_time_and_memory_are_those_of_the_metric():
    costs = MetricCosts()
    evaluation = evaluated(Accuracy(), Slow(), Large(), callback=costs)
    kinds = ("metric_time_s", "metric_peak_memory_bytes")
    assert set(costs.costs) == {f"{kind}/{key}" for kind in kinds for key in ("accuracy", "slow", "large")}
    # two sets, each with an update and a value
    assert 4 * PAUSE_S <= costs.costs["metric_time_s/slow"] < 4 * PAUSE_S + 5
    assert costs.costs["metric_time_s/large"] >= PAUSE_S
    assert costs.costs["metric_time_s/accuracy"] < costs.costs["metric_time_s/slow"]
    assert BLOCK * 0.8 < costs.costs["metric_peak_memory_bytes/large"] < BLOCK * 2
    assert costs.costs["metric_peak_memory_bytes/slow"] < BLOCK / 2
    assert evaluation.scores["forget/slow"] == evaluation.scores["forget/accuracy"]


def test_what_earlier_work_has_left_does_not_hide_what_a_metric_takes():
    gc.disable()
    try:
        cycle = [torch.ones(BLOCK, dtype=torch.uint8) for _ in range(2)]
        cycle.append(cycle)
        del cycle
        costs = MetricCosts()
        evaluated(Collecting(), callback=costs)
    finally:
        gc.enable()
    assert BLOCK * 0.8 < costs.costs["metric_peak_memory_bytes/large"] < BLOCK * 2


def test_it_changes_no_value_and_leaves_the_metrics_as_they_were():
    torch.manual_seed(0)
    plain = evaluated(Accuracy())
    torch.manual_seed(0)
    watched = evaluated(Accuracy(), callback=MetricCosts())
    assert plain.scores == watched.scores
    for evaluation in (plain, watched):
        metric = evaluation.suite.copies["whole/accuracy"]
        assert metric.update.__qualname__ == plain.suite.copies["whole/accuracy"].update.__qualname__


def test_a_metric_that_raises_is_no_hindrance():
    costs = MetricCosts()
    with pytest.raises(RuntimeError, match="no value"):
        evaluated(Broken(), callback=costs)
    assert costs.costs == {}
    evaluated(Accuracy(), callback=costs)
    assert costs.costs["metric_time_s/accuracy"] > 0
