"""The wheel: what is in it, and that it works away from the repository."""

import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

import supreme

ROOT = Path(__file__).parents[1]


def run(*words, cwd):
    """Run a command without what this process has on its path; gives standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory):
    """Folder of the programs of a fresh environment with the wheel, which sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", wheel, cwd=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(packages, "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return python.parent


def test_what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "supreme").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    configs = {f"supreme/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert "supreme/py.typed" in package
    assert "supreme/configs/quickstart.yaml" in configs
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == package | configs
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_its_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    texts = {Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert f"\nVersion: {supreme.__version__}\n" in texts["METADATA"]
    assert "# SUPREME" in texts["METADATA"]
    assert "supreme = supreme.__main__:main" in texts["entry_points.txt"]


def test_it_works_away_from_the_repository(programs, tmp_path):
    where = run(programs / "python", "-c", "import supreme; print(supreme.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(programs.parent)
    assert run(programs / "supreme", "--version", cwd=tmp_path) == f"supreme {supreme.__version__}\n"
    assert "LFSSD" in run(programs / "supreme", "list", "methods", cwd=tmp_path)
    assert "left out UNSIR" in run(programs / "supreme", "run", "quickstart", "--dry_run", cwd=tmp_path)


def test_it_unlearns_away_from_the_repository(programs, tmp_path):
    quick = ("--network.width=8", "--training.epochs=1", "--trainer.accelerator=cpu")
    assert "M_u (LFSSD)" in run(programs / "supreme", "unlearn", "--method", "LFSSD", *quick, cwd=tmp_path)
    assert list(tmp_path.rglob("model.safetensors"))


PLUGIN = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "their-unlearning"
        version = "1.0"
        dependencies = ["supreme-lightning"]

        [project.entry-points."supreme.plugins"]
        theirs = "their_unlearning"
        """,
    "their_unlearning/__init__.py": "from their_unlearning.gentle import Gentle",
    "their_unlearning/gentle.py": """
        from supreme.methods import FineTune


        class Gentle(FineTune):
            '''Fine-tuning with a small step.'''

            def __init__(self, original, epochs: int = 1, lr: float = 1e-4, seed: int = 0):
                super().__init__(original, epochs=epochs, lr=lr, seed=seed)
        """,
}


def test_an_installed_plugin_is_known_by_its_short_name(programs, tmp_path):
    for name, text in PLUGIN.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).lstrip())
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet", "--no-deps")
    run(*pip, "--disable-pip-version-check", "--no-build-isolation", tmp_path / "project", cwd=tmp_path)
    listed = run(programs / "supreme", "list", "methods", cwd=tmp_path)
    assert re.search(r"Gentle \[theirs\]\s+Fine-tuning with a small step", listed)
    quick = ("--network.width=8", "--training.epochs=1", "--trainer.accelerator=cpu", "--method.lr=0.001")
    assert "M_u (Gentle)" in run(programs / "supreme", "unlearn", "--method", "Gentle", *quick, cwd=tmp_path)
