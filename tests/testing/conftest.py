"""Broken components that other processes have to import stand in a module of their own."""

import importlib
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="session")
def apart():
    """The module of components that differ between ranks."""
    sys.path.insert(0, HERE)
    try:
        yield importlib.import_module("differ_between_ranks")
    finally:
        sys.path.remove(HERE)
