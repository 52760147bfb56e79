"""The published implementation, installed from the package index into an environment of its own."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGE, VERSION = "supreme-unlearning", "0.1.5"
# What it imports. It pins libraries of 2023; it gets ours, so that both sides compute with the same ones.
SAME = ("torch", "torchvision", "lightning", "numpy", "scikit-learn", "psutil")
OTHER = ("wandb==0.25.1", "python-dotenv==1.1.0", "debugpy")
MARK = "installed.txt"


class InstallError(Exception):
    """An environment that cannot be made."""


def interpreter(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(folder: Path, borrow: bool = False) -> Path:
    """Make the environment unless it is there.

    Args:
        folder: where.
        borrow: whether libraries that this interpreter has are read from where they are and not installed once more.

    Returns:
        Its interpreter.

    Raises:
        InstallError: if pip cannot install it.
    """
    python, wanted = interpreter(folder), [f"{PACKAGE}=={VERSION}", *(f"{name}=={_version(name)}" for name in SAME)]
    mark = folder / MARK
    if python.exists() and mark.is_file() and mark.read_text().split() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    if borrow:
        places = {str(Path(str(metadata.distribution(name).locate_file("")))) for name in SAME}
        own = Path(_output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
        (own / "borrowed.pth").write_text(
            "\n".join(sorted(places)) + "\n"
        )  # comes after the environment's own packages
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for words in ([*wanted[1:], *OTHER], ["--no-deps", wanted[0]]):
        if subprocess.run([*pip, *words], check=False).returncode:
            raise InstallError(f"pip could not install {' '.join(words)} into {folder}; see its words above.")
    mark.write_text("\n".join(wanted) + "\n")
    return python


def _version(name: str) -> str:
    return metadata.version(name).partition("+")[0]  # without the index that a build came from


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
