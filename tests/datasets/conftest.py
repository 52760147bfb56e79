"""Places that the dataset tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_root(tmp_path, monkeypatch):
    """A default root of their own for downloads and stores."""
    root = tmp_path / "data root"
    monkeypatch.setenv("SUPREME_DATA", str(root))
    return root


@pytest.fixture
def real_data():
    """Real pictures, where this machine has them."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SUPREME_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no folder of real pictures; set SUPREME_TEST_DATA")
    return folder
