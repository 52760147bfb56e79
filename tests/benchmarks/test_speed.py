"""The speed scripts still run, measure what they say, and write it."""

import argparse
import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "speed"
SMALL = {
    "training_epoch": ("--part", "tiny", "--tiny_count", "320"),
    "importances": ("--networks", "tiny", "--count", "40"),
    "scaling": ("--smallest", "32", "--largest", "64", "--most_weights", "2"),
    "start": (),
    "workers": ("--workers", "1", "2", "--seeds", "1", "--epochs", "1", "--width", "8"),
    "memory": ("--batch_sizes", "4", "--width", "16"),
}


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("measure")


def run(script, *words):
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / f"{script}.py"), *map(str, words)]
    return subprocess.run(command, env=here, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize(
    "script",
    ["training_epoch", *(pytest.param(name, marks=pytest.mark.slow) for name in SMALL if name != "training_epoch")],
)
def test_a_small_measurement(script, tmp_path):
    done = run(script, *SMALL[script], "--repeats", "2", "--output", tmp_path / "found.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        values = [float(value) for value in row["all"].split()]
        assert len(values) == int(row["repeats"])
        assert min(values) <= float(row["median"]) <= max(values)
        assert row["hardware"]
        assert row["torch"]
        assert row["load"]
        assert row["met"] in (("yes", "no") if row["bar"] else ("",))
        assert row["quantity"] in done.stdout
    assert script == "workers" or any(row["bar"] for row in rows)
    if script == "scaling":
        assert {(tmp_path / f"found{suffix}").stat().st_size > 1000 for suffix in (".svg", ".png")} == {True}


def test_a_gpu_is_asked_for_in_a_sentence(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("throughput", "--output", tmp_path / "found.csv")
    assert done.returncode == 1
    assert done.stderr == "This script measures a GPU, and torch finds none here; run it on a machine that has one.\n"
    assert not (tmp_path / "found.csv").exists()


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 9, 15, 40])
def test_intervals_are_those_of_the_binomial_distribution(measure, count):
    values = [float(k) for k in range(count)][::-1]
    low, high, level = measure.interval(values)
    k = int(low) + 1
    assert high == count - k
    assert level == pytest.approx(max(0.0, 1 - 2 * binom.cdf(k - 1, count, 0.5)))
    assert level >= 0.95 or k == 1
    assert k == max(1, count // 2) or 1 - 2 * binom.cdf(k, count, 0.5) < 0.95


def test_sides_take_turns_and_the_first_round_does_not_count(measure):
    calls = []
    sides = {name: (lambda name=name: lambda: calls.append(name)) for name in "ab"}
    spent = measure.in_turns(sides, 3)
    assert "".join(calls) == "baabbaab"
    assert {len(values) for times in spent for values in times.values()} == {3}


BARS = {"<= 2": "yes", "<= 1.9": "no", ">= 2": "yes", ">= 2.1": "no", "": ""}


@pytest.mark.parametrize(("bar", "met"), BARS.items())
def test_bars(measure, bar, met):
    assert measure.row("x", 1, [1.0, 2.0, 3.0], "s", bar)["met"] == met


def test_files_are_named_by_hardware_precision_and_version(measure, monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    about = {"hardware": "AMD EPYC (7B13), 2 cores", "precision": "32-true", "torch": "2.9.1+cpu"}
    given = argparse.Namespace(output=None)
    rows = [measure.row("x", 1, [1.0], "s", a=1), measure.row("y", 1, [1.0], "s", b=2)]
    path = measure.finish("start", rows, given, about)
    assert path.name == "start_AMD-EPYC-7B13-2-cores-32-true-torch-2.9.1+cpu.csv"
    assert [row["b"] for row in csv.DictReader(path.open())] == ["", "2"]
