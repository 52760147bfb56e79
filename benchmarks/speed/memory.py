"""Peak memory of SSD against what it cannot do without.

    python benchmarks/speed/memory.py                       # ResNet18, batches of 8 and 64
    python benchmarks/speed/memory.py --accelerator gpu

The floor is weights + one gradient + two float32 sets of importances + activations of one batch; M_o itself, which the
caller has, does not count. Activations (with what a backward pass needs beside them) are measured: the peak of a bare
forward and backward pass, on images in the layout in memory that the network asks for, minus the gradient. ``SSD`` is a
whole call of ``supreme.unlearn``, from the caller's model to the unlearned one. The bar is 1.1 times the floor.

Every value comes from a process of its own. On a CPU it is the kernel's own high-water mark of resident memory (reset
before), minus what was resident before; freed blocks go back to the system at once (``MALLOC_*`` variables). On CUDA it
is the allocator's peak.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, Row, begin, conditions, finish, parser, row

RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def peak(work: Callable[[], Any], device: str) -> int:
    """Highest memory during a call minus that before, in bytes."""
    if device == "cuda":
        import torch

        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def measure(what: str, batch_size: int, width: int, device: str) -> dict[str, int]:
    """The peak of one kind of work, and the bytes of the weights; runs in a process of its own."""
    import torch
    from torch.nn import functional
    from torch.utils.data import TensorDataset

    import supreme
    from supreme.models import ResNet18
    from supreme.scenarios.base import image_layout

    torch.manual_seed(0)
    network = ResNet18(10, width).eval()
    draw = torch.Generator().manual_seed(0)
    images, targets = torch.randn(3 * batch_size, 3, 32, 32, generator=draw), torch.arange(3 * batch_size) % 10
    weights = sum(p.numel() * p.element_size() for p in network.parameters())

    def step(rows: slice) -> None:
        copied.zero_grad()
        layout = image_layout(copied, torch.device(device))
        batch = images[rows].to(device, memory_format=layout)
        functional.cross_entropy(copied(batch), targets[rows].to(device)).backward()

    def ssd(rows: slice) -> Any:
        half = rows.stop - batch_size
        parts = [TensorDataset(images[a:b], targets[a:b]) for a, b in ((0, half), (half, rows.stop))]
        settings = {"accelerator": "gpu" if device == "cuda" else "cpu", "batch_size": batch_size}
        return supreme.unlearn(network, "SSD", forget=parts[0], retain=parts[1], **settings)

    if what == "bare":
        copied = ResNet18(10, width).eval().to(device)
        step(slice(0, 2))  # what the first call alone needs is no activation
        copied.zero_grad()
        return {"peak": peak(lambda: step(slice(0, batch_size)), device), "weights": weights}
    small = ResNet18(10, 8).eval()
    sets = [TensorDataset(images[:2], targets[:2]) for _ in range(2)]
    accelerator = "gpu" if device == "cuda" else "cpu"
    supreme.unlearn(small, "SSD", forget=sets[0], retain=sets[1], accelerator=accelerator)
    return {"peak": peak(lambda: ssd(slice(0, 3 * batch_size)), device), "weights": weights}


def in_process(what: str, batch_size: int, given: argparse.Namespace) -> dict[str, int]:
    """:func:`measure` in a new process."""
    device = "cuda" if given.accelerator == "gpu" else "cpu"
    words = ["--measure", what, "--batch_sizes", str(batch_size), "--width", str(given.width)]
    here = {**os.environ, **RETURNED, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *words, "--accelerator", given.accelerator]
    done = subprocess.run(command, env=here, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("device") == device
    return found


def compare(batch_size: int, given: argparse.Namespace) -> list[Row]:
    """SSD and its floor, in turns."""
    floors, peaks = [], []
    for _ in range(given.repeats):
        bare = in_process("bare", batch_size, given)
        floors.append(bare["weights"] + bare["peak"] + 2 * bare["weights"])  # float32 weights
        peaks.append(in_process("SSD", batch_size, given)["peak"])
    more = {"batch_size": batch_size, "accelerator": given.accelerator, "weights_bytes": bare["weights"]}
    name = f"batch {batch_size}"
    over = [ours / floor for ours, floor in zip(peaks, floors, strict=True)]
    return [
        row(f"{name} floor", given.width, [value / 2**20 for value in floors], "MiB", **more),
        row(f"{name} SSD", given.width, [value / 2**20 for value in peaks], "MiB", **more),
        row(f"{name} SSD / floor", given.width, over, "", "<= 1.1", **more),
    ]


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 64])
    options.add_argument("--width", type=int, default=64, help="of ResNet18; 64 has 11 million weights")
    options.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    options.add_argument("--measure", choices=["bare", "SSD"], help=argparse.SUPPRESS)
    given = begin(options)
    if given.measure:
        device = "cuda" if given.accelerator == "gpu" else "cpu"
        found = measure(given.measure, given.batch_sizes[0], given.width, device)
        print(json.dumps({**found, "device": device}))
        return
    rows = [line for batch_size in given.batch_sizes for line in compare(batch_size, given)]
    finish("memory", rows, given, conditions())


if __name__ == "__main__":
    main()
