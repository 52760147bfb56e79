"""RandomSample: how many, which, and what is tested on."""

import pytest
import torch

from supreme.datasets import Digits
from supreme.errors import ConfigError
from supreme.scenarios import RandomSample


def test_published_sizes(golden_labels, labels):
    _, _, expected, arrays = golden_labels
    for entry in expected["random_forgetting"]:
        dataset = labels([k % 5 for k in range(entry["n_train"])], arrays["coarse_test"], classes=5)
        found = RandomSample(dataset, entry["fraction"]).indices()
        assert found.keys() == {"retain_test", "retain_train", "forget_train"}
        assert {name: len(index) for name, index in found.items()} == {k: entry[k] for k in found}


@pytest.mark.parametrize(
    ("fraction", "count", "size"), [(0.1, 30, 3), (0.29, 100, 29), (0.001, 30, 1), (0.9999, 10, 9), (0.5, 3, 2)]
)
def test_sizes(labels, fraction, count, size):
    dataset = labels([k % 2 for k in range(count)], [0, 1], classes=2)
    assert len(RandomSample(dataset, fraction).indices()["forget_train"]) == size


def test_parts_are_disjoint_and_complete():
    found = RandomSample(Digits(), 0.3).indices()
    assert torch.equal(torch.cat([found["forget_train"], found["retain_train"]]).sort().values, torch.arange(1438))
    assert torch.equal(found["retain_test"], torch.arange(359))


def test_the_draw_has_a_seed_and_a_generator_of_its_own():
    draws = []
    for seed in (4, 4, 5):
        torch.manual_seed(len(draws))
        before = torch.get_rng_state()
        draws.append(RandomSample(Digits(), 0.1, draw_seed=seed).indices()["forget_train"])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_every_sample_is_drawn_equally_often(labels):
    dataset = labels([0, 1] * 20, [0, 1], classes=2)
    counts = torch.zeros(40)
    for seed in range(600):
        counts[RandomSample(dataset, 0.25, draw_seed=seed).indices()["forget_train"]] += 1
    assert ((counts / 600 - 0.25).abs() < 5 * (0.25 * 0.75 / 600) ** 0.5).all()


def test_the_request_names_no_class():
    request = RandomSample(Digits(), 0.1).request
    assert request.forget_classes is None
    assert request.forget_subclasses is None


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 5, float("nan")])
def test_fractions_outside_the_range(fraction):
    with pytest.raises(ConfigError, match=r"inside \(0, 1\)"):
        RandomSample(Digits(), fraction)
