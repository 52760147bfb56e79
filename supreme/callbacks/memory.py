"""Peak memory of the procedure alone."""

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from supreme.callbacks.procedure import Procedure, over_ranks
from supreme.callbacks.sampling import Sampler, process_tree


class PeakMemory(Procedure):
    """Peak memory of the procedure minus the memory in use just before, in bytes; maximum over ranks.

    CUDA: the allocator's exact peak of allocated memory; its peak statistics are reset, so other code must not rely on
    them during the fit. MPS and TPU: memory held by the driver, or in use on the device, sampled. Host: resident memory
    (RSS) of the process and its children, sampled, so that shorter peaks can be missed and pages shared with forked
    children count more than once. What was allocated before the procedure (the networks themselves, teachers made in
    ``setup``) is not in the figure. Freed memory that the process keeps goes back to the system first, where it can.

    Args:
        interval_s: seconds between samples.

    Attributes:
        peak_memory_bytes: of the accelerator if there is one, else of the host; None before the end of the fit.
        host_peak_memory_bytes: of the host; None before the end of the fit. Both are also in
            ``trainer.callback_metrics``.

    Example:
        >>> PeakMemory().peak_memory_bytes is None
        True

    Differs from the published code: it reports the allocator's peak without subtracting what was there before, and
    leaves out child processes on the host.
    """

    def __init__(self, interval_s: float = 0.1) -> None:
        super().__init__()
        self.interval_s = interval_s
        self.peak_memory_bytes: int | None = None
        self.host_peak_memory_bytes: int | None = None
        self._sampler: Sampler | None = None
        self._meters: list[_Meter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit."""
        if stage == "fit":
            self.peak_memory_bytes = self.host_peak_memory_bytes = None

    def begin(self, trainer: Trainer) -> None:
        """Read what is in use before, without what earlier work has freed but the process has kept."""
        give_back()
        self._meters = [_Meter(process_tree(trainer).resident_bytes)]
        if trainer.strategy.root_device.type != "cpu":
            gc.collect()  # an earlier Trainer's cycles hold models on the device, which would go during the fit
        accelerator = _accelerator_meter(trainer.strategy.root_device)
        if accelerator is not None:
            self._meters.append(accelerator)
        self._sampler = Sampler(self._read, self.interval_s)

    def resume(self) -> None:
        """Start sampling."""
        for meter in self._meters:
            meter.restart()
        if self._sampler is not None:
            self._sampler.start()

    def suspend(self) -> None:
        """Stop sampling, with a last sample."""
        if self._sampler is not None:
            self._sampler.stop()

    def finish(self, trainer: Trainer) -> None:
        """Take the largest rank's peaks."""
        failure = self._sampler.failure if self._sampler is not None else None
        if failure is not None:
            rank_zero_warn(f"Peak memory could not be sampled and is left out: {type(failure).__name__}: {failure}")
        own = [None if failure else float(meter.peak - meter.before) for meter in self._meters]
        peaks = [over_ranks(trainer, value, "max") for value in own]
        whole = [None if peak is None else int(peak) for peak in peaks]
        self.host_peak_memory_bytes, self.peak_memory_bytes = whole[0], whole[-1]

    def abort(self) -> None:
        """End the thread."""
        if self._sampler is not None:
            self._sampler.stop(last=False)

    def resources(self) -> dict[str, float | None]:
        """Both peaks, once known."""
        found = {"peak_memory_bytes": self.peak_memory_bytes, "host_peak_memory_bytes": self.host_peak_memory_bytes}
        return {key: value for key, value in found.items() if value is not None}

    def _read(self) -> None:
        for meter in self._meters:
            meter.read()


class _Meter:
    """Highest value seen of a quantity in bytes, starting from the value before."""

    def __init__(
        self, now: Callable[[], int], high: Callable[[], int] | None = None, reset: Callable[[], None] | None = None
    ) -> None:
        self._high = high or now
        self._reset = reset
        self.before = self.peak = now()

    def restart(self) -> None:
        if self._reset is not None:
            self._reset()

    def read(self) -> None:
        self.peak = max(self.peak, self._high())


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc): taking it again would not be seen."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _accelerator_meter(device: torch.device) -> _Meter | None:
    """The accelerator's own meter, or None where memory is the host's."""
    if device.type == "cpu":
        return None
    if device.type == "mps":
        return _Meter(torch.mps.driver_allocated_memory)
    if device.type == "xla":
        xla = import_module("torch_xla.core.xla_model")
        return _Meter(lambda: int(xla.get_memory_info(device)["bytes_used"]))
    module = torch.get_device_module(device)
    return _Meter(
        now=lambda: int(module.memory_allocated(device)),
        high=lambda: int(module.max_memory_allocated(device)),
        reset=lambda: module.reset_peak_memory_stats(device),
    )
