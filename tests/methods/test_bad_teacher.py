"""BadTeacher against stored results; its teachers and its draw."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from supreme.batch import Samples
from supreme.distributed import Frozen
from supreme.errors import ConfigError
from supreme.methods import BadTeacher, bad_teacher
from supreme.models.build import reinitialise
from supreme.seeding import derive


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights(case, dtype):
    golden = case("bad_teacher", dtype)
    used = golden.arrays["retain_used"][~golden.arrays["forget_mask"]]
    teacher = golden.network("incompetent_teacher")
    before = copy.deepcopy(teacher.state_dict())
    result = golden.unlearn(
        "BadTeacher",
        incompetent_teacher=teacher,
        retain_indices=torch.tensor(np.flatnonzero(used)),
        reduction="published",
    )
    golden.check(result.model.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_a_float32_network_in_double_precision(case, same_weights):
    """The teachers follow the network's type."""
    golden = case("bad_teacher", torch.float32)
    golden.double = True
    teacher = golden.network("incompetent_teacher")
    result = golden.unlearn("BadTeacher", incompetent_teacher=teacher, retain_fraction=0.5)
    assert not same_weights(result.model, golden.network())


def samples(count=40, forget=10):
    index = torch.arange(count)
    return Samples(index, index % 4, None, index < forget)


def test_drawn_part_of_the_retain_set(tiny):
    draws = [BadTeacher(tiny.network(), retain_fraction=0.31, seed=s).phases[0].select(samples()) for s in (1, 1, 2)]
    for draw in draws:
        assert (draw < 10).sum() == 10  # all of D_f
        assert (draw >= 10).sum() == 9  # floor(0.31 * 30)
        assert torch.equal(draw, draw.sort().values)
        assert len(draw.unique()) == len(draw)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(("fraction", "retain", "expected"), [(0.0, 30, 0), (1.0, 30, 30), (0.57, 100, 57)])
def test_size_of_the_draw(tiny, fraction, retain, expected):
    method = BadTeacher(tiny.network(), retain_fraction=fraction)
    assert len(method.phases[0].select(samples(retain + 5, 5))) == 5 + expected


def test_draw_is_uniform(tiny):
    counts = torch.zeros(40)
    method = BadTeacher(tiny.network(), retain_fraction=0.3)
    for method.seed in range(400):
        counts[method._forget_and_drawn(samples())] += 1
    assert (counts[:10] == 400).all()
    assert ((counts[10:] / 400 - 0.3).abs() < 5 * (0.3 * 0.7 / 400) ** 0.5).all()


@pytest.mark.parametrize("given", [[3], [50], [12, 12]])
def test_given_samples_have_to_be_of_the_retain_set(tiny, given):
    with pytest.raises(ConfigError, match="positions of D_r"):
        BadTeacher(tiny.network(), retain_indices=torch.tensor(given))._forget_and_drawn(samples())


def test_teachers_stay_and_are_shared_by_all_methods_of_a_request(tiny, fit, same_weights):
    network, scenario = tiny.network(), tiny.scenario()
    method = fit(BadTeacher(network, lr=0.1), scenario)
    seed = derive(scenario.request.fingerprint, "incompetent teacher")
    assert same_weights(method.competent.model, network)
    assert same_weights(method.incompetent.model, reinitialise(network, seed))
    assert not same_weights(method.model, network)
    assert not any(name.startswith(("competent", "incompetent")) for name in method.state_dict())
    assert not method.competent.model.training
    other = fit(BadTeacher(network, teacher_seed=7), scenario)
    assert same_weights(other.incompetent.model, reinitialise(network, 7))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_each_row_passes_through_its_own_teacher(tiny, fit, batch_size, monkeypatch):
    """Batches without rows of one kind included; the weights are those of both teachers on all rows."""

    def run():
        network = tiny.network("group").double()
        method = BadTeacher(network, epochs=2, lr=0.01, retain_fraction=0.5, batch_size=batch_size)
        return fit(method, tiny.scenario(dtype=torch.float64), precision="64-true")

    seen, call = {}, Frozen.__call__

    def count(teacher, images):
        seen[teacher] = seen.get(teacher, 0) + len(images)
        return call(teacher, images)

    monkeypatch.setattr(Frozen, "__call__", count)
    method = run()
    assert [seen[teacher] for teacher in (method.competent, method.incompetent)] == [2 * 17, 2 * 11]
    monkeypatch.setattr(bad_teacher, "is_split", lambda parameter: True)
    whole = run()
    assert [seen[teacher] for teacher in (whole.competent, whole.incompetent)] == [2 * 28, 2 * 28]
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(method.model.state_dict()[name], value, rtol=0, atol=1e-11)


def test_a_network_that_cannot_be_drawn_anew_is_named(tiny, fit):
    network = tiny.network()
    network.register_parameter("spare", nn.Parameter(torch.ones(1)))
    with pytest.raises(ConfigError, match="spare"):
        fit(BadTeacher(network), tiny.scenario())


def test_seeds(tiny, fit, same_weights):
    runs = [fit(BadTeacher(tiny.network(), lr=0.01, seed=seed), tiny.scenario()).model for seed in (1, 1, 2)]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"temperature": 0.0}, {"retain_fraction": 1.1}, {"reduction": "publishd"}, {"lr": -1}]
)
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BadTeacher(tiny.network(), **wrong)
