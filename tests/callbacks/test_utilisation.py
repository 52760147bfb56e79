import subprocess
import sys
import threading
import time

import pytest
import torch

from supreme.callbacks import Utilisation
from supreme.callbacks.sampling import usable_cores


def burn(seconds):
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        pass


def rest(seconds):
    time.sleep(seconds)


class Meter:
    """What the module itself used, by the operating system's clocks: an independent computation."""

    def on(self, kit, work, steps=2):
        outer = self

        class Net(kit.Net):
            def on_train_start(self):
                outer.wall, outer.cpu = -time.perf_counter(), -time.process_time()

            def training_step(self, batch, batch_idx):
                work()
                return super().training_step(batch, batch_idx)

            def on_train_batch_end(self, outputs, batch, batch_idx):
                if self.trainer.is_last_batch:
                    outer.wall += time.perf_counter()
                    outer.cpu += time.process_time()

        return Net(rest, {"validation_step": 0.3, "on_fit_start": 0.3}, steps=steps)

    def share(self):
        return self.cpu / self.wall / len(usable_cores())


def mixed():
    burn(0.1)
    rest(0.1)


@pytest.mark.parametrize("work", [lambda: burn(0.15), lambda: rest(0.15), mixed], ids=["busy", "idle", "mixed"])
def test_cpu_share_of_the_procedure(kit, work):
    meter, use = Meter(), Utilisation()
    trainer = kit.fit(meter.on(kit, work), use)
    assert use.source == "cpu"
    assert use.utilisation == pytest.approx(meter.share(), abs=0.05)
    assert 0 <= use.utilisation <= 1
    assert trainer.callback_metrics["utilisation"].item() == pytest.approx(use.utilisation)
    assert kit.sampler_threads() == []


def test_the_value_is_a_share_of_the_usable_cores(kit, monkeypatch):
    use = Utilisation()
    monkeypatch.setattr("supreme.callbacks.utilisation.usable_cores", lambda: frozenset(range(50)))
    kit.fit(kit.Net(burn, {"training_step": 0.2}), use)
    assert 0.002 < use.utilisation < 0.05


def test_what_is_outside_the_procedure_does_not_dilute(kit):
    """Two busy steps of 0.1 s beside 0.6 s of resting in validation and before the fit."""
    meter, use = Meter(), Utilisation()
    start = time.perf_counter(), time.process_time()
    kit.fit(meter.on(kit, lambda: burn(0.1)), use)
    whole = (time.process_time() - start[1]) / (time.perf_counter() - start[0]) / len(usable_cores())
    assert use.utilisation == pytest.approx(meter.share(), abs=0.05)
    assert use.utilisation > 1.5 * whole


def test_children_count(kit):
    class Parent(kit.Net):
        def training_step(self, batch, batch_idx):
            code = "import time\nwhile time.process_time() < 0.6: pass"
            subprocess.run([sys.executable, "-c", code], check=True)
            return super().training_step(batch, batch_idx)

    use = Utilisation(interval_s=0.02)
    start = time.perf_counter()
    kit.fit(Parent(rest, {}, steps=1), use)
    wall = time.perf_counter() - start
    assert use.utilisation * len(usable_cores()) * wall > 0.5


def test_threads_never_outlive_the_fit(kit):
    before = threading.active_count()
    seen = []

    class Net(kit.Net):
        def training_step(self, batch, batch_idx):
            seen.append(len(kit.sampler_threads()))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            assert kit.sampler_threads() == []

    for _ in range(3):
        kit.fit(Net(rest, {}), Utilisation(), max_epochs=2, val_check_interval=1)
    assert set(seen) == {1}
    assert threading.active_count() == before


@pytest.mark.parametrize("hook", ["training_step", "on_train_start", "on_train_batch_end", "on_train_epoch_end"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_threads_end_with_an_exception(kit, hook, error):
    class Net(kit.Net):
        def cost(self, name):
            if name == hook:
                raise error

    use = Utilisation()
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        kit.fit(Net(rest, {}), use)
    assert kit.sampler_threads() == []
    assert use.utilisation is None


def test_mean_of_the_readings_of_nvml(kit, monkeypatch):
    readings, devices = [20, 90], []

    def read(device):
        devices.append(device)
        return readings[min(len(devices), 2) - 1]

    monkeypatch.setattr(torch.cuda, "utilization", read)
    trainer = kit.fake_trainer("cuda:1")
    use = Utilisation(interval_s=60.0)
    use.begin(trainer)
    for _ in range(2):
        use.resume()
        use.suspend()
    use.finish(trainer)
    assert use.source == "nvml"
    assert use.utilisation == pytest.approx(0.55)
    assert set(devices) == {torch.device("cuda:1")}


def test_nvml_is_read_ten_times_a_second(kit, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: calls.append(1) or 50)
    use = Utilisation()
    use.begin(kit.fake_trainer("cuda"))
    use.resume()
    time.sleep(0.55)
    use.suspend()
    use.finish(kit.fake_trainer("cuda"))
    assert 3 <= len(calls) <= 7
    assert use.utilisation == 0.5


def test_without_nvml_there_is_a_warning_and_no_value(kit, monkeypatch):
    def missing(device):
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "utilization", missing)
    use = Utilisation()
    use.begin(kit.fake_trainer("cuda"))
    use.resume()
    use.suspend()
    with pytest.warns(UserWarning, match="ModuleNotFoundError: pynvml"):
        use.finish(kit.fake_trainer("cuda"))
    assert use.utilisation is None
    assert use.resources() == {}


def _rank(rank, kit, busy):
    use, meter = Utilisation(interval_s=0.02), Meter()
    net = meter.on(kit, lambda: burn(0.2) if rank in busy else rest(0.2), steps=1)
    kit.fit(net, use, strategy="ddp", devices=2, use_distributed_sampler=False)
    return use.utilisation, meter.share()


@pytest.mark.distributed
@pytest.mark.parametrize("busy", [(0,), (0, 1)])
def test_ranks_that_share_cores_are_added_up(kit, busy):
    answers = kit.on_ranks(_rank, kit, busy)
    assert all(done for done, _ in answers.values()), answers
    (first, own), (second, other) = answers[0][1], answers[1][1]
    assert first == second
    assert first == pytest.approx(min(1.0, own + other), abs=0.07)
