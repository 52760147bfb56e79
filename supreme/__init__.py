"""SUPREME: train, unlearn, evaluate and compare machine-unlearning methods for image classifiers.

``supreme.unlearn`` and ``supreme.evaluate`` work on any model and data; ``supreme run plan.yaml`` compares methods over
many seeds. Nothing heavy is imported before it is used.
"""

from supreme.components import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Batch": "batch",
        "Evaluation": "evaluation",
        "EvaluationMetric": "metrics.base",
        "ForgetRequest": "batch",
        "FullClass": "scenarios.full_class",
        "ImageClassifier": "classifier",
        "ImageDataset": "datasets.base",
        "Phase": "batch",
        "RandomSample": "scenarios.random_sample",
        "Recipe": "classifier",
        "Scenario": "scenarios.base",
        "SubClass": "scenarios.sub_class",
        "UnlearningMethod": "methods.base",
        "evaluate": "api",
        "unlearn": "api",
    },
)
