"""Seeds per hour of a study: one run at a time against several workers on the same device.

    python benchmarks/speed/workers.py --images cifar10 --accelerator gpu --workers 1 2 4 8      # CIFAR-10, 20 passes
    python benchmarks/speed/workers.py --width 8 --epochs 2 --workers 1 2                        # digits, on a CPU

One seed is M_o, M_r, SSD and LFSSD of one class with all metrics, as ``supreme run`` does them with that number of
workers, from an empty store; reading of the images, and the starting of workers, count. On a CPU the workers share the
cores. Each number of workers does ``--seeds`` seeds, in turns.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from measure import Row, begin, conditions, finish, in_turns, parser, row

from supreme.experiment.plan import load_plan
from supreme.experiment.scheduler import run_plan


def content(given: argparse.Namespace, workers: int, output: Path) -> dict[str, Any]:
    """The study as a plan."""
    images = {"class_path": "ImageFolder", "init_args": {"path": str(Path(given.images).resolve()), "size": 32}}
    augmentation = {"crop_padding": 4, "flip": True, "rotation": 15}
    training = {"epochs": given.epochs, "lr": 0.1, "batch_size": given.batch_size}
    return {
        "name": "workers",
        "output": str(output),
        "datasets": [images if given.images else "Digits"],
        "models": [{"class_path": "ResNet18", "init_args": {"width": given.width}}],
        "training": training | ({"augmentation": augmentation} if given.images else {}),
        "scenarios": [{"class_path": "FullClass", "targets": [0]}],
        "methods": ["Original", "Retrain", "SSD", "LFSSD"],
        "seeds": list(range(given.seeds)),
        "trainer": {"accelerator": given.accelerator, "precision": given.precision},
        "threads": max(1, (os.cpu_count() or 1) // workers),
    }


def study(given: argparse.Namespace, workers: int) -> Callable[[], None]:
    """A fresh plan, ready to be run."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "workers.yaml")
    path.write_text(yaml.safe_dump(content(given, workers, Path(folder.name, "out"))))
    plan = load_plan(path)

    def run() -> None:
        summary = run_plan(plan, workers=workers)
        folder.cleanup()
        if summary.failed:
            sys.exit(f"{len(summary.failed)} of {summary.runs} runs failed; the first: {summary.failed[0].reason}")

    return run


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=1)
    options.add_argument("--images", default="", help="folder or archive for ImageFolder; the default are the digits")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    options.add_argument("--seeds", type=int, default=4)
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--batch_size", type=int, default=64)
    options.add_argument("--width", type=int, default=64, help="channels of ResNet18's first layers")
    options.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    options.add_argument("--precision", default="32-true")
    given = begin(options)
    sides: dict[str, Callable[[], Callable[[], Any]]] = {str(n): partial(study, given, n) for n in given.workers}
    found = in_turns(sides, given.repeats).wall
    rates = {name: [3600 * given.seeds / seconds for seconds in values] for name, values in found.items()}
    first = rates[str(given.workers[0])]
    rows: list[Row] = []
    for name, values in rates.items():
        more = {"workers": name, "epochs": given.epochs, "width": given.width}
        rows.append(row(f"{name} workers", given.seeds, values, "seeds per hour", **more))
        gain = [value / one for value, one in zip(values, first, strict=True)]
        rows.append(row(f"{name} workers / {given.workers[0]}", given.seeds, gain, "", **more))
    finish("workers", rows, given, conditions(given.precision))


if __name__ == "__main__":
    main()
