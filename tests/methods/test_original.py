"""Original does nothing, and says so."""

import torch
from torch import nn

from supreme.api import unlearn
from supreme.methods import Original


def test_nothing_happens(tiny, same_weights):
    forget, retain = tiny.sets()
    network = tiny.network()
    result = unlearn(network, "Original", forget=forget, retain=retain, accelerator="cpu")
    assert same_weights(result.model, network)
    assert result.time_s is None


def test_it_is_finished_at_once(tiny, fit):
    assert fit(Original(tiny.network()), tiny.scenario()).finished


def test_no_phases():
    assert Original(nn.Linear(2, 2)).phases == []
    assert torch.equal(*[Original(model).model.weight for model in [nn.Linear(2, 2)] * 2])
