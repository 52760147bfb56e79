"""Images per second on a GPU, as a share of what its matrix units give in the same call.

    python benchmarks/speed/throughput.py                                  # ResNet18 at 32, ViT-B/16 at 224
    python benchmarks/speed/throughput.py --networks ResNet18 --batch_size 512

Training (forward, backward, optimiser) is compiled by the library's callback; evaluation is a whole ``Evaluation`` with
all metrics of M_u beside M_r, M_o and an incompetent teacher, and counts the images that all of them forward; nothing
compiles it. Both run in bf16-mixed, channels-last where the network has it, on random pixels that lie on the device,
in batches that fill it. The time of a fit is that of the procedure alone; the first fit and evaluation do not count.
The ceiling is the best of several bfloat16 matrix products of 8192 x 8192, measured before and after. Operations of a
network are counted by torch (two per multiplication with addition); a training step takes three forward passes' worth.
``SSD`` counts its images per second alike. The bars are 30 % (ResNet18, training) and 40 % (ViT-B/16, training).
Without a GPU the script says so and measures nothing.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from measure import Row, begin, conditions, finish, parser, pictures, row
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from supreme.callbacks import Compile, ElapsedTime
from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets.base import ImageDataset
from supreme.distributed import hushed, quiet_trainer
from supreme.evaluation import Evaluation
from supreme.methods import SSD
from supreme.models import ResNet18
from supreme.models.build import reinitialise
from supreme.scenarios import FullClass, WholeDataset

PRECISION, SIDE = "bf16-mixed", 8192


def vit(num_classes: int) -> nn.Module:
    """ViT-B/16 for 224 x 224 pixels, with random weights."""
    from torchvision.models import vit_b_16

    network: nn.Module = vit_b_16(weights=None, num_classes=num_classes)
    return network


# Name -> network, side of its images, rows of a batch, images of D, bar of training.
NETWORKS: dict[str, tuple[Callable[[int], nn.Module], int, int, int, str]] = {
    "ResNet18": (ResNet18, 32, 1024, 51200, ">= 30"),
    "ViT-B/16": (vit, 224, 128, 2560, ">= 40"),
}


def ceiling(repeats: int = 5) -> float:
    """Operations per second of a bfloat16 matrix product: the best of several."""
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(repeats + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ b
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / 10)
    return 2 * SIDE**3 / min(times)


def operations(network: nn.Module, side: int) -> int:
    """Of one forward pass of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, side, side))
    return counter.get_total_flops()


def training(network: nn.Module, dataset: ImageDataset, batch_size: int, compiled: bool) -> Callable[[], float]:
    """A function that trains for one epoch and gives its seconds."""

    def epoch() -> float:
        callbacks = [Compile(compiled), clock := ElapsedTime()]
        module = ImageClassifier(network, Recipe(lr=0.01, schedule="constant", warmup_epochs=0.0))
        trainer = quiet_trainer("gpu", precision=PRECISION, max_epochs=1, limit_val_batches=0, callbacks=callbacks)
        trainer.fit(module, datamodule=WholeDataset(dataset, batch_size, resident=True))
        return float(clock.time_s or 0.0)

    return epoch


def evaluation(network: nn.Module, dataset: ImageDataset, batch_size: int) -> tuple[Callable[[], float], int]:
    """A function that evaluates with all metrics and gives the seconds, and how many images its models forward."""
    original, incompetent = copy.deepcopy(network), reinitialise(network, 1)
    retrained = reinitialise(network, 2)
    images = 0

    def test() -> float:
        nonlocal images
        trainer = quiet_trainer("gpu", precision=PRECISION)
        data = FullClass(dataset, 0, evaluation_batch_size=batch_size, resident=True)
        torch.cuda.synchronize()
        started = time.perf_counter()
        module = Evaluation(network, retrained, original, incompetent)
        trainer.test(module, datamodule=data, verbose=False)
        torch.cuda.synchronize()
        images = sum(len(rows.index) for rows in module.outputs.values())
        return time.perf_counter() - started

    test()
    return test, images


def dampening(network: nn.Module, dataset: ImageDataset, batch_size: int) -> Callable[[], float]:
    """A function that runs SSD, which is float32 by definition, and gives its seconds."""

    def unlearn() -> float:
        clock = ElapsedTime()
        trainer = quiet_trainer("gpu", precision=PRECISION, max_epochs=1, callbacks=[clock])
        trainer.fit(SSD(network), datamodule=FullClass(dataset, 0, batch_size=batch_size))
        return float(clock.time_s or 0.0)

    return unlearn


def measure(name: str, given: argparse.Namespace, peak: float) -> list[Row]:
    """All rows of a network."""
    make, side, batch_size, count, bar = NETWORKS[name]
    batch_size, count = given.batch_size or batch_size, given.count or count
    network, dataset = make(10), pictures(count, size=side)
    one = operations(network, side)
    network = network.to("cuda")
    small = min(batch_size, 64)  # SSD is defined on mean gradients of small batches
    jobs: dict[str, tuple[Callable[[], float], int, float, str, int]] = {
        "training": (training(network, dataset, batch_size, given.compile), count, 3.0, bar, batch_size),
        "evaluation": (*evaluation(network, dataset, batch_size), 1.0, "", batch_size),
        "SSD": (dampening(network, dataset, small), count + count // 10, 3.0, "", small),
    }
    rows = []
    for job, (work, images, passes, wanted, size) in jobs.items():
        work()
        times = [work() for _ in range(given.repeats)]
        compiled = given.compile and job == "training"
        more: dict[str, Any] = {"batch_size": size, "compiled": compiled, "operations": one}
        share = [100 * images / seconds * one * passes / peak for seconds in times]
        rows.append(row(f"{name} {job}", count, [images / seconds for seconds in times], "images/s", **more))
        rows.append(row(f"{name} {job}, share of ceiling", count, share, "%", wanted, **more))
    return rows


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options.add_argument("--batch_size", type=int, default=0, help="0 takes the network's own")
    options.add_argument("--count", type=int, default=0, help="images of D and of D'; 0 takes the network's own")
    options.add_argument("--no_compile", dest="compile", action="store_false")
    given = begin(options)
    if not torch.cuda.is_available():
        sys.exit("This script measures a GPU, and torch finds none here; run it on a machine that has one.")
    torch.set_float32_matmul_precision("high")
    with hushed():
        peaks = [ceiling()]
        rows = [line for name in given.networks for line in measure(name, given, peaks[0])]
        peaks.append(ceiling())
    rows.insert(0, row("bf16 matrix product", SIDE, [value / 1e12 for value in peaks], "TFLOP/s"))
    finish("throughput", rows, given, conditions(PRECISION))


if __name__ == "__main__":
    main()
