import os
import platform
import subprocess
import sys
import time
from importlib import metadata

import lightning
import psutil
import pytest
import torch
from lightning.pytorch import Trainer

import supreme
from supreme.callbacks import environment, git_commit, hardware, versions


def git(folder, *words):
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("1")
    git(tmp_path, "add", ".")
    return tmp_path


def test_commit(repository):
    assert git_commit(repository) is None
    git(repository, "commit", "-q", "-m", "first")
    git(repository, "tag", "-a", "v1", "-m", "a tag must not replace the hash")
    head = git(repository, "rev-parse", "HEAD").strip()
    assert len(head) == 40
    assert (
        git_commit(repository) == git_commit(repository / "inner") == git_commit(repository / "inner" / "file") == head
    )


def test_changes_show(repository):
    git(repository, "commit", "-q", "-m", "first")
    head = git(repository, "rev-parse", "HEAD").strip()
    (repository / "untracked").write_text("2")
    assert git_commit(repository) == head
    (repository / "inner" / "file").write_text("2")
    assert git_commit(str(repository)) == f"{head}-dirty"


def test_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit(tmp_path) is None
    assert git_commit(tmp_path / "missing") is None


def test_without_git(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(repository) is None


def test_a_git_that_hangs_is_left_alone(repository, monkeypatch):
    """Also when a grandchild keeps the output open."""
    fake = repository / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho abc\nsleep 30\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(environment, "_TIMEOUT_S", 0.2)
    start = time.monotonic()
    assert git_commit(repository) is None
    assert time.monotonic() - start < 20


def test_versions():
    found = versions()
    assert found["supreme"] == supreme.__version__
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["lightning"] == lightning.__version__
    assert all(isinstance(value, str) for value in found.values())


def test_versions_without_an_optional_package(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "deepspeed":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "deepspeed" not in versions()


def test_versions_import_no_torch():
    code = (
        "import sys; from supreme.callbacks import versions, git_commit; versions(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


def test_hardware_without_a_trainer():
    found = hardware()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["memory_bytes"] == psutil.virtual_memory().total
    assert found["threads"] == torch.get_num_threads()
    assert found["cpu"]
    assert found["accelerator"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_hardware_of_a_trainer(kit):
    trainer = Trainer(**{**kit.QUIET, "precision": "bf16-mixed", "devices": 2, "num_nodes": 3, "strategy": "ddp"})
    found = hardware(trainer)
    assert (found["accelerator"], found["devices"], found["nodes"]) == ("cpu", 6, 3)
    assert (found["precision"], found["strategy"]) == ("bf16-mixed", "DDPStrategy")


def test_hardware_with_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Fake")
    found = hardware()
    assert (found["accelerator"], found["devices"], found["device"]) == ("cuda", 4, "NVIDIA Fake")
    assert found["cuda"] == torch.version.cuda


def test_name_of_the_processor_elsewhere(monkeypatch):
    monkeypatch.setattr(environment.Path, "exists", lambda self: False)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(environment, "_output", lambda command, folder: "Apple M9" if command[0] == "sysctl" else None)
    assert environment._cpu_name() == "Apple M9"
    monkeypatch.setattr(environment, "_output", lambda command, folder: None)
    assert environment._cpu_name() == (platform.processor() or platform.machine())
