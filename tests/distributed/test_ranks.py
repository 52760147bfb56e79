"""Ranks that are started for one piece of work: what comes back, and how each kind of end is told."""

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback

import pytest
import torch.distributed as dist

from supreme.errors import ConfigError, RankError, UnknownNameError
from supreme.ranks import in_ranks, launched

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def work(group_work):
    """The module rank_work.py, which stands beside group_work.py."""
    return importlib.import_module("rank_work")


def test_what_rank_0_returns_comes_back(work, tmp_path, capfd):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    before = dict(os.environ)
    number, threads, variable = in_ranks(2, work.total, 3, threads=1, log=tmp_path / "log")
    assert (number.item(), threads, variable) == (7.0, 1, "1")
    text = (tmp_path / "log").read_text()
    assert "--- rank 0\nrank 0 was here" in text
    assert "--- rank 1\nrank 1 was here" in text
    assert not dist.is_initialized()
    assert not launched()
    assert dict(os.environ) == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    in_ranks(2, work.total, 3, threads=1)
    assert capfd.readouterr().err.count("was here") == 1


def test_the_first_failure_is_raised_as_it_was(work):
    with pytest.raises(UnknownNameError, match=r"^Unknown method 'LFSDD'; did you mean 'LFSSD'\?$") as found:
        in_ranks(2, work.end, "raise", threads=1)
    text = "".join(traceback.format_exception(found.value))
    assert "Rank 1 of 2 raised first:" in text
    assert 'raise UnknownNameError("method"' in text


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kill", "Rank 1 of 2 was killed by SIGKILL; often the machine is out of memory; what it printed is in"),
        ("leave", "Rank 1 of 2 ended with exit code 7; what it printed is in"),
    ],
)
def test_a_rank_that_ends_without_a_word(work, tmp_path, how, message):
    with pytest.raises(RankError, match=message):
        in_ranks(2, work.end, how, threads=1, log=tmp_path / "log")


def test_a_rank_that_asks_python_to_exit(work):
    with pytest.raises(SystemExit, match="3"):
        in_ranks(2, work.end, "exit", threads=1)


def test_ranks_that_wait_for_nothing_are_ended_too(work):
    started = time.monotonic()
    with pytest.raises(KeyError, match="first"):
        in_ranks(2, work.sleep, threads=1)
    assert time.monotonic() - started < 150


def test_an_exception_that_cannot_be_sent_is_told(work):
    with pytest.raises(RuntimeError, match="Stubborn: stubborn 1"):
        in_ranks(1, work.stubborn, threads=1)


def test_what_cannot_be_sent_is_refused(work):
    with pytest.raises(ConfigError, match="define them in a module"):
        in_ranks(1, work.total, lambda: 1)


SCRIPT = """
    import sys
    sys.path.insert(0, {folder!r})
    import rank_work
    from supreme.ranks import in_ranks
    {guard}in_ranks(2, rank_work.{work}, threads=1)
"""


@pytest.fixture
def script(work, tmp_path):
    """Start a script that uses ranks."""

    def start(job, guard='if __name__ == "__main__": '):
        path = tmp_path / "script.py"
        folder = os.path.dirname(work.__file__)  # noqa: PTH120 - text
        path.write_text(textwrap.dedent(SCRIPT).format(folder=folder, guard=guard, work=job))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([sys.executable, str(path)], start_new_session=True, **pipes)

    return start


@pytest.mark.slow
def test_a_script_without_a_guard_is_told(script):
    process = script("total, 3", guard="")
    assert 'if __name__ == "__main__":' in process.communicate(timeout=100)[1]
    assert process.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_everything(script, number):
    import psutil

    process = script("sleep_alone")
    time.sleep(25)  # the ranks have met by then; if not, they end as well
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, number)
    process.communicate(timeout=100)
    assert process.returncode != 0
    assert psutil.wait_procs(family, timeout=60)[1] == []
