"""Work that several processes do lies in a module of its own, which the processes import by name."""

import importlib
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
collect_ignore_glob = ["*_work.py"]


@pytest.fixture(scope="session")
def group_work():
    """The module group_work.py, importable here and in the processes that are started from here."""
    sys.path.insert(0, HERE)
    try:
        yield importlib.import_module("group_work")
    finally:
        sys.path.remove(HERE)
