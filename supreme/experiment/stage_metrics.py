"""The metrics of an evaluation stage."""

import inspect
from collections.abc import Mapping
from typing import Any

from supreme.api import make_metric
from supreme.experiment.stage import Stage
from supreme.metrics.base import EvaluationMetric
from supreme.metrics.suite import default_metrics


def metrics_of(stage: Stage) -> list[EvaluationMetric]:
    """The metrics of the plan: all or the named ones, and the added ones.

    Args:
        stage: an evaluation.
    """
    config, seed = stage.config["metrics"], int(stage.config["seed"])
    named = default_metrics(seed) if config["named"] is None else [_metric(item, seed) for item in config["named"]]
    return named + [_metric(item, seed) for item in config["added"]]


def draws(metric: EvaluationMetric) -> bool:
    """Whether a metric depends on the evaluation seed; that reaches it by its argument ``seed`` alone."""
    return "seed" in inspect.signature(type(metric)).parameters


def _metric(config: Mapping[str, Any], seed: int) -> EvaluationMetric:
    return make_metric(config["class_path"], seed, dict(config["init_args"]))
