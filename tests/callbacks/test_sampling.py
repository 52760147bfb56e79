import os
import subprocess
import sys
import threading
import time
import types

import psutil
import pytest

from supreme.callbacks.sampling import ProcessTree, Sampler, process_tree, usable_cores


def child(code):
    """A child process that runs ``code`` and says when it has got there."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    process.communicate("\n", timeout=20)


def test_rate_and_last_sample(kit):
    times, start = [], time.monotonic()
    sampler = Sampler(lambda: times.append((time.monotonic(), threading.current_thread().name)), 0.02)
    sampler.start()
    time.sleep(0.3)
    sampler.stop()
    assert 3 <= len(times) <= (time.monotonic() - start) / 0.02 + 2
    assert {name for _, name in times[:-1]} == {"supreme-sampler"}
    assert times[-1][1] == threading.main_thread().name
    assert kit.sampler_threads() == []


def test_a_slow_reading_does_not_pile_up():
    count, start = [], time.monotonic()
    sampler = Sampler(lambda: (count.append(1), time.sleep(0.1)), 0.01)
    sampler.start()
    time.sleep(0.25)
    sampler.stop(last=False)
    assert 1 <= len(count) <= (time.monotonic() - start) / 0.1 + 1


def test_stopping_does_not_wait_for_the_interval(kit):
    sampler = Sampler(lambda: None, 60.0)
    sampler.start()
    start = time.monotonic()
    sampler.stop()
    sampler.stop()
    assert time.monotonic() - start < 5
    assert kit.sampler_threads() == []


def test_a_failed_reading_is_kept_and_ends_the_sampling():
    calls = []

    def read():
        calls.append(1)
        raise OSError("no sensor")

    sampler = Sampler(read, 0.01)
    sampler.start()
    time.sleep(0.1)
    sampler.stop()
    assert len(calls) == 1
    assert str(sampler.failure) == "no sensor"


def test_a_sampler_can_be_started_again():
    seen = []
    sampler = Sampler(lambda: seen.append(1), 60.0)
    for _ in range(3):
        sampler.start()
        sampler.stop()
    assert len(seen) == 3


def test_memory_of_children_counts():
    tree = ProcessTree()
    before = tree.resident_bytes()
    process = child("kept = bytearray(64 << 20)")
    try:
        own = psutil.Process(process.pid).memory_info().rss
        assert own > 64 << 20
        tree.refresh()
        assert tree.resident_bytes() - before == pytest.approx(own, abs=16 << 20)
    finally:
        end(process)


def test_cpu_time_of_children_counts_once_and_from_their_birth():
    tree = ProcessTree()
    tree.cpu_seconds()
    process = child("import time\nwhile time.process_time() < 0.4: pass")
    try:
        spent = sum(psutil.Process(process.pid).cpu_times()[:2])
        own = time.process_time()
        tree.refresh()
        total = tree.cpu_seconds()
        assert spent > 0.35
        assert total == pytest.approx(spent + time.process_time() - own, abs=0.25)
        assert tree.cpu_seconds() < 0.1
    finally:
        end(process)


def test_cpu_time_of_a_child_that_was_never_seen_counts_when_it_ends():
    tree = ProcessTree()
    tree._next_listing = time.monotonic() + 60
    own = time.process_time()
    end(child("import time\nwhile time.process_time() < 0.4: pass"))
    assert tree.cpu_seconds() == pytest.approx(0.4 + time.process_time() - own, abs=0.15)


def test_own_cpu_time():
    tree = ProcessTree()
    start = time.process_time()
    while time.process_time() - start < 0.2:
        pass
    assert tree.cpu_seconds() == pytest.approx(0.2, abs=0.05)


def test_a_process_that_vanishes_is_ignored():
    tree = ProcessTree()
    process = child("")
    tree.refresh()
    with_child = tree.resident_bytes()
    end(process)
    tree._next_listing = time.monotonic() + 60
    assert process.pid in [item.pid for item in tree._list()]
    assert 0 < tree.resident_bytes() < with_child
    assert tree.cpu_seconds() >= 0


def test_a_process_that_may_not_be_read_is_ignored(monkeypatch):
    def refuse(self, *args, **kwargs):
        raise psutil.AccessDenied(self.pid)

    for name in ("memory_info", "cpu_times", "children"):
        monkeypatch.setattr(psutil.Process, name, refuse)
    tree = ProcessTree(without=[1])
    assert tree.resident_bytes() == 0
    assert tree.cpu_seconds() >= 0


def test_other_ranks_are_left_out_with_all_that_they_started():
    """Lightning starts ranks 1, 2, ... as children of rank 0."""
    inner = "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
    process = child(inner)
    try:
        pids = {item.pid for item in psutil.Process(process.pid).children()} | {process.pid}
        launcher = types.SimpleNamespace(procs=[process])
        trainer = types.SimpleNamespace(strategy=types.SimpleNamespace(launcher=launcher))
        assert len(pids) == 2
        assert pids <= {item.pid for item in ProcessTree()._find()}
        assert not pids & {item.pid for item in process_tree(trainer)._find()}
    finally:
        for item in psutil.Process(process.pid).children():
            item.kill()
        end(process)


def test_listing_costs_little(monkeypatch):
    """However many processes a machine has, finding the children takes about 1 % of the time."""
    tree, calls = ProcessTree(), []

    def find():
        calls.append(1)
        start = time.thread_time()
        while time.thread_time() - start < 0.01:
            pass
        return []

    monkeypatch.setattr(tree, "_find", find)
    tree._next_listing = 0.0
    start = time.monotonic()
    while time.monotonic() - start < 0.3:
        tree.resident_bytes()
        time.sleep(0.005)
    assert len(calls) == 1


def test_usable_cores(monkeypatch):
    assert usable_cores() == os.sched_getaffinity(0)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert len(usable_cores()) == os.cpu_count()
