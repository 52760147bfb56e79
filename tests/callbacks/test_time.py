import os
import time

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler

from supreme.callbacks import ElapsedTime, unmeasured
from supreme.callbacks.procedure import _Watch


class SlowDisk(TorchCheckpointIO):
    def __init__(self, spend, seconds):
        super().__init__()
        self.spend, self.seconds, self.saves = spend, seconds, 0

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        self.saves += 1
        self.spend(self.seconds)
        super().save_checkpoint(checkpoint, path, storage_options)


class Saver(ModelCheckpoint):
    @property
    def state_key(self):
        return str(self.dirpath)


class Slow(Callback):
    """Spends time in some callback hooks."""

    def __init__(self, spend, **costs):
        self.spend, self.costs = spend, costs

    def __getattribute__(self, name):
        costs = object.__getattribute__(self, "__dict__").get("costs", {})
        if name in costs:
            return lambda *args: self.spend(costs[name])
        return object.__getattribute__(self, name)


INSIDE = {
    "on_train_start": 1.0,
    "on_train_epoch_start": 2.0,
    "on_train_batch_start": 4.0,
    "training_step": 8.0,
    "on_train_batch_end": 16.0,
    "last": 32.0,
    "fetch": 64.0,
}
OUTSIDE = {
    "setup": 1e3,
    "on_fit_start": 1e3,
    "on_train_epoch_end": 1e3,
    "on_train_end": 1e3,
    "on_validation_start": 1e3,
    "on_validation_end": 1e3,
    "validation_step": 1e3,
    "val_fetch": 1e3,
}


@pytest.mark.parametrize("hook", sorted(INSIDE))
def test_each_part_of_the_procedure_is_inside(kit, clock, hook):
    timer = ElapsedTime()
    kit.fit(kit.Net(clock.spend, {hook: INSIDE[hook]}, steps=3), timer)
    times = {"on_train_start": 1, "on_train_epoch_start": 1, "last": 1}.get(hook, 3)
    assert timer.time_s == times * INSIDE[hook]


@pytest.mark.parametrize("hook", sorted(OUTSIDE))
def test_each_other_part_of_a_fit_is_outside(kit, clock, hook):
    timer = ElapsedTime()
    kit.fit(kit.Net(clock.spend, {hook: OUTSIDE[hook], "training_step": 1.0}), timer, num_sanity_val_steps=1)
    assert clock.now > 1000.0 + OUTSIDE[hook]
    assert timer.time_s == 2.0


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("check", [1, 2])
def test_a_full_fit_with_everything_at_once(kit, clock, tmp_path, epochs, check):
    """Validation after every batch or two, a save by step, by epoch and by validation."""
    timer, steps = ElapsedTime(), 4
    disk = SlowDisk(clock.spend, 1e4)
    savers = [
        Saver(tmp_path / "step", every_n_train_steps=1, save_top_k=-1),
        Saver(tmp_path / "epoch", save_on_train_epoch_end=True),
        Saver(tmp_path / "validation", save_on_train_epoch_end=False),
    ]
    net = kit.Net(clock.spend, INSIDE | OUTSIDE, steps=steps)
    settings = {"enable_checkpointing": True, "plugins": [disk], "val_check_interval": check, "max_epochs": epochs}
    kit.fit(net, timer, *savers, num_sanity_val_steps=2, **settings)
    each = sum(INSIDE[name] for name in ("fetch", "on_train_batch_start", "training_step", "on_train_batch_end"))
    expected = INSIDE["on_train_start"] + epochs * (INSIDE["on_train_epoch_start"] + INSIDE["last"] + steps * each)
    assert disk.saves > epochs * steps
    assert timer.time_s == expected


def test_a_save_before_the_edit_of_the_last_batch_leaves_the_edit_inside(kit, clock, tmp_path):
    timer, disk = ElapsedTime(), SlowDisk(clock.spend, 100.0)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    kit.fit(kit.Net(clock.spend, {"last": 7.0}), timer, saver, enable_checkpointing=True, plugins=[disk])
    assert disk.saves == 2
    assert timer.time_s == 7.0


def test_the_place_among_the_callbacks_does_not_matter(kit, clock):
    """Set-up, validation and epoch-end work of callbacks before and behind the clock is outside."""
    costs = {"on_train_start": 10.0, "on_validation_start": 10.0, "on_train_epoch_end": 10.0, "on_train_end": 10.0}
    timer = ElapsedTime()
    around = Slow(clock.spend, **costs), Slow(clock.spend, **costs)
    kit.fit(kit.Net(clock.spend, {"training_step": 1.0}), around[0], timer, around[1])
    assert timer.time_s == 2.0
    assert clock.now == 1000.0 + 2.0 + 2 * 40.0


def test_work_of_callbacks_between_steps_is_inside_unless_declared(kit, clock):
    class Curve(Callback):
        def __init__(self, declared):
            self.declared = declared

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if self.declared:
                with unmeasured(trainer):
                    clock.spend(5.0)
            else:
                clock.spend(5.0)

    times = {}
    for declared in (True, False):
        timer = ElapsedTime()
        kit.fit(kit.Net(clock.spend, {"training_step": 1.0, "last": 2.0}), Curve(declared), timer)
        times[declared] = timer.time_s
    assert times == {True: 4.0, False: 14.0}


def test_an_exception_in_an_unmeasured_block_starts_the_clock_again(kit, clock):
    class Curve(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            try:
                with unmeasured(trainer):
                    clock.spend(5.0)
                    raise ValueError
            except ValueError:
                clock.spend(1.0)

    timer = ElapsedTime()
    kit.fit(kit.Net(clock.spend, {}), timer, Curve())
    assert timer.time_s == 2.0


def test_waiting_for_data_can_be_left_out(kit, clock):
    timers = ElapsedTime(), ElapsedTime(include_data=False)
    net = kit.Net(clock.spend, {"fetch": 3.0, "training_step": 1.0, "validation_step": 50.0}, steps=4)
    kit.fit(net, *timers, val_check_interval=1)
    assert [timer.time_s for timer in timers] == [16.0, 4.0]
    assert timers[0].state_key != timers[1].state_key


def test_manual_optimisation(kit, clock):
    timer = ElapsedTime()
    kit.fit(kit.Net(clock.spend, {"training_step": 2.0, "last": 1.0}, manual=True), timer)
    assert timer.time_s == 5.0


def test_stopping_by_the_method_itself(kit, clock):
    """Unlearning methods stop the Trainer in their last ``on_train_batch_end``."""

    class Stops(kit.Net):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            super().on_train_batch_end(outputs, batch, batch_idx)
            self.trainer.should_stop = True

    timer = ElapsedTime()
    trainer = kit.fit(Stops(clock.spend, {"last": 4.0, "training_step": 1.0}, steps=1), timer, max_epochs=9)
    assert trainer.current_epoch == 1
    assert timer.time_s == 5.0


def test_nothing_to_do_gives_no_time(kit, clock):
    timer = ElapsedTime()
    kit.fit(kit.Net(clock.spend, {}), timer, max_epochs=0)
    assert timer.time_s is None
    assert timer.resources() == {}


def test_result_is_published(kit, clock):
    timer = ElapsedTime()
    trainer = kit.fit(kit.Net(clock.spend, {"last": 2.5}), timer)
    assert timer.resources() == {"time_s": 2.5}
    assert trainer.callback_metrics["time_s"].item() == 2.5


def test_a_second_fit_starts_from_zero_and_a_failed_one_has_no_result(kit, clock):
    timer = ElapsedTime()
    for _ in range(2):
        kit.fit(kit.Net(clock.spend, {"last": 2.0}), timer)
        assert timer.time_s == 2.0

    class Breaks(kit.Net):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    trainer = Trainer(**kit.QUIET, max_epochs=1, callbacks=[timer])
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Breaks(clock.spend, {}))
    assert timer.time_s is None
    assert isinstance(trainer.profiler, PassThroughProfiler)


def test_a_resumed_fit_goes_on_from_the_stored_time(kit, clock, tmp_path):
    costs = {"training_step": 1.0, "last": 10.0}
    first = ElapsedTime()
    trainer = kit.fit(kit.Net(clock.spend, costs), first)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    clock.spend(1e6)
    second = ElapsedTime()
    kit.fit(kit.Net(clock.spend, costs), second, max_epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert first.time_s == 12.0
    assert second.time_s == 36.0


def test_the_users_profiler_sees_every_action_and_comes_back(kit, clock):
    seen = {}
    for callbacks in ([], [ElapsedTime(), ElapsedTime(include_data=False)]):
        profiler = SimpleProfiler()
        trainer = kit.fit(kit.Net(clock.spend, {}, steps=3), *callbacks, profiler=profiler)
        assert trainer.profiler is profiler
        assert not profiler.current_actions
        seen[len(callbacks)] = {k: len(v) for k, v in profiler.recorded_durations.items() if "ElapsedTime" not in k}
    assert seen[0] == seen[2]
    assert seen[0]["run_training_batch"] == 3


def test_the_wrapped_profiler_is_transparent():
    profiler = SimpleProfiler()
    watch = _Watch(profiler)
    with watch.profile("mine"):
        pass
    assert watch.recorded_durations is profiler.recorded_durations
    assert list(profiler.recorded_durations) == ["mine"]


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_the_clock_waits_for_the_device(kit, clock, monkeypatch, name):
    """Work that is still queued when the clock starts or stops belongs to what came before."""
    queued = [30.0, 5.0]
    module = torch.get_device_module(name)
    monkeypatch.setattr(module, "synchronize", lambda device=None: clock.spend(queued.pop(0)))
    timer = ElapsedTime()
    timer.begin(kit.fake_trainer(name))
    timer.resume()
    clock.spend(1.0)
    timer.suspend()
    timer.finish(kit.fake_trainer(name))
    assert timer.time_s == 6.0
    assert queued == []


def test_after_an_exception_the_device_is_not_waited_for(kit, clock, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: pytest.fail("waited"))
    timer = ElapsedTime()
    trainer = kit.fake_trainer("cuda")
    trainer.profiler = PassThroughProfiler()
    timer.on_train_start(trainer, None)
    timer._begun = timer._running = True
    timer.on_exception(trainer, None, RuntimeError())
    assert not timer._running
    assert isinstance(trainer.profiler, PassThroughProfiler)


def test_real_seconds(kit, tmp_path):
    """With real sleeps: the edit of the last batch is inside, validation and checkpoints are not."""
    timer, disk = ElapsedTime(), SlowDisk(time.sleep, 0.2)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    net = kit.Net(time.sleep, {"last": 0.2, "validation_step": 0.2, "on_validation_end": 0.2})
    kit.fit(net, timer, saver, enable_checkpointing=True, plugins=[disk])
    assert 0.2 <= timer.time_s < 0.2 + 0.35


def _slow_rank(rank, kit, slow):
    clock = kit.Clock()
    import importlib

    importlib.import_module("supreme.callbacks.time").time = clock
    timer = ElapsedTime()
    net = kit.Net(clock.spend, {"training_step": 1.0, "last": 40.0 if rank == slow else 3.0, "setup": 500.0 * rank})
    trainer = kit.fit(net, timer, strategy="ddp", devices=2, use_distributed_sampler=False)
    return timer.time_s, trainer.callback_metrics["time_s"].item()


@pytest.mark.distributed
@pytest.mark.parametrize("slow", [0, 1])
def test_the_slowest_rank_counts(kit, slow):
    answers = kit.on_ranks(_slow_rank, kit, slow)
    assert answers == {0: (True, (42.0, 42.0)), 1: (True, (42.0, 42.0))}


@pytest.mark.distributed
def test_ranks_start_together(kit):
    answers = kit.on_ranks(_late_start, kit)
    for rank in range(2):
        done, seconds = answers[rank]
        assert done, seconds
        assert seconds < 1.8


def _late_start(rank, kit):
    class Late(Callback):
        def on_train_start(self, trainer, pl_module):
            time.sleep(2.0 * rank)

    timer = ElapsedTime()
    kit.fit(kit.Net(time.sleep, {}), Late(), timer, strategy="ddp", devices=2, use_distributed_sampler=False)
    return timer.time_s


@pytest.mark.distributed
def test_the_result_comes_back_from_forked_ranks(kit, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    trainer = kit.fit(
        kit.Net(time.sleep, {"last": 0.2}), ElapsedTime(), strategy="ddp_fork", devices=2, use_distributed_sampler=False
    )
    assert 0.2 <= trainer.callback_metrics["time_s"].item() < 20.0
