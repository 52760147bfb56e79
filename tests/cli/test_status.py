"""``supreme status --watch``: in place on a terminal, line by line elsewhere; it ends by itself or by Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def open_plan(finished, tmp_path):
    """A copy of a finished plan without its last result, and a function that puts it back."""
    shutil.copytree(finished, tmp_path / "out")
    stage = next(
        path for path in (tmp_path / "out/stages/evaluate").iterdir() if "SSD" in (path / "stage.json").read_text()
    )
    stage.rename(tmp_path / "aside")
    return tmp_path / "out", lambda: (tmp_path / "aside").rename(stage)


def start(*words, **streams):
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "supreme", "status", *map(str, words)]
    return subprocess.Popen(command, env=here, text=True, stderr=subprocess.PIPE, **streams)


def test_lines_until_the_plan_is_finished(open_plan):
    folder, finish = open_plan
    process = start(folder, "--watch", "0.2", stdout=subprocess.PIPE)
    lines = [process.stdout.readline() for _ in range(2)]
    assert all(
        line.startswith(f"finished in {folder}: 3 runs: 2 done, 0 running, 1 queued, 0 failed") for line in lines
    )
    assert process.poll() is None
    finish()
    rest, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, "")
    assert rest.splitlines()[-2].startswith(f"finished in {folder}: 3 runs: 3 done, 0 running, 0 queued, 0 failed")
    assert rest.splitlines()[-1].startswith("stages: ")
    assert "\x1b" not in rest


def test_it_is_drawn_again_in_place_on_a_terminal(open_plan):
    pty = pytest.importorskip("pty")
    folder, finish = open_plan
    ours, theirs = pty.openpty()
    process = start("--watch=0.2", folder, stdout=theirs)
    os.close(theirs)
    text = b""
    while text.count(b"2 done") < 3:
        text += os.read(ours, 10_000)
    assert b"\x1b[2K" in text  # lines are cleared and written again
    finish()
    with suppress(OSError):  # once the other end is closed
        while True:
            text += os.read(ours, 10_000)
    assert process.wait(timeout=100) == 0
    assert process.stderr.read() == ""
    assert text.rstrip().splitlines()[-1].startswith(b"stages: ")
    assert text.count(b"\x1b[?25h") == text.count(b"\x1b[?25l") == 1  # the cursor is back
    os.close(ours)


def test_ctrl_c_ends_it_with_the_last_state(open_plan):
    folder, _ = open_plan
    process = start(folder, "--watch", stdout=subprocess.PIPE)
    assert "1 queued" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert errors == ""
    assert "1 queued" in rest
    assert "stages: train 1/1" in rest


def test_a_finished_plan_is_shown_once(finished, supreme):
    once = supreme("status", finished)
    assert once.code == 0
    assert len(once.out.splitlines()) == 2
    for words in ((finished, "--watch"), ("--watch", finished), (finished, "--watch", "3"), ("--watch=3", finished)):
        assert supreme("status", *words).out == once.out


@pytest.mark.parametrize(
    "words",
    [("status", "{}"), ("status", "{}", "--watch"), ("gc", "{}"), ("run", "{}/../plan.yaml", "--dry_run")],
    ids=" ".join,
)
def test_looking_imports_no_torch(words, finished):
    code = "import sys; from supreme.__main__ import main; main(sys.argv[1:]); " + (
        "assert not {'torch', 'lightning', 'pandas', 'numpy'} & set(sys.modules)"
    )
    given = [word.format(finished) for word in words]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *given], env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan"])
def test_seconds_that_are_none(seconds, finished, supreme):
    result = supreme("status", finished, f"--watch={seconds}")
    assert (result.code, result.out) == (2, "")
    assert "Expected more than 0 seconds after --watch" in result.err


def test_a_plan_that_was_never_run(supreme, refused, inside):
    (inside / "empty").mkdir()
    before = sorted(inside.rglob("*"))
    result = supreme("status", "empty", "--watch")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "No plan was ever run in 'empty'" in result.err
    assert sorted(inside.rglob("*")) == before
