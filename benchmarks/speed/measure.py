"""What the scripts here share: turns, medians and their intervals, conditions, images, and the table as a CSV file."""

import argparse
import csv
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from supreme.datasets.base import ImageDataset

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LEVEL = 0.95

Row = dict[str, Any]


def parser(about: str | None, repeats: int, images: bool = False) -> argparse.ArgumentParser:
    """The options that all scripts have.

    Args:
        about: documentation of the script.
        repeats: how often each side is measured by default.
        images: whether the script reads images.
    """
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=repeats)
    options.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves torch's own choice")
    options.add_argument("--output", type=Path, help="CSV file; the default is one in benchmarks/results")
    if images:
        options.add_argument("--images", help="folder or archive for ImageFolder; the default is random pixels")
    return options


def begin(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the options and set the number of threads."""
    given = options.parse_args()
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    return given


class Spent(NamedTuple):
    """Seconds by name of a side, one value per round."""

    wall: dict[str, list[float]]  # until the device had done its work
    cpu: dict[str, list[float]]  # of this process; other work on the machine changes it less


def in_turns(sides: Mapping[str, Callable[[], Callable[[], Any]]], repeats: int, device: str = "cpu") -> Spent:
    """Time every side once as a warm-up, then in turns, so often; every other round goes backwards.

    Args:
        sides: name -> function that makes ready, outside the clock, and gives the function to be timed.
        repeats: rounds that count.
        device: ``"cuda"`` waits for the device before each look at the clock.
    """
    spent = Spent({name: [] for name in sides}, {name: [] for name in sides})
    for number in range(-1, repeats):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            work = sides[name]()
            _wait(device)
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            _wait(device)
            took = time.perf_counter() - wall, time.process_time() - cpu
            if number >= 0:
                spent.wall[name].append(took[0])
                spent.cpu[name].append(took[1])
    return spent


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def ratios(found: Mapping[str, Sequence[float]], side: str, of: str) -> list[float]:
    """Value of a side divided by that of another, round by round."""
    return [ours / theirs for ours, theirs in zip(found[side], found[of], strict=True)]


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest interval between two values that holds the median with 95 %, and the level that it reaches.

    It assumes no distribution (the sign test turned round): with n values the k-th smallest and k-th largest miss the
    median with probability 2 P(Binomial(n, 1/2) < k). Below six values even the extremes do not reach 95 %.
    """
    ordered, count = sorted(values), len(values)
    best = max([1, *(k for k in range(1, count // 2 + 1) if _level(count, k) >= LEVEL)])
    return ordered[best - 1], ordered[count - best], _level(count, best)


def _level(count: int, k: int) -> float:
    return max(0.0, 1 - 2 * sum(math.comb(count, i) for i in range(k)) / 2**count)


def row(quantity: str, n: int | str, values: Iterable[float], unit: str, bar: str = "", **more: Any) -> Row:
    """A line of the table.

    Args:
        quantity: what was measured.
        n: of what size.
        values: one per repeat.
        unit: of the values.
        bar: what is asked for, ``"<= 1.03"`` or ``">= 10"``.
        more: further columns.
    """
    every = list(values)
    middle, (low, high, level) = statistics.median(every), interval(every)
    bound = float(bar.split()[1]) if bar else 0.0
    met = "" if not bar else ("yes" if (middle <= bound if bar.startswith("<") else middle >= bound) else "no")
    sides = {"low": f"{low:.6g}", "high": f"{high:.6g}", "level": f"{level:.3f}", "repeats": len(every)}
    everything = " ".join(f"{value:.6g}" for value in every)
    line = {"quantity": quantity, "n": n, "median": f"{middle:.6g}", "unit": unit, "bar": bar, "met": met}
    return line | sides | {"all": everything} | more


def conditions(precision: str = "32-true") -> dict[str, str]:
    """Hardware, versions and the load of the machine, as plain texts."""
    import torch

    from supreme.callbacks.environment import hardware, versions

    machine, have = hardware(), versions()
    device = f"{machine['device']}, " if "device" in machine else ""
    return {
        "hardware": f"{device}{machine['cpu']}, {machine['cores']} cores",
        "threads": str(torch.get_num_threads()),
        "system": platform.platform(),
        "precision": precision,
        "load": f"{os.getloadavg()[0]:.1f}",
        **{name: have[name] for name in ("supreme", "python", "torch", "lightning")},
    }


def finish(script: str, rows: Sequence[Row], given: argparse.Namespace, about: Mapping[str, str]) -> Path:
    """Print the lines and write them; the file is named by hardware, precision and torch version."""
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for line in rows:
        wanted = f", asked {line['bar']}: {line['met']}" if line["bar"] else ""
        print(f"{line['quantity']:34} n = {line['n']!s:>8}  median {line['median']:>10} {line['unit']}{wanted}")
        print(f"{'':34} {float(line['level']):.0%} interval {line['low']} to {line['high']}; all: {line['all']}")
    path = given.output or RESULTS / f"{script}_{_words(about)}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for line in rows for name in (*line, *about)))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=names)
        table.writeheader()
        table.writerows({**line, **about} for line in rows)
    print(f"Written to {path}")
    return path


def _words(about: Mapping[str, str]) -> str:
    text = f"{about['hardware']} {about['precision']} torch {about['torch']}"
    return re.sub(r"[^\w.+]+", "-", text).strip("-")


def pictures(count: int, folder: str | None = None, size: int = 32, classes: int = 10) -> "ImageDataset":
    """A dataset of so many training images and, where there are so many, test images.

    Args:
        count: images of each split.
        folder: for ImageFolder, of which some are drawn; None makes random pixels.
        size: height and width.
        classes: of random images.
    """
    import torch

    from supreme.datasets import ImageFolder
    from supreme.datasets.base import Content, ImageDataset, Images

    class Pictures(ImageDataset):
        def read(self, allocate: Any) -> Content:
            draw = torch.Generator().manual_seed(0)
            if folder is None:
                images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
                part = Images(images, torch.arange(count) % classes)
                return Content(part, part, tuple(f"class {k}" for k in range(classes)))
            found, parts = ImageFolder(folder, size), []
            for split in (found.train, found.test):
                chosen = torch.randperm(len(split.targets), generator=draw)[:count]
                parts.append(Images(split.images[chosen], split.targets[chosen]))
            return Content(parts[0], parts[1], found.classes)

    return Pictures()
