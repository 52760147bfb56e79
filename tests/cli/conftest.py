"""Commands as a user gives them: in this process where start-up would cost too much, else in one of their own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from supreme.__main__ import main

ROOT = Path(__file__).parents[2]
QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
SMALL = ("--network.width=8", "--training.epochs=1")
PLAN = {
    "name": "small",
    "datasets": ["Digits"],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "training": {"epochs": 1, "lr": 0.01},
    "scenarios": [{"class_path": "FullClass", "targets": [3]}],
    "methods": ["SSD"],
    "seeds": [5],
    "trainer": {"accelerator": "cpu"},
}


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPREME_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def plan(inside):
    """Writes a small plan, with changes; gives the name of its file."""

    def write(**changes):
        (inside / "small.yaml").write_text(yaml.safe_dump({**PLAN, **changes}))
        return "small.yaml"

    return write


@pytest.fixture
def supreme(inside, capsys):
    """Run a command in this process: ``supreme("list", "methods")`` gives code, out and err."""

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        shown = capsys.readouterr()
        return SimpleNamespace(code=code, out=shown.out, err=shown.err)

    return run


@pytest.fixture
def process(inside):
    """Run a command in a process of its own, as the shell does."""

    def run(*words, timeout=240, **environment):
        here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        command = [sys.executable, "-m", "supreme", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=here, timeout=timeout, check=False)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def refused(inside):
    """Assert that a command ended as bad input has to: one sentence, exit code 2, no traceback, nothing written."""
    before = sorted(inside.rglob("*"))

    def check(result, *words):
        assert result.code == 2, result.err
        assert result.out == ""
        assert "Traceback" not in result.err
        assert result.err.startswith("error: ")
        assert len(result.err.strip().splitlines()) == 1
        for word in words:
            assert word in result.err, result.err
        left = [path for path in sorted(inside.rglob("*")) if path not in before and "data" not in path.parts]
        assert left == []

    return check


@pytest.fixture
def pictures(inside):
    """Folders of images, good and bad."""

    def make(name, classes=("cat", "dog"), count=5):
        generator = np.random.default_rng(0)
        for shade, label in enumerate(classes):
            folder = inside / name / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 128, (12, 12, 3), dtype=np.uint8) + np.uint8(100 * shade)
                Image.fromarray(pixels).save(folder / f"{number}.png")
        return inside / name

    return make


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Folder of a model that ``supreme fit`` made: narrow, one epoch, the embedded digits."""
    return _made(tmp_path_factory, "fit", "--trainer.max_epochs=1", "--network.width=8", "--data.batch_size=32")


@pytest.fixture(scope="session")
def unlearned(tmp_path_factory, fitted):
    """Folder of M_u: FineTune after a request to forget the digit 3."""
    words = ("--method=FT", "--method.epochs=1", "--data.forget=3")
    return _made(tmp_path_factory, "unlearn", *words, "--original", fitted)


@pytest.fixture(scope="session")
def retrained(tmp_path_factory, fitted):
    """Folder of M_r for the same request."""
    return _made(tmp_path_factory, "unlearn", "--method=Retrain", "--data.forget=3", "--original", fitted)


def _made(factory, command, *words):
    folder = factory.mktemp(command)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main([command, *map(str, words), *QUIET]) == 0
    finally:
        os.chdir(before)
    return next(folder.rglob("model.safetensors")).parent


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Folder of a plan of three runs that was run, and ``plan.yaml`` beside it; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "name": "finished"}))
    words = ["run", str(folder / "plan.yaml"), "--output", str(folder / "out"), "--workers=1", "--track_evaluation"]
    assert main(words) == 0
    return folder / "out"
