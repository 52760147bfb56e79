"""What a result was made with: versions of packages, hardware, and the commit of the working directory."""

import os
import platform
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import supreme

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_PACKAGES = (
    "torch",
    "lightning",
    "torchvision",
    "torchmetrics",
    "transformers",
    "deepspeed",
    "numpy",
    "scipy",
    "scikit-learn",
)
_TIMEOUT_S = 5.0


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of those installed packages that results depend on; imports none.

    Example:
        >>> sorted(versions())[-1], versions()["supreme"] == supreme.__version__
        ('transformers', True)
    """
    found = {"supreme": supreme.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        version = _version(package)
        if version is not None:
            found[package] = version
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def hardware(trainer: "Trainer | None" = None) -> dict[str, Any]:
    """Hardware and how it is used.

    Args:
        trainer: adds what it runs on; without one, the accelerator that is available and all its devices.

    Returns:
        ``host``, ``cpu`` (model name), ``cores`` (that this process may use), ``memory_bytes``, ``threads`` (of torch),
        ``accelerator``, ``device`` (model name), ``devices`` (over all nodes), ``cuda`` (version of torch's), and with
        a trainer ``nodes``, ``precision`` and ``strategy`` (class name).

    Example:
        >>> sorted(hardware())[:3]
        ['accelerator', 'cores', 'cpu']
    """
    import psutil
    import torch

    from supreme.callbacks.sampling import usable_cores

    found: dict[str, Any] = {
        "host": platform.node(),
        "cpu": _cpu_name(),
        "cores": len(usable_cores()),
        "memory_bytes": psutil.virtual_memory().total,
        "threads": torch.get_num_threads(),
    }
    found |= _accelerator() if trainer is None else _used_by(trainer)
    if found["accelerator"] == "cuda":
        found["device"], found["cuda"] = torch.cuda.get_device_name(), torch.version.cuda
    return found


def _accelerator() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        return {"accelerator": "cuda", "devices": torch.cuda.device_count()}
    return {"accelerator": "mps" if torch.backends.mps.is_available() else "cpu", "devices": 1}


def _used_by(trainer: "Trainer") -> dict[str, Any]:
    return {
        "accelerator": trainer.strategy.root_device.type,
        "devices": trainer.num_devices * trainer.num_nodes,
        "nodes": trainer.num_nodes,
        "precision": str(trainer.precision),
        "strategy": type(trainer.strategy).__name__,
    }


def _cpu_name() -> str:
    """Model name of the processor as its maker writes it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    if platform.system() == "Darwin":
        name = _output(["sysctl", "-n", "machdep.cpu.brand_string"], Path("/"))
        if name:
            return name
    return platform.processor() or platform.machine()


def git_commit(path: str | Path = ".") -> str | None:
    """Commit that a folder is at, with ``-dirty`` behind it when tracked files were changed.

    Args:
        path: a folder inside a repository, or a file of it.

    Returns:
        The 40-digit hash, or None outside a repository, before the first commit, without git, or when git does not
        answer within 5 seconds.

    Example:
        >>> git_commit("/") is None
        True
    """
    folder = Path(path).resolve()
    folder = folder if folder.is_dir() else folder.parent
    return _output(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], folder) or None


def _output(command: list[str], folder: Path) -> str | None:
    """Standard output of a command that may fail, be missing or hang.

    The output goes to a file, because a pipe that a grandchild keeps open would outlast the time limit.
    """
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    with tempfile.TemporaryFile() as file:
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed commands
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.DEVNULL
            )
        except OSError:
            return None
        try:
            code = process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
        file.seek(0)
        return file.read().decode(errors="replace").strip() if code == 0 else None
