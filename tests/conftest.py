"""Fixtures that many tests share; torch is imported when one is used, so that light tests stay light."""

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process forked after OpenMP has started its threads can hang


def beside(file):
    """A module of this folder, under a name that clashes with nothing."""
    name = f"supreme_{file}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{file}.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


matrix = beside("matrix")
outcomes = matrix.Outcomes()


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "runs_on(accelerator, strategy, processes): a cell of the README's table")


def pytest_collection_modifyitems(items):
    for item in items:
        matrix.mark(item)


def pytest_runtest_logreport(report):
    outcomes.note(report)


def pytest_sessionfinish(session):
    worker = hasattr(session.config, "workerinput")  # of pytest-xdist, whose outcomes reach the first process
    if os.environ.get("SUPREME_WRITE_DOCUMENTS") and outcomes.found and not worker:
        matrix.write(outcomes, Path(__file__).parents[1] / "README.md")


@pytest.fixture(scope="session")
def tasks():
    """The module small_tasks.py."""
    return beside("small_tasks")


@pytest.fixture(scope="session")
def official_files():
    """The module official_files.py: small files in the official formats of the datasets."""
    return beside("official_files")


@pytest.fixture
def case(tasks):
    """Golden cases: ``case(name, dtype)``."""
    return tasks.Case


@pytest.fixture
def tiny(tasks):
    """A tiny task: ``network(norm, seed)``, ``images(count)``, ``sets()``, ``scenario()``; class 2 is forgotten."""
    return SimpleNamespace(
        network=tasks.tiny_network, images=tasks.tiny_images, sets=tasks.tiny_sets, scenario=tasks.tiny_scenario
    )


@pytest.fixture
def fit(tasks):
    """Fit a module with a quiet Trainer: ``fit(module, scenario, **trainer)`` gives the module back."""
    return tasks.fit


@pytest.fixture
def same_weights(tasks):
    """Whether two networks are equal bit for bit, buffers included."""
    return tasks.same_weights


@pytest.fixture
def stock_fit(tasks, tmp_path, monkeypatch):
    """Fit with Lightning's own defaults (logger, checkpoints, bars) in an empty folder; gives the Trainer back."""
    from lightning.pytorch import Trainer

    def run(module, data, **settings):
        monkeypatch.chdir(tmp_path)
        with tasks.hushed():
            trainer = Trainer(accelerator="cpu", devices=1, **settings)
            trainer.fit(module, datamodule=data)
        return trainer

    return run
