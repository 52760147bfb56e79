"""How cost grows with size: epochs and evaluations over images, importances over weights.

    python benchmarks/speed/scaling.py                                  # up to 32,768 images and 64 million weights
    python benchmarks/speed/scaling.py --largest 4096 --most_weights 8

A network of ResNet18's form, 8 channels wide, is trained for one epoch and evaluated with all metrics on 1k, 2k, 4k
and more images of 32 x 32. The importances of SSD are computed over 128 images of 16 x 16 for networks of 1, 2, 4 and
more million weights, twice: a transformer that gets deeper, whose layers keep their form, so that a weight costs the
same on any processor, and ResNet18 that gets wider, whose convolutions may not: the same forward and backward passes
without anything else stand beside it. On the upper half of the sizes the slope of log(time) over log(size) has to be
between 0.9 and 1.1: then a larger study costs in proportion, and nothing that grows faster hides in the small sizes.
The plot is written as SVG and PNG beside the CSV file.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import Row, begin, conditions, finish, in_turns, parser, pictures, row
from torch import nn
from torch.nn import functional
from training_epoch import SEED, ours

from supreme.datasets.base import ImageDataset
from supreme.distributed import hushed, quiet_trainer
from supreme.evaluation import Evaluation
from supreme.methods import SSD
from supreme.models import ResNet18, ViT
from supreme.scenarios import FullClass, WholeDataset
from supreme.seeding import isolated

ALONE = "gradients alone"
Times = dict[int, list[float]]  # size -> seconds, one per repeat
Sides = dict[str, Callable[[], Callable[[], Any]]]  # "epoch 1024" -> what makes it ready


def network(width: int) -> ResNet18:
    """With the same weights each time."""
    with isolated(SEED):
        return ResNet18(10, width)


def transformer(layers: int) -> ViT:
    """Blocks of 0.79 million weights; heads and tokens as in the small networks of its kind."""
    with isolated(SEED):
        return ViT(10, pretrained=False, image_size=16, patch_size=4, hidden_size=256, heads=4, layers=layers)


def train(data: WholeDataset) -> None:
    """One epoch."""
    ours(network(8), data, "cpu")


def evaluate(models: Sequence[ResNet18], dataset: ImageDataset) -> None:
    """All metrics of a model beside another and an incompetent teacher."""
    evaluation = Evaluation(models[0], models[1], incompetent=models[2], seed=SEED)
    quiet_trainer("cpu").test(evaluation, datamodule=FullClass(dataset, 0), verbose=False)


def importances(model: nn.Module, dataset: ImageDataset) -> None:
    """Those of D, by SSD."""
    method = SSD(model)
    method.measure_full_alone()
    quiet_trainer("cpu", max_epochs=1).fit(method, datamodule=WholeDataset(dataset, 64))


def gradients(model: nn.Module, dataset: ImageDataset) -> None:
    """The same forward and backward passes, with nothing made of the gradients."""
    images, targets, _ = dataset.train
    for rows in torch.arange(len(targets)).split(64):
        model.eval().zero_grad()
        pixels = (images[rows] / 255).to(memory_format=torch.channels_last)
        functional.cross_entropy(model(pixels), targets[rows]).backward()
    model.zero_grad()


def later(work: Callable[..., None], *given: Any) -> Callable[[], Callable[[], None]]:
    """Work with nothing to be made ready."""
    return lambda: lambda: work(*given)


def over_images(sizes: Sequence[int]) -> Sides:
    """Epoch and evaluation."""
    sides, models = Sides(), [network(8) for _ in range(3)]
    for size in sizes:
        dataset = pictures(size)
        dataset.prepare()
        sides[f"epoch {size}"] = later(train, WholeDataset(dataset, 64))
        sides[f"evaluation {size}"] = later(evaluate, models, dataset)
    return sides


def over_weights(millions: Sequence[int]) -> Sides:
    """Importances."""
    sides, dataset = Sides(), pictures(128, size=16)
    for count in millions:
        wide = network(8 * round(8 * math.sqrt(count / 11.17)))  # other widths are not as fast for each weight
        for name, work, model in (
            ("importances, deeper ViT", importances, transformer(round(count / 0.79))),
            ("importances, wider ResNet18", importances, wide),
            (f"{ALONE}, wider ResNet18", gradients, wide),
        ):
            size = sum(p.numel() for p in model.parameters())
            sides[f"{name} {size}"] = later(work, model, dataset)
    return sides


def measure(sides: Sides, repeats: int) -> dict[str, Times]:
    """All sizes in turns, so that a machine that slows down slows them all."""
    found: dict[str, Times] = {}
    for side, values in in_turns(sides, repeats).wall.items():
        name, _, size = side.rpartition(" ")
        found.setdefault(name, {})[int(size)] = values
    return found


def slope(times: Times) -> float:
    """Least-squares slope of log(median time) over log(size), on the upper half of the sizes, two at least."""
    upper = sorted(times)[min(len(times) // 2, len(times) - 2) :]
    x = [math.log(size) for size in upper]
    y = [math.log(statistics.median(times[size])) for size in upper]
    return statistics.linear_regression(x, y).slope


def plot(found: dict[str, Times], path: Path) -> None:
    """Time over size, one panel each, with a line of slope 1 through the largest size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, len(found), figsize=(4 * len(found), 3.4), constrained_layout=True, squeeze=False)
    for panel, (name, times) in zip(axes[0], found.items(), strict=True):
        sizes = sorted(times)
        middle = [statistics.median(times[size]) for size in sizes]
        for size in sizes:
            panel.plot([size] * len(times[size]), times[size], ".", color="#9aa7b5", markersize=4)
        panel.plot(sizes, middle, "o-", color="#1f5fa8", markersize=4, label=f"slope {slope(times):.2f} (upper half)")
        line = [middle[-1] * size / sizes[-1] for size in sizes]
        panel.plot(sizes, line, "--", color="#555555", linewidth=1, label="slope 1")
        panel.set(xscale="log", yscale="log", title=name, ylabel="seconds")
        panel.set_xlabel("images" if name in ("epoch", "evaluation") else "weights")
        panel.set_xticks(sizes)
        panel.xaxis.set_major_formatter(ticker.EngFormatter(places=0, sep=""))
        panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_formatter(ticker.NullFormatter())
        panel.legend(frameon=False)
    for suffix in (".svg", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
    pyplot.close(figure)


def doubling(first: int, last: int) -> list[int]:
    """first, 2 first, 4 first, ... up to last."""
    return [first * 2**k for k in range(int(math.log2(max(1, last // first))) + 1)]


def main() -> None:
    """Measure, print, write and plot."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--part", choices=["all", "images", "weights"], default="all")
    options.add_argument("--smallest", type=int, default=1024, help="images")
    options.add_argument("--largest", type=int, default=32768, help="images")
    options.add_argument("--most_weights", type=int, default=64, help="in millions")
    given: argparse.Namespace = begin(options)
    if given.largest < 2 * given.smallest or given.most_weights < 2:
        options.error("expected two sizes at least: --largest twice --smallest or more, --most_weights 2 or more")
    with hushed():
        found: dict[str, Times] = {}
        if given.part in ("all", "images"):
            found |= measure(over_images(doubling(given.smallest, given.largest)), given.repeats)
        if given.part in ("all", "weights"):
            found |= measure(over_weights(doubling(1, given.most_weights)), given.repeats)
    rows: list[Row] = [row(name, size, values, "s") for name, times in found.items() for size, values in times.items()]
    for name, times in found.items():
        value = slope(times)
        rows.append(row(f"{name} slope", max(times), [value], ""))
        if not name.startswith(ALONE):
            rows.append(row(f"{name} distance of the slope from 1", max(times), [abs(value - 1)], "", "<= 0.1"))
    plot(found, finish("scaling", rows, given, conditions()))


if __name__ == "__main__":
    main()
