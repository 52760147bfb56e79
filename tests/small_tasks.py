"""Golden cases, a tiny network and sets, and fits without noise; loaded by the fixtures of conftest.py when used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from supreme.api import Unlearned, unlearn
from supreme.distributed import hushed, quiet_trainer
from supreme.scenarios.given_sets import GivenSets

GOLDEN = Path(__file__).parent / "golden"


def sequential(layers: list[Any]) -> nn.Sequential:
    """A network from layer names and their arguments."""
    made = []
    for name, arguments, named in layers:
        given = [tuple(value) if isinstance(value, list) else value for value in arguments]
        made.append(getattr(nn, name)(*given, **named))
    return nn.Sequential(*made)


class Case:
    """A golden case: inputs in one precision, and what has to come out."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        self.folder, self.dtype = GOLDEN / name, dtype
        self.meta = json.loads((self.folder / "meta.json").read_text())
        self.double = dtype == torch.float64
        data = self.folder / "data.npz"
        self.arrays = dict(np.load(data)) if data.exists() else {}
        if "images" in self.arrays:
            self.images = torch.tensor(self.arrays["images"]).to(dtype)
            self.labels = torch.tensor(self.arrays["labels"])
        if "forget_mask" in self.arrays:
            mask = torch.tensor(self.arrays["forget_mask"])
            self.forget = TensorDataset(self.images[mask], self.labels[mask])
            self.retain = TensorDataset(self.images[~mask], self.labels[~mask])

    def network(self, weights: str = "init") -> nn.Sequential:
        """The network of the case with stored weights."""
        network = sequential(self.meta["model"])
        network.load_state_dict(load_file(self.folder / f"{weights}.safetensors"))
        return network.to(self.dtype)

    def json(self) -> Any:
        """Plain numbers that have to come out."""
        return json.loads((self.folder / "expected.json").read_text())

    def unlearn(self, method: Any, **arguments: Any) -> Unlearned:
        """Run a method on the sets of the case, in their own order."""
        settings = {"batch_size": self.meta.get("batch_size", 64), "forget_class": self.meta.get("forget_class")}
        return unlearn(
            self.network(),
            method,
            forget=self.forget,
            retain=self.retain,
            num_classes=self.meta["num_classes"],
            shuffle=False,
            accelerator="cpu",
            precision="64-true" if self.double else "32-true",
            **settings,
            **arguments,
        )

    @property
    def tolerance(self) -> float:
        """Allowed absolute difference."""
        return self.meta["rounding"]["suggested_tolerance"]["float64_atol" if self.double else "float32_atol"]

    def check(self, state: dict[str, Tensor], reference: str = "", prefix: str = "", relative: bool = False) -> None:
        """Compare with the stored result, every tensor of it; ``relative`` to its largest value, if that is above 1."""
        name = reference or ("expected_float64" if self.double else "expected")
        expected = load_file(self.folder / f"{name}.safetensors")
        expected = {key.removeprefix(prefix): value for key, value in expected.items() if key.startswith(prefix)}
        assert expected
        assert state.keys() >= expected.keys()
        for key, value in expected.items():
            assert state[key].shape == value.shape
            gap = (state[key].double() - value.double()).abs().max().item()
            gap /= max(1.0, value.abs().max().item()) if relative else 1.0
            assert gap <= self.tolerance, f"{key} differs by {gap:.3g}, allowed {self.tolerance:.3g}"


def tiny_network(norm: str = "batch", seed: int = 0, classes: int = 4) -> nn.Module:
    """A network with odd sizes: images (n, 3, 8, 8) -> logits."""
    if norm in ("blocks", "tied"):
        return blocks(norm == "tied", seed, classes)
    make = {"batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(1, channels)}[norm]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), make(8), nn.ReLU()),
            *(nn.Conv2d(8, 7, 3, padding=1, stride=2), make(7), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, classes)),
        )


class Blocks(nn.Module):
    """Layers in containers that have no forward pass, and two that share a weight: images (n, 3, 8, 8) -> logits."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.convolutions = nn.ModuleList([nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)])
        self.named = nn.ModuleDict({"first": nn.Linear(192, 6), "rest": nn.ModuleList([nn.Linear(6, 6)])})
        self.tied, self.head = nn.Linear(6, 6), nn.Linear(6, classes)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.convolutions:
            images = layer(images).relu()
        values = self.named["first"](images.flatten(1) * self.scale).relu()
        return self.head(self.tied(self.named["rest"][0](values).relu()))


def blocks(tied: bool, seed: int, classes: int) -> Blocks:
    """Such a network with the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Blocks(classes)
    if tied:
        network.tied.weight = network.named["rest"][0].weight
    return network


def tiny_images(count: int = 45, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Noise with a pattern per class, and classes 0 to 3 in turn."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    patterns = torch.randn(4, 3, 8, 8, generator=draw)
    return patterns[labels] + torch.randn(count, 3, 8, 8, generator=draw), labels


def tiny_sets(forget_class: int = 2, dtype: torch.dtype = torch.float32) -> tuple[TensorDataset, TensorDataset]:
    """D_f (one class) and D_r."""
    images, labels = tiny_images()
    images, mask = images.to(dtype), labels == forget_class
    return TensorDataset(images[mask], labels[mask]), TensorDataset(images[~mask], labels[~mask])


def tiny_scenario(forget_classes: Any = (2,), dtype: torch.dtype = torch.float32, **settings: Any) -> GivenSets:
    """The same as a scenario, in batches of 8."""
    forget, retain = tiny_sets(dtype=dtype)
    return GivenSets(forget, retain, 4, forget_classes=forget_classes, **{"batch_size": 8, **settings})


def fit(module: LightningModule, data: LightningDataModule, ckpt_path: Any = None, **trainer: Any) -> Any:
    """Fit a module with a quiet Trainer; gives the module back."""
    with hushed():
        quiet_trainer("cpu", **{"max_epochs": 1, **trainer}).fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have the same weights and buffers, bit for bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
