"""SubClass: fine classes, while their super-class stays."""

import pytest

from supreme.datasets import Digits
from supreme.errors import DataError, UnknownNameError
from supreme.scenarios import SubClass


def test_published_index_sets(golden_labels):
    dataset, meta, expected, _ = golden_labels
    scenario = SubClass(dataset, meta["forget_fine"])
    for name, index in scenario.indices().items():
        assert index.tolist() == sorted(expected["subclass_forgetting"][name]), name


def test_the_request_names_both_levels(golden_labels):
    dataset, meta, _, arrays = golden_labels
    scenario = SubClass(dataset, [f"f{meta['forget_fine']}", 0])
    fine = tuple(sorted((0, meta["forget_fine"])))
    assert scenario.request.forget_subclasses == fine
    assert scenario.request.forget_classes == tuple(sorted({int(arrays["fine_to_coarse"][k]) for k in fine}))
    assert scenario.request.num_classes == meta["coarse_classes"]
    assert scenario.target_name() == "+".join(f"f{k}" for k in fine)


def test_mistakes(golden_labels):
    dataset, *_ = golden_labels
    with pytest.raises(UnknownNameError, match="fine class"):
        SubClass(dataset, "fff").indices()
    with pytest.raises(DataError, match="needs a dataset with fine labels"):
        SubClass(Digits(), 0).indices()
