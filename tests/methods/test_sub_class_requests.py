"""Requests for a fine class: what UNSIR and RandomLabels take from the classes that stay."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from supreme.datasets.base import Content, ImageDataset, Images
from supreme.methods import UNSIR, RandomLabels
from supreme.scenarios import SubClass

FINE, CLASSES = 12, 4  # three fine classes in each class
FORGET = 5  # in class 1; class 5 does not exist, and fine class 1 lies in class 0


class Hierarchy(ImageDataset):
    """Ten images of each fine class, mixed."""

    def read(self, allocate):
        fine = torch.arange(FINE * 10) * 7 % FINE
        images = torch.randint(0, 256, (len(fine), 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
        part = Images(images, fine // 3, fine)
        return Content(part, part, tuple(f"c{k}" for k in range(CLASSES)), tuple(f"f{k}" for k in range(FINE)))


class Served(Callback):
    """Positions in D and labels of the rows that each phase served."""

    def __init__(self):
        self.index, self.target = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for kept, values in ((self.index, batch.index), (self.target, batch.target)):
            kept.setdefault(batch.step.phase, []).extend(values.tolist())


@pytest.fixture
def request_of(fit, tiny):
    """Fit a method on a request for a fine class: ``request_of(method)`` gives the scenario and what was served."""

    def run(method):
        served, scenario = Served(), SubClass(Hierarchy(), FORGET, batch_size=30)
        fit(method, scenario, callbacks=[served])
        return scenario, served

    return run


@pytest.mark.parametrize("count", [4, 500])
def test_unsir_repairs_on_every_other_fine_class(tiny, request_of, count):
    method = UNSIR(tiny.network(), noise_steps=2, noise_repeats=1, noise_batch_size=6, samples_per_class=count)
    scenario, served = request_of(method)
    fine = scenario.dataset.train.subtargets
    expected = {index for k in range(FINE) if k != FORGET for index in (fine == k).nonzero().flatten()[:count].tolist()}
    for phase in (1, 2):
        rows = [index for index in served.index[phase] if index >= 0]
        assert len(rows) == len(set(rows)) == 11 * min(count, 10)
        assert set(rows) == expected
        assert (fine[rows] != FORGET).all()
    assert len([index for index in served.index[1] if index < 0]) == 6


def test_unsir_fears_the_class_that_contains_the_fine_class(tiny, request_of):
    method = UNSIR(tiny.network(), noise_steps=1, noise_repeats=1, noise_batch_size=3, samples_per_class=1)
    request_of(method)
    assert method._noise_classes(torch.device("cpu")).tolist() == [FORGET // 3] * 3
    assert UNSIR(nn.Linear(2, 2)).phases[0].passes == 25
    method.noise_steps = None
    assert method.phases[0].passes == 250


def test_random_labels_leave_the_class_of_the_fine_class_out(tiny, request_of):
    method = RandomLabels(tiny.network(), epochs=1)
    scenario, served = request_of(method)
    forget = scenario.indices()["forget_train"]
    assert set(served.index[0]) == set(range(FINE * 10))
    many = torch.arange(9_000)
    labels = method.wrong_labels(many, torch.full_like(many, FORGET // 3))
    share = torch.bincount(labels, minlength=CLASSES) / len(labels)
    assert share[FORGET // 3] == 0
    assert ((share[[0, 2, 3]] - 1 / 3).abs() < 5 * (2 / 9 / len(labels)) ** 0.5).all()
    drawn = method.wrong_labels(forget, scenario.dataset.train.targets[forget])
    assert not (drawn == FORGET // 3).any()
