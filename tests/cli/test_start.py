"""What answers without torch, and what the first word may be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supreme import __version__
from supreme.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]
LIGHT = [["--help"], ["--version"], ["list", "methods"], ["run", "--help"], ["status", "--help"], ["report", "--help"]]
HEAVY = {"torch", "lightning", "jsonargparse", "pandas", "matplotlib", "sklearn"}


@pytest.mark.parametrize("words", [*LIGHT, ["list", "--help"], ["run", "quickstart", "--dry_run"]], ids=" ".join)
def test_nothing_heavy_is_imported(words, inside):
    code = f"import sys\nfrom supreme.__main__ import main\nmain({words})\nprint(sorted({HEAVY} & set(sys.modules)))"
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=here)
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(("words", "limit_s"), [(["--help"], 0.3), (["list", "methods"], 0.5)], ids=["help", "list"])
def test_answers_at_once(words, limit_s, inside):
    here = {**os.environ, "PYTHONPATH": str(ROOT)}

    def seconds():
        """Processor time, which the other work of this machine does not lengthen."""
        before = os.times()
        subprocess.run([sys.executable, "-m", "supreme", *words], capture_output=True, check=True, env=here)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(4)) < limit_s


def test_version(supreme):
    assert supreme("--version").out == f"supreme {__version__}\n"


def test_help_names_every_command(supreme):
    shown = supreme("--help")
    assert shown.code == 0
    assert all(f"  {name} " in shown.out for name in COMMANDS)


def test_no_command_shows_the_help(supreme):
    result = supreme()
    assert (result.code, result.out) == (2, "")
    assert "usage: supreme COMMAND" in result.err


def test_unknown_command(process, refused):
    refused(process("unlern", "--method", "SSD"), "'unlern'", "did you mean 'unlearn'")


def test_an_unforeseen_error_keeps_its_traceback(inside):
    code = (
        "import sys, supreme.cli.list as there\n"
        "there.listing = lambda kind: 1 / 0\n"
        "from supreme.__main__ import main\n"
        "sys.exit(main(['list', 'methods']))"
    )
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=here)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_reader_that_goes_away_is_no_error(inside):
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m supreme list methods | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=here)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("raised", [KeyboardInterrupt, "exit"])
def test_ctrl_c_gives_130_without_a_traceback(raised, monkeypatch, capsys):
    def interrupted(_kind):
        if raised is KeyboardInterrupt:
            raise KeyboardInterrupt
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:  # what Lightning's Trainer does
            sys.exit(1)

    monkeypatch.setattr("supreme.cli.list.listing", interrupted)
    assert main(["list", "methods"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="signals")
def test_ctrl_c_while_a_model_is_trained(inside):
    """The real thing: an interrupt in the middle of a fit."""
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["fit", "--trainer.max_epochs=1000", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        started = subprocess.Popen([sys.executable, "-m", "supreme", *words], **pipes, env=here)
    finally:
        signal.signal(signal.SIGINT, before)
    until = time.monotonic() + 100
    while not list(inside.glob("runs/fit/version_0/run.json")) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    try:
        _, err = started.communicate(timeout=200)
    finally:
        started.kill()
    assert started.returncode == 130
    assert "Traceback" not in err
