"""Metrics: one torchmetrics metric per file, and the suite that says which of them runs on which set."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Accuracy": "accuracy",
        "ActivationDistance": "activation_distance",
        "Completeness": "completeness",
        "EvaluationMetric": "base",
        "JSDivergence": "js_divergence",
        "LayerwiseDistance": "layerwise_distance",
        "Loss": "loss",
        "MIA": "mia",
        "SETS": "base",
        "SampleMean": "base",
        "Suite": "suite",
        "Table": "table",
        "ZRF": "zrf",
        "default_metrics": "suite",
    },
)
