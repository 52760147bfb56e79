import enum
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from supreme.callbacks.description import describe, plain


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):
    A = "a"


class Weights(enum.Enum):
    """As torchvision's: the value is more than a number or a text, so the name says which."""

    FIRST = ("https://example.com", {"classes": 3})


@dataclass
class Spec:
    class_path: str
    init_args: dict


class Source:
    def __init__(self, path):
        self.path = path

    def config(self):
        return {"path": self.path}


class Saved(LightningModule):
    def __init__(self, lr, network=None):
        super().__init__()
        self.save_hyperparameters(ignore=["network"])
        self.network = network


class Data(LightningDataModule):
    def __init__(self, dataset, batch_size=4, augmentation=None, lost=1):
        super().__init__()
        self.dataset, self.batch_size, self._augmentation = dataset, batch_size, augmentation


class OneClass(Data):
    def __init__(self, forget, **kwargs):
        super().__init__(**kwargs)
        self.forget = forget


def path_of(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (float("nan"), "nan"),
        (-float("inf"), "-inf"),
        ("word", "word"),
        (Weights.FIRST, "FIRST"),
        (Path("a/b"), "a/b"),
        ({1: (2, [3])}, {"1": [2, [3]]}),
        ({"b", "a"}, ["a", "b"]),
        (range(3), [0, 1, 2]),
        (torch.float16, "torch.float16"),
        (torch.device("cpu"), "cpu"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Word.A, "a"),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (torch.tensor(4), 4),
        (nn.Linear, "torch.nn.modules.linear.Linear"),
        (functools.partial(nn.Linear, bias=False), {"class_path": path_of(nn.Linear), "init_args": {"bias": False}}),
        (nn.ReLU(), {"class_path": path_of(nn.ReLU)}),
        (Source(Path("x")), {"class_path": path_of(Source), "init_args": {"path": "x"}}),
        (Spec("N", {"w": 2}), {"class_path": path_of(Spec), "init_args": {"class_path": "N", "init_args": {"w": 2}}}),
    ],
)
def test_plain(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)
    json.dumps(plain(value), allow_nan=False)


def test_arrays_are_told_apart_by_content():
    a, b = torch.arange(6).reshape(2, 3), torch.arange(1, 7).reshape(2, 3)
    assert plain(a) == plain(a.clone())
    assert plain(a)["sha256"] != plain(b)["sha256"]
    assert plain(a)["sha256"] == plain(a.numpy())["sha256"]
    assert (plain(a)["shape"], plain(a)["dtype"]) == ([2, 3], "torch.int64")
    for odd in (torch.ones(2, dtype=torch.bfloat16), torch.ones(4).bool(), torch.ones(4, 2).t(), torch.ones(0)):
        json.dumps(plain(odd))


def test_a_network_that_knows_how_it_was_built():
    network = nn.Linear(1, 1)
    network.spec = Spec("ResNet18", {"width": 8})
    assert plain(network)["init_args"] == {"class_path": "ResNet18", "init_args": {"width": 8}}


def test_saved_hyper_parameters():
    found = describe(Saved(0.25, nn.ReLU()))
    assert found["class_path"] == path_of(Saved)
    assert found["init_args"] == {"network": {"class_path": path_of(nn.ReLU)}, "lr": 0.25}


def test_names_that_lightning_adds_are_left_out():
    module = Saved(0.25)
    module.hparams["_class_path"] = "x.Y"
    assert "_class_path" not in describe(module)["init_args"]


def test_arguments_from_attributes_and_base_classes():
    found = describe(OneClass([3], dataset=Source("faces"), augmentation=0.5))
    assert found["init_args"] == {
        "forget": [3],
        "dataset": {"class_path": path_of(Source), "init_args": {"path": "faces"}},
        "batch_size": 4,
        "augmentation": 0.5,
    }


def test_objects_without_a_constructor():
    class Bare:
        pass

    assert describe(Bare())["init_args"] == {}
    assert describe(3)["class_path"] == "builtins.int"
