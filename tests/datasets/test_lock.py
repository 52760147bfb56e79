"""The lock file: one holder at a time, and none that outlives its process."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from supreme.datasets import lock
from supreme.datasets.lock import build_once, locked
from supreme.errors import OutputError


def test_the_file_exists_while_the_lock_is_held(tmp_path):
    path = tmp_path / "new" / "a.lock"
    with locked(path) as held:
        assert held
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert not path.exists()


def test_the_lock_is_released_when_the_block_fails(tmp_path):
    path = tmp_path / "a.lock"

    def fail():
        with locked(path):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not path.exists()


def test_one_holder_at_a_time(tmp_path):
    inside, most = [], []

    def work(number):
        with locked(tmp_path / "a.lock"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_no_lock_is_taken_once_there_is_nothing_to_do(tmp_path):
    with locked(tmp_path / "a.lock", unless=lambda: True) as held:
        assert not held
        assert not (tmp_path / "a.lock").exists()


def test_a_waiting_process_stops_when_there_is_nothing_left_to_do(tmp_path):
    done, answers = [], []

    def wait():
        with locked(tmp_path / "a.lock", unless=lambda: bool(done)) as held:
            answers.append(held)

    with locked(tmp_path / "a.lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.15)
        assert not answers
        done.append(1)
        thread.join(5)
        assert answers == [False]


def test_a_process_that_was_killed_leaves_no_lock_behind(tmp_path):
    path = tmp_path / "a.lock"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom supreme.datasets.lock import build_once, locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(path)], check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    assert path.exists()
    start = time.monotonic()
    with locked(path) as held:
        assert held
    assert time.monotonic() - start < 5


def test_a_reused_process_number_does_not_count_as_alive(tmp_path):
    path = tmp_path / "a.lock"
    owner = {"token": "x", "machine": lock._machine(), "pid": os.getpid(), "started": lock._started(os.getpid()) - 100}
    path.write_text(json.dumps(owner))
    with locked(path) as held:
        assert held


@pytest.mark.parametrize("text", ['{"token": "x", "machine": "another", "pid": 1, "started": 1.0}', "", "[]", "{"])
def test_a_lock_without_heartbeat_is_taken_over_after_a_while(tmp_path, text):
    path = tmp_path / "a.lock"
    path.write_text(text)
    start = time.monotonic()
    with locked(path, stale_s=0.3) as held:
        assert held
    assert 0.3 < time.monotonic() - start < 5


def test_a_heartbeat_keeps_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_S", 0.05)
    path, order = tmp_path / "a.lock", []

    def wait():
        with locked(path, stale_s=0.5):
            order.append("second")

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(1.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_lock_that_was_taken_over_is_not_released_by_its_old_holder(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path):
        path.write_text(json.dumps({"token": "another"}))
    assert path.exists()


def test_waiting_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.1)
    path = tmp_path / "a.lock"
    path.write_text('{"token": "x", "machine": "another", "pid": 77, "started": 1.0}')
    with locked(path, stale_s=0.6):
        pass
    assert [record.getMessage() for record in caplog.records] == [f"Waiting for process 77, which holds {path}."]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"writable folder .*file/below.*SUPREME_DATA"),
        locked(tmp_path / "file" / "below" / "a.lock"),
    ):
        pass


def test_another_process_may_have_been_faster(tmp_path):
    def build(part):
        (part / "mine").write_text("")
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "theirs").write_text("")

    build_once(tmp_path / "store", build)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name or "lock" in path.name] == []


def test_many_processes_build_once(tmp_path):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom supreme.datasets.lock import build_once\n"
        "def build(part):\n"
        "    Path(sys.argv[1], f'built-{os.getpid()}').write_text('')\n"
        "    time.sleep(0.5)\n"
        "    (part / 'whole').write_text('yes')\n"
        "build_once(Path(sys.argv[1]) / 'store', build)\n"
        "assert (Path(sys.argv[1]) / 'store' / 'whole').read_text() == 'yes'\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert not list(tmp_path.glob("*.lock"))
