"""Unlearning methods: one class per file, each a LightningModule around the original model."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "ASSD": "assd",
        "BadTeacher": "bad_teacher",
        "FineTune": "fine_tune",
        "JIT": "jit",
        "LFSSD": "lfssd",
        "LFSSDDet": "lfssd_det",
        "NegGrad": "neg_grad",
        "Original": "original",
        "RandomLabels": "random_labels",
        "Retrain": "retrain",
        "SCRUB": "scrub",
        "SSD": "ssd",
        "SSDDet": "ssd_det",
        "UNSIR": "unsir",
        "UnlearningMethod": "base",
    },
)
