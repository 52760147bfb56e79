"""Mean compute utilisation of the procedure alone."""

import socket
import time
from zlib import crc32

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from supreme.callbacks.procedure import Procedure, over_ranks
from supreme.callbacks.sampling import ProcessTree, Sampler, process_tree, usable_cores

_MOST_CORES = 4096


class Utilisation(Procedure):
    """Mean compute utilisation over the procedure, sampled at 10 Hz, in [0, 1].

    CUDA: share of time in which the device ran a kernel, as NVML tells (of all processes on that device), averaged
    over samples and then over ranks; NVML's own window is 1/6 s to 1 s, so procedures shorter than that are blurred.
    Otherwise: CPU time of the process and its children divided by elapsed time and by the number of cores that they may
    use; ranks that share cores are added up.

    Args:
        interval_s: seconds between samples.

    Attributes:
        utilisation: the result; None before the end of the fit, and None with a warning where NVML cannot be read.
            Also in ``trainer.callback_metrics["utilisation"]``.
        source: ``"nvml"`` or ``"cpu"``, None before the fit.

    Example:
        >>> Utilisation().utilisation is None
        True

    Differs from the published code: one number in [0, 1] instead of percentages summed over ranks, and the CPU counts
    where there is no CUDA device.
    """

    def __init__(self, interval_s: float = 0.1) -> None:
        super().__init__()
        self.interval_s = interval_s
        self.utilisation: float | None = None
        self.source: str | None = None
        self._meter: _DeviceMeter | _CoresMeter | None = None
        self._sampler: Sampler | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit."""
        if stage == "fit":
            self.utilisation = self.source = None

    def begin(self, trainer: Trainer) -> None:
        """Choose what to read."""
        device = trainer.strategy.root_device
        self.source = "nvml" if device.type == "cuda" else "cpu"
        self._meter = _DeviceMeter(device) if device.type == "cuda" else _CoresMeter(process_tree(trainer))
        self._sampler = Sampler(self._meter.read, self.interval_s)

    def resume(self) -> None:
        """Start sampling."""
        if self._meter is not None and self._sampler is not None:
            self._meter.restart()
            self._sampler.start()

    def suspend(self) -> None:
        """Stop sampling, with a last sample."""
        if self._sampler is not None:
            self._sampler.stop()

    def finish(self, trainer: Trainer) -> None:
        """Combine the ranks."""
        failure = self._sampler.failure if self._sampler is not None else None
        if failure is not None:
            rank_zero_warn(f"Utilisation could not be sampled and is left out: {type(failure).__name__}: {failure}")
        own = None if failure or self._meter is None else self._meter.mean()
        if self.source == "cpu":
            busy = over_ranks(trainer, own, "sum")
            self.utilisation = None if busy is None else min(1.0, busy / _cores(trainer))
        else:
            self.utilisation = over_ranks(trainer, own, "mean")

    def abort(self) -> None:
        """End the thread."""
        if self._sampler is not None:
            self._sampler.stop(last=False)

    def resources(self) -> dict[str, float | None]:
        """``utilisation``, once known."""
        return {} if self.utilisation is None else {"utilisation": self.utilisation}


class _DeviceMeter:
    """Mean of NVML's readings for one CUDA device, in [0, 1]."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._total = 0.0
        self._count = 0

    def restart(self) -> None:
        """Nothing to do: readings are not cumulative."""

    def read(self) -> None:
        self._total += torch.cuda.utilization(self._device) / 100.0
        self._count += 1

    def mean(self) -> float | None:
        return self._total / self._count if self._count else None


class _CoresMeter:
    """Mean number of busy cores: CPU seconds by elapsed seconds."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._busy_s = 0.0
        self._elapsed_s = 0.0
        self._since_s = 0.0

    def restart(self) -> None:
        self._tree.refresh()
        self._tree.cpu_seconds()
        self._since_s = time.perf_counter()

    def read(self) -> None:
        now = time.perf_counter()
        self._busy_s += self._tree.cpu_seconds()
        self._elapsed_s += now - self._since_s
        self._since_s = now

    def mean(self) -> float | None:
        return self._busy_s / self._elapsed_s if self._elapsed_s > 0 else None


def _cores(trainer: Trainer) -> int:
    """Number of different cores that the ranks may use, on all hosts together."""
    own = sorted(usable_cores())
    if trainer.world_size == 1:
        return len(own)
    row = torch.full((1 + _MOST_CORES,), -1, dtype=torch.int64)
    row[0] = crc32(socket.gethostname().encode())
    row[1 : 1 + len(own)] = torch.tensor(own[:_MOST_CORES])
    rows = trainer.strategy.all_gather(row.to(trainer.strategy.root_device)).reshape(-1, len(row)).tolist()
    return len({(host, core) for host, *cores in rows for core in cores if core >= 0})
