"""Time, memory and utilisation on every accelerator; where it is not here, what it is asked for is faked."""

import sys
import time
import types

import pytest
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from supreme.api import unlearn
from supreme.callbacks import ElapsedTime, PeakMemory, Utilisation
from supreme.callbacks.procedure import over_ranks
from supreme.distributed import quiet_trainer
from supreme.errors import ConfigError


class Device:
    """An accelerator that holds memory, has work in its queue and notes what it was asked for."""

    def __init__(self):
        self.held, self.highest, self.waits = 1000, 1000, 0

    def hold(self, size):
        self.held, self.highest = size, max(self.highest, size)

    def reset(self, _device=None):
        self.highest = self.held

    def wait(self, _device=None):
        self.waits += 1


@pytest.fixture
def device(monkeypatch, request):
    """The library of an accelerator, in place of the real one."""
    made, name = Device(), request.param
    if name in ("cuda", "xpu"):
        module = torch.get_device_module(name)
        monkeypatch.setattr(module, "memory_allocated", lambda _: made.held)
        monkeypatch.setattr(module, "max_memory_allocated", lambda _: made.highest)
        monkeypatch.setattr(module, "reset_peak_memory_stats", made.reset)
        monkeypatch.setattr(module, "synchronize", made.wait)
        monkeypatch.setattr(torch.cuda, "utilization", lambda _: 75)
    elif name == "mps":
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: made.held)
        monkeypatch.setattr(torch.mps, "synchronize", made.wait)
    else:
        steps = []
        library = types.ModuleType("torch_xla.core.xla_model")
        library.get_memory_info = lambda asked: {"bytes_used": made.held, "bytes_limit": 10**9}
        library.mark_step = lambda: steps.append(1)
        library.wait_device_ops = lambda: made.wait() if steps.pop() else None  # nothing runs before a step is marked
        for part in ("torch_xla", "torch_xla.core"):
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
        monkeypatch.setitem(sys.modules, "torch_xla.core.xla_model", library)
    return name, made


@pytest.mark.parametrize("device", ["cuda", "mps", "xla", "xpu"], indirect=True)
def test_all_three_on_every_accelerator(kit, device):
    name, made = device
    trainer = kit.fake_trainer(name)
    found = [ElapsedTime(), PeakMemory(interval_s=0.01), Utilisation(interval_s=0.01)]
    for callback in found:
        callback.begin(trainer)
    for callback in found:
        callback.resume()
    made.hold(6000)
    time.sleep(0.1)
    made.hold(2000)
    for callback in found:
        callback.suspend()
    made.hold(90000)
    for callback in found:
        callback.finish(trainer)
    clock, memory, use = found
    assert made.waits == 2
    assert 0.1 <= clock.time_s < 5
    assert memory.peak_memory_bytes == 5000
    assert memory.host_peak_memory_bytes is not None
    assert (use.source, use.utilisation == 0.75) == (("nvml", True) if name == "cuda" else ("cpu", False))
    assert 0 <= use.utilisation <= 1
    assert kit.sampler_threads() == []


@pytest.mark.parametrize(("how", "expected"), [("max", 5.0), ("mean", 3.0), ("sum", 6.0)])
def test_ranks_are_combined_by_what_every_strategy_can(how, expected):
    """XLA's strategy gathers, but takes no maxima."""
    strategy = types.SimpleNamespace(
        root_device=torch.device("cpu"),
        all_gather=lambda number: torch.stack([number, torch.tensor(5.0, dtype=torch.float64)]),
    )
    trainer = types.SimpleNamespace(world_size=2, strategy=strategy)
    assert over_ranks(trainer, 1.0, how) == expected
    assert over_ranks(trainer, None, how) is None


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu"])
def test_accelerators_reach_lightning(monkeypatch, name):
    """Lightning gets the name where the accelerator is there; else one sentence says that it is not."""
    kind = AcceleratorRegistry[name]["accelerator"]
    monkeypatch.setattr(kind, "is_available", staticmethod(lambda: True))
    given = []
    monkeypatch.setattr("supreme.strategies.Trainer", lambda **arguments: given.append(arguments["accelerator"]))
    quiet_trainer(name)
    assert given == [name]
    monkeypatch.setattr(kind, "is_available", staticmethod(lambda: False))
    with pytest.raises(ConfigError, match=rf"There is no accelerator {name} on this machine; choose one of auto, cpu"):
        quiet_trainer(name)


def test_a_function_says_that_an_accelerator_is_missing(tiny, monkeypatch):
    for name in ("cuda", "mps"):
        monkeypatch.setattr(AcceleratorRegistry[name]["accelerator"], "is_available", staticmethod(lambda: False))
    forget, retain = tiny.sets()
    with pytest.raises(ConfigError, match="There is no accelerator gpu on this machine"):
        unlearn(tiny.network(), "SSD", forget=forget, retain=retain, accelerator="gpu")
