"""Versions and hardware that a result was made with, found without importing the libraries."""

import os
import platform
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from supreme import __version__

LIBRARIES = ("torch", "lightning", "torchvision", "torchmetrics", "numpy", "scikit-learn")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that results depend on.

    Example:
        >>> versions()["python"] == platform.python_version()
        True
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"supreme": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


@lru_cache(maxsize=1)
def hardware() -> dict[str, Any]:
    """Name of the host, of its processor and its number of usable cores; accelerators are the executor's to name.

    Example:
        >>> hardware()["cores"] >= 1
        True
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"host": socket.gethostname(), "cpu": _processor(), "cores": usable}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
