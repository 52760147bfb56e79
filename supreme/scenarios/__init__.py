"""Scenarios: which samples are to be forgotten, as LightningDataModules."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "FullClass": "full_class",
        "GivenSets": "given_sets",
        "RandomSample": "random_sample",
        "Scenario": "base",
        "SubClass": "sub_class",
        "WholeDataset": "whole_dataset",
    },
)
