"""RandomLabels against stored results; which labels are drawn."""

import pytest
import torch

from supreme.batch import ForgetRequest
from supreme.errors import ConfigError
from supreme.methods import RandomLabels


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights_with_given_labels(case, dtype):
    golden = case("random_labels_given", dtype)
    labels = torch.tensor(golden.arrays["random_labels"][golden.arrays["forget_mask"]])
    golden.check(golden.unlearn("RandomLabels", labels=labels).model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights_where_one_label_is_left(case, dtype):
    golden = case("random_labels_two_class", dtype)
    golden.check(golden.unlearn("RandomLabels").model.state_dict())


def drawn(tiny, classes, forget_classes, target, seed=0):
    method = RandomLabels(tiny.network(), seed=seed)
    index = torch.arange(len(target))
    method.request = ForgetRequest(classes, forget_classes, "", index)
    method.prepare(method.request)
    return method.wrong_labels(index, target)


def assert_uniform(labels, allowed):
    share = torch.bincount(labels, minlength=max(allowed) + 1) / len(labels)
    expected = 1 / len(allowed)
    spread = (expected * (1 - expected) / len(labels)) ** 0.5
    assert set(labels.tolist()) == set(allowed)
    assert ((share[allowed] - expected).abs() < 5 * spread).all()


def test_uniform_among_the_classes_that_stay(tiny):
    target = torch.tensor([2, 5]).repeat(10_000)
    assert_uniform(drawn(tiny, 7, (2, 5), target), [0, 1, 3, 4, 6])


def test_uniform_among_the_other_classes_in_random_requests(tiny):
    target = torch.arange(5).repeat_interleave(6_000)
    labels = drawn(tiny, 5, None, target)
    for true in range(5):
        assert_uniform(labels[target == true], [k for k in range(5) if k != true])


def test_one_label_per_sample_whatever_the_batch(tiny):
    method = RandomLabels(tiny.network(), seed=4)
    method.request = ForgetRequest(9, (1,), "", torch.arange(50))
    target = torch.ones(50, dtype=torch.int64)
    whole = method.wrong_labels(torch.arange(50), target)
    backwards = method.wrong_labels(torch.arange(49, -1, -1), target)
    assert torch.equal(whole, backwards.flip(0))


def test_seed_drives_the_labels(tiny):
    target = torch.zeros(100, dtype=torch.int64)
    first, same, other = (drawn(tiny, 10, (0,), target, seed) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_given_labels_reach_their_samples(tiny):
    labels = torch.tensor([3, 1, 0])
    method = RandomLabels(tiny.network(), labels=labels)
    method.request = ForgetRequest(4, (2,), "", torch.tensor([4, 9, 30]))
    found = method.wrong_labels(torch.tensor([30, 5, 4, 9]), torch.full((4,), 2))
    assert found[[0, 2, 3]].tolist() == [0, 3, 1]


@pytest.mark.parametrize(
    "labels", [torch.zeros(3, dtype=torch.int64), torch.full((11,), 4), torch.full((11,), -1), torch.zeros(11)]
)
def test_given_labels_that_do_not_fit(tiny, fit, labels):
    with pytest.raises(ConfigError, match=r"Expected 11 whole numbers in \[0, 4\)"):
        fit(RandomLabels(tiny.network(), labels=labels), tiny.scenario())


def test_no_class_left(tiny, fit):
    with pytest.raises(ConfigError, match="no class left"):
        fit(RandomLabels(tiny.network()), tiny.scenario(forget_classes=(0, 1, 2, 3)))
