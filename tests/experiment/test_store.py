"""The store: results are whole or absent, and work is leased to one process at a time."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supreme.callbacks.environment import versions
from supreme.errors import ConfigError, OutputError
from supreme.experiment.lease import Leases, process_lives
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store

STAGE = Stage("train", {"seed": 1}, label="train")
EVALUATE = Stage("evaluate", {"seed": 1}, {"unlearned": STAGE}, label="evaluate")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out").open()


def write(folder: Path) -> None:
    (folder / "weights").write_text("1")


def left_over(store: Store) -> list[str]:
    return [path.name for path in (store.root / "stages").rglob(".*")]


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# --- results


def test_commit_describes_the_result(store: Store) -> None:
    assert not store.has(EVALUATE)
    store.begin(EVALUATE)
    time.sleep(0.02)

    def writer(folder: Path) -> dict[str, object]:
        (folder / "result.json").write_text('{"metrics": {}}')
        return {"resources": {"time_s": 2.0}, "hardware": {"precision": "64-true"}, "versions": {"cuda": "13"}}

    folder = store.commit(EVALUATE, writer)
    assert store.has(EVALUATE)
    assert folder == store.path(EVALUATE) == store.root / "stages/evaluate" / EVALUATE.key
    described = store.description(EVALUATE)
    assert described["config"] == {"seed": 1}
    assert described["inputs"] == {"unlearned": STAGE.key}
    assert described["resources"] == {"time_s": 2.0}
    assert described["hardware"]["host"] == socket.gethostname()
    assert described["hardware"]["precision"] == "64-true"
    assert described["versions"] == {**versions(), "cuda": "13"}
    assert 0.02 <= described["seconds"] < 5
    assert store.result(EVALUATE) == {"metrics": {}}
    assert left_over(store) == []


def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    def writer(folder: Path) -> None:
        write(folder)
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        store.commit(STAGE, writer)
    assert not store.has(STAGE)
    assert left_over(store) == []


def test_what_is_not_plain_is_refused(store: Store) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.commit(STAGE, lambda folder: {"resources": Path("x")})
    assert not store.has(STAGE)


def test_the_first_complete_result_stays(store: Store) -> None:
    store.commit(STAGE, write)
    store.commit(STAGE, lambda folder: (folder / "weights").write_text("2") and None)
    assert (store.path(STAGE) / "weights").read_text() == "1"
    assert left_over(store) == []


def test_an_incomplete_folder_is_no_result_and_is_replaced(store: Store) -> None:
    store.path(STAGE).mkdir(parents=True)
    (store.path(STAGE) / "weights").write_text("half")
    assert not store.has(STAGE)
    store.commit(STAGE, write)
    assert (store.path(STAGE) / "weights").read_text() == "1"
    store.commit(EVALUATE, write)
    assert not store.has(EVALUATE)  # without result.json


def test_discard(store: Store) -> None:
    store.discard(STAGE)
    store.commit(STAGE, write)
    store.discard(STAGE)
    assert not store.has(STAGE)
    assert left_over(store) == []


def test_failures_are_noted_and_forgotten(store: Store) -> None:
    assert store.failure(STAGE) is None
    assert store.failure_mark(STAGE) == 0
    with pytest.raises(ValueError, match="odd") as caught:
        raise ValueError("odd")
    assert store.fail(STAGE, caught.value) == "ValueError: odd"
    failure = store.failure(STAGE)
    assert failure is not None
    assert (failure["type"], failure["message"], failure["label"]) == ("ValueError", "ValueError: odd", "train")
    assert 'raise ValueError("odd")' in failure["traceback"]
    assert store.fail(STAGE, OutputError("The disk is full.")) == "The disk is full."
    assert store.fail(STAGE, "It was killed.") == "It was killed."
    assert store.failed_keys() == {STAGE.key}
    assert not store.has(STAGE)
    mark = store.failure_mark(STAGE)
    assert mark > 0
    store.commit(STAGE, write)
    assert store.failure(STAGE) is None
    assert store.failed_keys() == set()


def test_half_written_results_of_killed_processes_are_removed(store: Store) -> None:
    def writer(folder: Path) -> None:
        for name in (folder.name, folder.name.replace(str(os.getpid()), str(dead_process()))):
            (folder.parent / (name + "00")).mkdir()

    store.commit(STAGE, writer)
    assert len(left_over(store)) == 2
    store.sweep()
    (kept,) = left_over(store)  # this process lives
    assert f".{os.getpid()}." in kept


# --- output folders that cannot be used


def test_output_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", tmp_path / "file/out"):
        with pytest.raises(OutputError, match=r"Cannot write results to '.*': .*; choose another output"):
            Store(path).open()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write")
def test_output_that_cannot_be_written() -> None:
    with pytest.raises(OutputError, match="Cannot write results to '/proc/supreme'"):
        Store("/proc/supreme").open()


def test_a_result_that_cannot_be_written(store: Store) -> None:
    (store.root / "stages/train").mkdir()
    (store.root / "stages/train").rmdir()
    (store.root / "stages/train").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot write"):
        store.commit(STAGE, write)


# --- leases


def test_one_holder_at_a_time(store: Store) -> None:
    with store.claim(STAGE) as mine:
        assert mine
        with Store(store.root).claim(STAGE) as second:
            assert not second
        holder = store.leases.holder(STAGE.key)
        assert holder is not None
        assert holder["pid"] == os.getpid()
        assert holder["label"] == "train"
        assert socket.gethostname() in holder["host"]
        assert set(store.leases.active()) == {STAGE.key}
    assert store.leases.holder(STAGE.key) is None
    assert store.leases.active() == {}
    with Store(store.root).claim(STAGE) as mine:
        assert mine
    assert [p.name for p in (store.root / "leases").iterdir() if not p.name.startswith(".")] == []


def test_a_claim_ends_with_an_error(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.claim(STAGE):
        raise KeyboardInterrupt
    assert store.leases.holder(STAGE.key) is None


def lease_file(leases: Leases, **changes: object) -> Path:
    """A lease of another process."""
    taken = leases.acquire("x")
    assert taken is not None
    content = json.loads(taken.path.read_text())
    leases.drop(taken)
    taken.path.write_text(json.dumps({**content, **changes}))
    return taken.path


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    lease_file(leases, pid=dead_process())
    assert leases.holder("x") is None
    lease = leases.acquire("x")
    assert lease is not None
    assert leases.acquire("x") is None
    lease.release()
    assert not list(tmp_path.glob("x.*"))


def test_a_process_number_that_was_given_again_is_not_the_holder(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    lease_file(leases, created=12345.0)
    assert leases.acquire("x") is not None


def test_the_lease_of_another_host_is_taken_over_after_five_minutes(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    path = lease_file(leases, host="elsewhere", pid=dead_process())
    assert leases.acquire("x") is None
    os.utime(path, (time.time() - 290, time.time() - 290))
    assert leases.acquire("x") is None
    assert leases.holder("x") is not None
    os.utime(path, (time.time() - 310, time.time() - 310))
    assert leases.holder("x") is None
    assert leases.acquire("x") is not None


def test_a_lease_that_is_not_yet_written_counts(tmp_path: Path) -> None:
    (tmp_path / "x.0").touch()
    assert Leases(tmp_path).acquire("x") is None


def test_a_lease_is_renewed(tmp_path: Path) -> None:
    leases = Leases(tmp_path, heartbeat_s=0.05, stale_s=1.0)
    lease = leases.acquire("x")
    assert lease is not None
    os.utime(lease.path, (0, 0))
    deadline = time.monotonic() + 5
    while time.time() - lease.path.stat().st_mtime > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.time() - lease.path.stat().st_mtime < 1
    lease.release()
    lease.release()
    assert not lease.path.exists()


def test_a_holder_that_wakes_up_late_does_not_break_the_new_one(tmp_path: Path) -> None:
    asleep, awake, third = (Leases(tmp_path) for _ in range(3))
    old = asleep.acquire("x")
    assert old is not None
    os.utime(old.path, (0, 0))
    new = awake.acquire("x")
    assert new is not None
    old.release()
    assert third.acquire("x") is None
    new.release()
    assert third.acquire("x") is not None


def _take(folder: str, start: float, rounds: int) -> list[int]:
    """Rounds in which this process got a lease that was stale for all."""
    leases, won = Leases(Path(folder)), []
    for number in range(rounds):
        time.sleep(max(0.0, start + 0.02 * number - time.time()))
        if leases.acquire(f"k{number}") is not None:
            won.append(number)
    return won


def test_a_stale_lease_is_taken_over_by_one_only(tmp_path: Path) -> None:
    rounds, takers = 40, 4
    template = lease_file(Leases(tmp_path), pid=dead_process())
    for number in range(rounds):
        (tmp_path / f"k{number}.0").write_text(template.read_text())
    with multiprocessing.get_context("fork").Pool(takers) as pool:
        start = time.time() + 0.3
        won = pool.starmap(_take, [(str(tmp_path), start, rounds)] * takers)
    assert sorted(number for numbers in won for number in numbers) == list(range(rounds))


def test_process_lives() -> None:
    assert process_lives(os.getpid())
    assert not process_lives(dead_process())
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 10
    while process_lives(zombie.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not process_lives(zombie.pid)
    zombie.wait()


def test_contended(store: Store) -> None:
    other = Store(store.root)
    with store.claim(STAGE):
        assert not store.contended
        with other.claim(EVALUATE):
            assert store.contended
    assert Store(store.root, workers=2).contended


# --- plans


def test_plans_are_kept(store: Store) -> None:
    store.save_plan("tiny", {"name": "x", "training": {"lr": 1e-05}})
    store.save_plan("tiny", {"training": {"lr": 1e-05}})
    (path,) = store.plans()
    assert path.name == "tiny.yaml"
    assert path.read_text() == "training:\n  lr: 1.0e-05\nname: tiny\n"


def test_a_plan_that_is_started_again_is_the_last_started(store: Store) -> None:
    store.save_plan("a", {"seeds": [1]})
    store.save_plan("b", {"seeds": [1]})
    first, second = store.plans()
    for path, stamp in ((first, 1000), (second, 2000)):
        os.utime(path, (stamp, stamp))
    store.save_plan("a", {"seeds": [1]})
    assert max(store.plans(), key=lambda path: path.stat().st_mtime) == first
    assert first.stat().st_mtime > time.time() - 60


def test_no_error_is_hidden_as_a_config_error(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.description(STAGE)
    assert not issubclass(OutputError, ConfigError)
