import subprocess
import sys
import time

import pytest
import torch

from supreme.callbacks import PeakMemory

MB = 1 << 20


def touch(megabytes, seconds=0.12):
    """Holds memory for a while and gives it back."""
    kept = torch.ones(megabytes * MB // 4)
    time.sleep(seconds)
    return float(kept[0])


def peak(kit, **megabytes):
    memory = PeakMemory(interval_s=0.02)
    kit.fit(kit.Net(touch, megabytes, steps=1), memory)
    return memory.host_peak_memory_bytes / MB


@pytest.fixture(autouse=True)
def _warm(kit):
    """The first fit loads code, which is memory too."""
    kit.fit(kit.Net(touch, {}))


@pytest.mark.parametrize("hook", ["on_train_start", "training_step", "last"])
def test_memory_of_the_procedure_counts(kit, hook):
    assert peak(kit, **{hook: 96}) == pytest.approx(96, abs=24)


@pytest.mark.parametrize("hook", ["on_fit_start", "validation_step", "on_train_epoch_end", "on_train_end"])
def test_other_memory_does_not(kit, hook):
    assert 0 <= peak(kit, **{hook: 96}) < 24


def test_what_was_there_before_does_not_count(kit):
    class Resident(kit.Net):
        def on_fit_start(self):
            self.kept = torch.ones(96 * MB // 4)

    memory = PeakMemory(interval_s=0.02)
    kit.fit(Resident(touch, {"training_step": 48}, steps=1), memory)
    assert memory.host_peak_memory_bytes / MB == pytest.approx(48, abs=24)


def test_memory_of_children_counts(kit):
    class Parent(kit.Net):
        def training_step(self, batch, batch_idx):
            code = f"import time; kept = bytearray({96 * MB}); time.sleep(0.7)"
            subprocess.run([sys.executable, "-c", code], check=True)
            return super().training_step(batch, batch_idx)

    memory = PeakMemory(interval_s=0.02)
    kit.fit(Parent(touch, {}, steps=1), memory)
    assert memory.host_peak_memory_bytes / MB == pytest.approx(96, abs=32)


def test_host_memory_is_the_result_without_an_accelerator(kit):
    memory = PeakMemory()
    trainer = kit.fit(kit.Net(touch, {}), memory)
    assert memory.peak_memory_bytes == memory.host_peak_memory_bytes >= 0
    assert memory.resources() == {
        "peak_memory_bytes": memory.peak_memory_bytes,
        "host_peak_memory_bytes": memory.peak_memory_bytes,
    }
    assert trainer.callback_metrics["peak_memory_bytes"].item() == memory.peak_memory_bytes
    assert kit.sampler_threads() == []


def test_no_result_before_and_after_a_failure(kit):
    memory = PeakMemory()
    assert memory.resources() == {}
    kit.fit(kit.Net(touch, {}), memory)

    class Breaks(kit.Net):
        def training_step(self, batch, batch_idx):
            assert len(kit.sampler_threads()) == 1
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        kit.fit(Breaks(touch, {}), memory)
    assert memory.resources() == {}
    assert kit.sampler_threads() == []


class Allocator:
    """The statistics that torch.cuda and torch.xpu keep."""

    def __init__(self, monkeypatch, module, allocated):
        self.allocated = self.highest = allocated
        monkeypatch.setattr(module, "memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr(module, "max_memory_allocated", lambda device: self.highest)
        monkeypatch.setattr(module, "reset_peak_memory_stats", lambda device: setattr(self, "highest", self.allocated))

    def use(self, allocated):
        self.allocated = allocated
        self.highest = max(self.highest, allocated)


@pytest.mark.parametrize("name", ["cuda", "xpu"])
def test_peak_of_the_allocator(kit, monkeypatch, name):
    """Before: 100. Peaks: 5000 before, 700 inside, 9000 during validation, 600 inside; 100 is what was there."""
    trainer = kit.fake_trainer(f"{name}:0")
    allocator = Allocator(monkeypatch, torch.get_device_module(name), 100)
    allocator.use(5000)
    allocator.use(100)
    memory = PeakMemory(interval_s=60.0)
    memory.begin(trainer)
    for inside, outside in ((700, 9000), (600, 9000)):
        memory.resume()
        allocator.use(inside)
        allocator.use(100)
        memory.suspend()
        allocator.use(outside)
        allocator.use(100)
    memory.finish(trainer)
    assert memory.peak_memory_bytes == 600
    assert memory.host_peak_memory_bytes is not None
    assert memory.host_peak_memory_bytes != 600


def test_mps_is_polled(kit, monkeypatch):
    readings = [1000]
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: readings[-1])
    trainer = kit.fake_trainer("mps")
    memory = PeakMemory(interval_s=0.01)
    memory.begin(trainer)
    memory.resume()
    readings.append(5000)
    time.sleep(0.1)
    readings.append(2000)
    memory.suspend()
    readings.append(99000)
    memory.finish(trainer)
    assert memory.peak_memory_bytes == 4000


def test_a_meter_that_fails_leaves_the_result_out_and_the_fit_alone(kit, monkeypatch):
    def broken():
        raise OSError("no statistics")

    readings = iter([1000])
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: next(readings, None) or broken())
    trainer = kit.fake_trainer("mps")
    memory = PeakMemory()
    memory.begin(trainer)
    memory.resume()
    memory.suspend()
    with pytest.warns(UserWarning, match="OSError: no statistics"):
        memory.finish(trainer)
    assert memory.resources() == {}


def _hold(rank, kit, megabytes):
    memory = PeakMemory(interval_s=0.02)
    net = kit.Net(touch, {"training_step": megabytes[rank]}, steps=1)
    kit.fit(kit.Net(touch, {}))
    kit.fit(net, memory, strategy="ddp", devices=2, use_distributed_sampler=False)
    return memory.host_peak_memory_bytes


@pytest.mark.distributed
def test_the_largest_rank_counts(kit):
    answers = kit.on_ranks(_hold, kit, (32, 128))
    assert all(done for done, _ in answers.values()), answers
    assert answers[0] == answers[1]
    assert answers[0][1] / MB == pytest.approx(128, abs=28)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_that_was_freed_and_kept_counts_when_it_is_taken_again(kit):
    """Small pieces come from the heap, whose free parts stay with the process unless something returns them."""

    def pieces(megabytes, seconds=0.12):
        kept = [bytearray(2**14) for _ in range(megabytes * 64)]
        time.sleep(seconds)
        return len(kept)

    pin = [bytearray(2**14) for _ in range(96 * 64)][::64]  # holes, and something above each
    memory = PeakMemory(interval_s=0.02)
    kit.fit(kit.Net(pieces, {"training_step": 64}, steps=1), memory)
    assert memory.host_peak_memory_bytes / MB == pytest.approx(64, abs=24)
    assert len(pin) == 96
