"""FullClass: the classes' samples, in D and in D'."""

import numpy as np
import pytest

from supreme.datasets import Digits
from supreme.errors import ConfigError, DataError, UnknownNameError
from supreme.scenarios import FullClass


def test_published_index_sets(golden_labels):
    dataset, meta, expected, _ = golden_labels
    found = FullClass(dataset, meta["forget_coarse"]).indices()
    assert found.keys() == expected["class_forgetting"].keys()
    for name, index in found.items():
        assert index.tolist() == sorted(expected["class_forgetting"][name]), name


@pytest.mark.parametrize("forget", [[3], [8, 3], (3, 8), ["3", 8]])
def test_index_sets_by_hand(forget):
    dataset = Digits()
    scenario = FullClass(dataset, forget)
    wanted = sorted({int(k) for k in forget})
    for part, images in (("train", dataset.train), ("test", dataset.test)):
        mask = np.isin(images.targets.numpy(), wanted)
        assert scenario.indices()[f"forget_{part}"].tolist() == np.flatnonzero(mask).tolist()
        assert scenario.indices()[f"retain_{part}"].tolist() == np.flatnonzero(~mask).tolist()
    assert scenario.forget_classes() == tuple(wanted)
    assert scenario.target_name() == "+".join(map(str, wanted))
    request = scenario.request
    assert (request.num_classes, request.forget_classes, request.forget_subclasses) == (10, tuple(wanted), None)
    assert request.forget_index.tolist() == scenario.indices()["forget_train"].tolist()


def test_names_and_numbers_mean_the_same(labels):
    dataset = labels([0, 1, 2, 1], [0, 1], classes=3)
    by_name, by_number = FullClass(dataset, "c1"), FullClass(dataset, 1)
    assert by_name.request.fingerprint == by_number.request.fingerprint
    assert by_name.target_name() == "c1"


def test_fingerprints_tell_requests_apart():
    prints = {FullClass(Digits(), forget).request.fingerprint for forget in (0, 1, [0, 1])}
    prints.add(FullClass(Digits(split_seed=1), 0).request.fingerprint)
    assert len(prints) == 4


def test_mistakes(labels):
    with pytest.raises(UnknownNameError, match="did you mean 'c1'"):
        FullClass(labels([0, 1], [0], classes=2), "c1x").indices()
    with pytest.raises(ConfigError, match="0 to 9"):
        FullClass(Digits(), 10).indices()
    with pytest.raises(DataError, match="retain set is empty"):
        FullClass(Digits(), list(range(10))).indices()
    with pytest.raises(DataError, match="forget set is empty"):
        FullClass(labels([0, 1], [0, 1], classes=3), 2).indices()
    with pytest.raises(ConfigError, match="batch sizes >= 1"):
        FullClass(Digits(), 1, batch_size=0)
