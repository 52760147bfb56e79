"""What each metric of an evaluation costs."""

import gc
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torchmetrics import Metric

from supreme.callbacks.memory import _accelerator_meter, _Meter, give_back
from supreme.callbacks.procedure import over_ranks, synchronise
from supreme.callbacks.sampling import Sampler


class MetricCosts(Callback):
    """Time and peak memory of every metric of an evaluation, all its sets and both its models together.

    The time is that of ``update`` and ``compute``, with the device synchronised before and after each call, so that the
    evaluation as a whole takes longer; the forward passes that all metrics share are in no figure. The memory is the
    highest value during a call minus that before it: the allocator's exact peak on CUDA (its peak statistics are
    reset), sampled resident memory of the process elsewhere. Both are the maximum over ranks.

    Args:
        interval_s: seconds between samples.

    Attributes:
        costs: ``metric_time_s/<metric>`` and ``metric_peak_memory_bytes/<metric>``, empty before the end.

    Example:
        >>> MetricCosts().costs
        {}
    """

    def __init__(self, interval_s: float = 0.005) -> None:
        self.interval_s = interval_s
        self.costs: dict[str, float] = {}
        self._time_s: dict[str, float] = {}
        self._peak_bytes: dict[str, float] = {}
        self._wrapped: list[tuple[Any, str, Callable[..., Any]]] = []
        self._meter: _Meter | None = None
        self._sampler: Sampler | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch every metric that the module has."""
        self.costs, self._time_s, self._peak_bytes, device = {}, {}, {}, trainer.strategy.root_device
        for metric in pl_module.modules():
            key = getattr(metric, "key", "")
            if isinstance(metric, Metric) and key:
                self._time_s.setdefault(key, 0.0)
                self._peak_bytes.setdefault(key, 0.0)
                for name in ("update", "compute"):
                    self._watch(metric, name, key, device)
        gc.collect()  # what earlier work has left would go while a metric is measured, and hide what that one takes
        give_back()
        self._sampler = Sampler(self._read, self.interval_s)
        self._sampler.start()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Combine over ranks."""
        self._release()
        for name, values in (("metric_time_s", self._time_s), ("metric_peak_memory_bytes", self._peak_bytes)):
            largest = {key: over_ranks(trainer, value, "max") for key, value in values.items()}
            self.costs |= {f"{name}/{key}": value for key, value in largest.items() if value is not None}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the metrics as they were."""
        self._release()

    def _watch(self, metric: Any, name: str, key: str, device: torch.device) -> None:
        inner = getattr(metric, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            synchronise(device)
            self._meter = meter = _accelerator_meter(device) or _Meter(_resident_bytes)
            meter.restart()
            started = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                synchronise(device)
                self._time_s[key] += time.perf_counter() - started
                self._meter = None
                meter.read()
                self._peak_bytes[key] = max(self._peak_bytes[key], float(meter.peak - meter.before))

        setattr(metric, name, measured)
        self._wrapped.append((metric, name, inner))

    def _release(self) -> None:
        if self._sampler is not None:
            self._sampler.stop(last=False)
            self._sampler = None
        for metric, name, inner in self._wrapped:
            setattr(metric, name, inner)
        self._wrapped = []

    def _read(self) -> None:
        meter = self._meter
        if meter is not None:
            meter.read()


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)
