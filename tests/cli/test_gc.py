"""``supreme gc`` as a user gives it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from supreme.cli.gc import size
from supreme.experiment.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stale(finished, tmp_path):
    """A copy of a finished plan that does not ask for SSD any more: three stages are left over."""
    shutil.copytree(finished, tmp_path / "out")
    file = tmp_path / "out/plans/finished.yaml"
    plan = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**plan, "methods": ["Retrain"]}))
    return tmp_path / "out"


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.name != ".clock")


def test_it_lists_and_removes_on_confirmation_only(stale, process):
    before = files(stale)
    listed = process("gc", stale)
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    assert len(lines) == 5
    assert "importances of D by SSD, ResNet18 on Digits, seed 5 (of no plan)" in lines[0]
    assert "SSD, FullClass 3, ResNet18 on Digits, seed 5 (of no plan)" in lines[1]
    assert "evaluate SSD" in lines[2]
    assert lines[3].endswith(f"in all, 3 leftovers in {stale}")
    assert lines[4] == "Nothing was removed; --yes removes it."
    assert files(stale) == before

    removed = process("gc", stale, "--yes")
    assert (removed.code, removed.err) == (0, "")
    assert removed.out.splitlines()[-1].startswith("Removed 3 leftovers, ")
    gone = {path.relative_to(stale).parts[:2] for path in set(before) - set(files(stale))}
    assert gone == {("stages", kind) for kind in ("importances", "unlearn", "evaluate")}
    assert process("gc", stale).out == f"Nothing is left over in {stale}.\n"
    assert "2 runs: 2 done" in process("status", stale).out


@pytest.mark.parametrize(("answer", "left"), [("n\n", True), ("\n", True), ("y\n", False), ("Yes\n", False)])
def test_on_a_terminal_it_asks(stale, answer, left):
    pty = pytest.importorskip("pty")
    before, (ours, theirs) = files(stale), pty.openpty()
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "supreme", "gc", str(stale)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, text=True, env=here)
    os.write(ours, answer.encode())
    shown, _ = process.communicate(timeout=200)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert "Remove all of it? [y/N] " in shown
    assert ("Nothing was removed." in shown) == left
    assert (files(stale) == before) == left


def test_what_is_in_use_stays(stale, supreme):
    before = files(stale)
    key = next(path.parent.name for path in stale.glob("stages/evaluate/*/stage.json") if "SSD" in path.read_text())
    lease = Store(stale).leases.acquire(key, "evaluate SSD")
    result = supreme("gc", stale, "--yes")
    lease.release()
    assert (result.code, result.out) == (2, "")
    assert (
        "no plan there refers to (evaluate SSD), so what it needs is not known; wait until it has ended." in result.err
    )
    assert files(stale) == before


def test_wrong_words(process, refused, inside):
    refused(process("gc"), "required: RUNS")
    refused(process("gc", "nowhere"), "No plan was ever run in 'nowhere'")
    refused(process("gc", "nowhere", "--yess"), "did you mean '--yes'")


def test_a_plan_that_cannot_be_read_ends_it(stale, supreme):
    (stale / "plans/broken.yaml").write_text("name: [")
    before = files(stale)
    result = supreme("gc", stale, "--yes")
    assert (result.code, result.out) == (2, "")
    assert "broken.yaml' cannot be read" in result.err
    assert len(result.err.splitlines()) == 1
    assert files(stale) == before


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**40, "5.0 TiB"), (2**60, "1048576.0 TiB")],
)
def test_sizes(count, text):
    assert size(count) == text
