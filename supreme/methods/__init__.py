"""Unlearning methods: one class per file, each a LightningModule around the original model."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "BadTeacher": "bad_teacher",
        "FineTune": "fine_tune",
        "LFSSD": "lfssd",
        "Original": "original",
        "RandomLabels": "random_labels",
        "Retrain": "retrain",
        "SCRUB": "scrub",
        "SSD": "ssd",
        "UNSIR": "unsir",
        "UnlearningMethod": "base",
    },
)
