"""Places that the dataset tests share."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


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


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A web server on this machine that stands for the official one; it serves the folder ``official``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(Quiet, directory=str(tmp_path / "official"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def picture():
    """Save a picture of noise: ``picture(path, seed, height, width, 3)`` gives its pixels as they were saved."""

    def save(path, seed, *shape):
        array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return np.asarray(Image.open(path))

    return save
