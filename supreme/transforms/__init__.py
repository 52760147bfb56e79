"""On-device transforms: per-sample augmentation and preprocessing of image batches."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {"Augment": "augment", "Preprocess": "preprocess"})
