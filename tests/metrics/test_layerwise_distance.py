"""Layer-wise distance against NumPy and the stored published value."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from supreme.errors import DataError
from supreme.metrics.layerwise_distance import LayerwiseDistance


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


def build(layers):
    made = []
    for name, args, options in layers:
        made.append(getattr(nn, name)(*[tuple(a) if isinstance(a, list) else a for a in args], **options))
    return nn.Sequential(*made)


def distance(metric, ours, theirs):
    metric.update(ours, theirs)
    return metric.compute().item()


def test_equals_numpy_over_all_parameters():
    ours, theirs = network(0), network(1)
    squares = [
        ((a - b).double().detach().numpy() ** 2).sum()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    ]
    assert distance(LayerwiseDistance(), ours, theirs) == pytest.approx(math.sqrt(sum(squares)), rel=1e-6)
    vectors = [np.concatenate([p.detach().double().numpy().ravel() for p in m.parameters()]) for m in (ours, theirs)]
    assert distance(LayerwiseDistance(), ours, theirs) == pytest.approx(
        np.linalg.norm(vectors[0] - vectors[1]), rel=1e-12
    )


def test_stored_value(golden):
    ours, theirs = build(golden.meta["model"]), build(golden.meta["model"])
    ours.load_state_dict(golden.weights["unlearned"])
    theirs.load_state_dict(golden.weights["retrained"])
    case = golden.expected["layerwise_distance"]
    value = distance(LayerwiseDistance(), ours, theirs)
    assert value == pytest.approx(case["value_by_definition"], abs=1e-10)
    assert value == pytest.approx(case["value_reference"], rel=1e-5)


def test_a_model_against_itself_is_exactly_zero():
    assert distance(LayerwiseDistance(), network(0), network(0)) == 0.0


def test_buffers_do_not_count():
    ours, theirs = network(0), network(0)
    ours[1].running_mean += 5.0
    assert distance(LayerwiseDistance(), ours, theirs) == 0.0


def test_a_later_pair_replaces_an_earlier_one():
    metric = LayerwiseDistance()
    first = distance(metric, network(0), network(1))
    assert distance(metric, network(0), network(1)) == first


def test_excluded_parts_are_left_out():
    ours, theirs = network(0), network(0)
    with torch.no_grad():
        ours[3].weight += 1.0
        ours[0].bias += 1.0
    assert distance(LayerwiseDistance(), ours, theirs) == pytest.approx(math.sqrt(80 + 4), rel=1e-6)
    assert distance(LayerwiseDistance(exclude=["3."]), ours, theirs) == pytest.approx(2.0, rel=1e-6)
    assert distance(LayerwiseDistance(exclude="3."), ours, theirs) == pytest.approx(2.0, rel=1e-6)
    assert distance(LayerwiseDistance(exclude=("3.", "0.bias")), ours, theirs) == 0.0


def test_frozen_parameters():
    ours, theirs = network(0), network(0)
    with torch.no_grad():
        ours[3].weight += 1.0
    whole = distance(LayerwiseDistance(), ours, theirs)
    theirs.requires_grad_(False)  # a frozen reference
    assert distance(LayerwiseDistance(), ours, theirs) == whole
    ours[3].weight.requires_grad_(False)  # frozen in both, while the rest still learns
    assert distance(LayerwiseDistance(), ours, theirs) == 0.0
    ours.requires_grad_(False)  # everything frozen for evaluation
    assert distance(LayerwiseDistance(), ours, theirs) == whole


def test_half_precision_weights_are_compared_in_float64():
    ours, theirs = network(0).bfloat16(), network(1).bfloat16()
    expected = math.sqrt(
        sum(
            (a.double() - b.double()).square().sum().item()
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
        )
    )
    assert distance(LayerwiseDistance(), ours, theirs) == pytest.approx(expected, rel=1e-12)


def test_wrong_networks():
    with pytest.raises(DataError, match=r"got 2 that only one has, such as '3\.bias'"):
        LayerwiseDistance().update(network(0), network(0)[:3])
    with pytest.raises(DataError, match=r"'0.weight' to have one shape .* got \(2, 3\) and \(2, 4\)"):
        LayerwiseDistance().update(nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(4, 2)))
    with pytest.raises(DataError, match="Expected parameters to compare"):
        LayerwiseDistance(exclude=["0.", "1.", "3."]).update(network(0), network(0))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_compared_and_diverged_weights():
    with pytest.raises(DataError, match="pair of networks for layerwise_distance, got none"):
        LayerwiseDistance().compute()
    broken = network(0)
    with torch.no_grad():
        broken[3].bias.fill_(math.nan)
    with pytest.raises(DataError, match="Expected finite weights"):
        distance(LayerwiseDistance(), broken, network(0))
