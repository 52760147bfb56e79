"""Importances: SSDDet against per-sample backward passes in a loop, and what a further target of SSD and LFSSD costs.

    python benchmarks/speed/importances.py                                    # 512 + 51 images
    python benchmarks/speed/importances.py --networks ResNet18 --count 2000 --images cifar10-jpeg.zip
    python benchmarks/speed/importances.py --accelerator gpu

``loop`` passes every image of D and of D_f through the network as a batch of one, calls backward, and adds up the
squares of the gradients: what one writes down without vectorised gradients. ``SSDDet`` is a whole fit of the method:
Trainer, reading, importances and the edit of the weights. The script checks that both find the same importances. The
bar is 10. ``batched`` is one forward and backward pass over the same images in batches of 64, without any gradient of a
single sample: nothing that computes those can be much faster, so loop / batched is about the most that can be reached.

``first`` is a fit of SSD or LFSSD that computes the importances of D and D_f, ``further`` one that takes over those of
D, as all targets but the first do in ``supreme run``. The bar of their ratio is 7, with a tenth of the images to be
forgotten.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from measure import Row, Spent, begin, conditions, finish, in_turns, parser, pictures, ratios, row
from torch import Tensor, nn
from torch.nn import functional
from training_epoch import SEED, tiny

from supreme.datasets.base import ImageDataset
from supreme.distributed import hushed, quiet_trainer
from supreme.methods import LFSSD, SSD, SSDDet
from supreme.models import ResNet18
from supreme.scenarios import FullClass
from supreme.seeding import isolated
from supreme.transforms.preprocess import Preprocess

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tiny": lambda: tiny(10),
    "ResNet18-8": lambda: ResNet18(10, width=8),
    "ResNet18": lambda: ResNet18(10),
}
SIZES = {"tiny": 8}  # of the images; the others take 32


def loop(network: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mean over images of the squared gradient, image by image."""
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image, target in zip(images, targets, strict=True):
        network.zero_grad()
        functional.cross_entropy(network(image[None]), target[None]).backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad**2
    return {name: value / len(images) for name, value in total.items()}


def fit(method: SSD, dataset: ImageDataset, given: argparse.Namespace) -> SSD:
    """The whole work of a method."""
    trainer = quiet_trainer(given.accelerator, max_epochs=1)
    trainer.fit(method, datamodule=FullClass(dataset, 0, batch_size=64))
    return method


def det(name: str, network: nn.Module, dataset: ImageDataset, given: argparse.Namespace, device: str) -> list[Row]:
    """SSDDet and the loop in turns."""
    images = Preprocess(dataset.mean, dataset.std)(dataset.train.images).to(device)
    targets = dataset.train.targets.to(device)
    forget, last = targets == 0, dict[str, Any]()

    def bare() -> Callable[[], None]:
        copied = _copy(network).to(device)

        def work() -> None:
            last["loop"] = loop(copied, images, targets), loop(copied, images[forget], targets[forget])

        return work

    def batched() -> Callable[[], None]:
        copied = _copy(network).to(device)

        def work() -> None:
            for rows in (slice(None), forget):
                for image, target in zip(images[rows].split(64), targets[rows].split(64), strict=True):
                    copied.zero_grad()
                    functional.cross_entropy(copied(image), target).backward()

        return work

    sides = {
        "loop": bare,
        "batched": batched,
        "SSDDet": lambda: lambda: last.update({"SSDDet": fit(SSDDet(network, 2.0), dataset, given).importances}),
    }
    found = in_turns(sides, given.repeats, device)
    for ours, theirs in zip((last["SSDDet"]["full"], last["SSDDet"]["forget"]), last["loop"], strict=True):
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-3, atol=1e-3 * float(value.max()))
    ceiling = row(f"{name}: loop / batched", given.count, ratios(found.wall, "loop", "batched"), "", network=name)
    return [*_rows(found, f"{name}: loop / SSDDet", "loop", "SSDDet", name, given, ">= 10"), ceiling]


def targets_of(
    method: type[SSD], name: str, network: nn.Module, dataset: ImageDataset, given: argparse.Namespace, device: str
) -> list[Row]:
    """The first and a further target in turns."""
    full = fit(method(network), dataset, given).whole_importances()
    sides: dict[str, Callable[[], Callable[[], Any]]] = {
        "first": lambda: lambda: fit(method(network), dataset, given),
        "further": lambda: lambda: fit(method(network, full_importance=full), dataset, given),
    }
    found = in_turns(sides, given.repeats, device)
    return _rows(found, f"{name}: {method.__name__} first / further", "first", "further", name, given, ">= 7")


def _rows(found: Spent, what: str, slow: str, fast: str, name: str, given: argparse.Namespace, bar: str) -> list[Row]:
    label, more = what.partition(" / ")[0].rpartition(" ")[0], {"network": name, "accelerator": given.accelerator}
    return [
        *(row(f"{label} {side}", given.count, values, "s", **more) for side, values in found.wall.items()),
        row(what, given.count, ratios(found.wall, slow, fast), "", bar, **more),
        row(f"{what}, CPU time", given.count, ratios(found.cpu, slow, fast), "", **more),
    ]


def _copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).eval()


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=5, images=True)
    options.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options.add_argument("--part", choices=["all", "det", "targets"], default="all")
    options.add_argument("--count", type=int, default=512, help="images of D; a class of ten is forgotten")
    options.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    given = begin(options)
    device, rows = ("cuda" if given.accelerator == "gpu" else "cpu"), list[Row]()
    with hushed():
        for name in given.networks:
            dataset = pictures(given.count, given.images, SIZES.get(name, 32))
            with isolated(SEED):
                network = NETWORKS[name]().eval()
            if given.part in ("all", "det"):
                rows += det(name, network, dataset, given, device)
            for method in (SSD, LFSSD) if given.part in ("all", "targets") else ():
                rows += targets_of(method, name, network, dataset, given, device)
    finish("importances", rows, given, conditions())


if __name__ == "__main__":
    main()
