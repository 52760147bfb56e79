"""Work that one process does for all: a lock file that works on shared file systems, and folders built once."""

import contextlib
import errno
import json
import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from supreme.errors import OutputError

STALE_S = 120.0  # longer than the minute for which NFS may show an old modification time
_BEAT_S = 10.0
_POLL_S = 0.05
_PATIENCE_S = 5.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, unless: Callable[[], bool] = lambda: False, stale_s: float = STALE_S) -> Iterator[bool]:
    """Hold a lock file for the length of the block; wait while another process holds it.

    A lock is stale, and is taken over, when its process on this machine has ended or its heartbeat has not moved for
    ``stale_s`` on the clock of the process that waits, so clocks need not agree. Whoever uses the lock must stay
    correct should two processes hold it, as after a long suspension: it saves work and guards nothing.

    Args:
        path: the lock file; its folder is created.
        unless: asked before every attempt; once true, the block runs without the lock.
        stale_s: seconds without a heartbeat after which a lock counts as left behind.

    Yields:
        Whether the lock is held.

    Raises:
        OutputError: if the folder cannot be written.
    """
    if unless():
        yield False
        return
    token = uuid.uuid4().hex
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _acquire(path, token, unless, stale_s)
    except OSError as error:
        raise OutputError(
            f"Expected a writable folder {path.parent}, got: {error.strerror or error}; set SUPREME_DATA or the "
            f"dataset's root to another one."
        ) from error
    if not held:
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True, name="supreme-lock")
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        if _owner(path).get("token") == token:
            path.unlink(missing_ok=True)


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Make a folder exist: built by one process in a temporary place, then renamed.

    Args:
        folder: the folder that is wanted.
        build: fills an empty folder given to it.

    Raises:
        OutputError: if the place cannot be written or the disk is full.
    """
    with locked(folder.with_name(folder.name + ".lock"), unless=folder.is_dir) as held:
        if not held or folder.is_dir():
            return
        for left in folder.parent.glob(f"{folder.name}.*.part"):
            shutil.rmtree(left, ignore_errors=True)
        part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.mkdir()
            build(part)
            _publish(part, folder)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise OutputError(
                f"Cannot write the image store {folder}: {error.strerror}; free space there or set SUPREME_DATA or "
                f"the dataset's root to another folder."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _acquire(path: Path, token: str, unless: Callable[[], bool], stale_s: float) -> bool:
    seen: tuple[str, int] | None = None
    start = since = time.monotonic()
    told = False
    while not unless():
        if _create(path, token):
            return True
        now = _pulse(path)
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > stale_s or _ended(_owner(path)):
            _remove(path, seen)
        if not told and time.monotonic() - start > _PATIENCE_S:
            told = True
            _log.warning("Waiting for process %s, which holds %s.", _owner(path).get("pid", "(unknown)"), path)
        time.sleep(_POLL_S)
    return False


def _create(path: Path, token: str) -> bool:
    """Create the lock file if there is none."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    owner = {"token": token, "machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}
    with os.fdopen(handle, "w") as file:
        json.dump(owner, file)
    return True


def _owner(path: Path) -> dict[str, Any]:
    """What the lock file says about its owner; empty while it is being written or when it is gone."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _pulse(path: Path) -> tuple[str, int]:
    """Owner and last heartbeat."""
    try:
        return str(_owner(path).get("token", "")), path.stat().st_mtime_ns
    except OSError:
        return "", 0


def _ended(owner: dict[str, Any]) -> bool:
    """Whether the owner is known to be a process of this machine that has ended."""
    if owner.get("machine") != _machine():
        return False
    started = _started(int(owner["pid"]))
    return started is None or abs(started - float(owner["started"] or started)) > 2.0


def _machine() -> str:
    """Name of this machine; on Linux also its boot and process namespace, as containers may share a host name."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
    except psutil.Error:
        return 0.0


def _remove(path: Path, seen: tuple[str, int] | None) -> None:
    """Remove a stale lock unless it has changed hands or moved since it was last looked at."""
    if seen == _pulse(path):
        path.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)


def _publish(part: Path, folder: Path) -> None:
    """Bring every byte to disk, then rename; another process may have been faster."""
    for file in part.iterdir():
        with file.open("r+b") as handle:
            os.fsync(handle.fileno())
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
