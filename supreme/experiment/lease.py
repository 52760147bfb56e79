"""Leases: who works on what, on one machine or on several that share a folder.

A lease is a file that is created exclusively (``O_EXCL``), so exactly one process gets it; no file locks are used, as
shared file systems do not keep them. A thread renews its time stamp every 15 seconds. It is stale after 5 minutes
without renewal, or at once when its process on this host is dead. Taking over means creating the file of the next
generation, again exclusively, so two that notice the same stale lease cannot both get it.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

HEARTBEAT_S = 15.0
STALE_S = 300.0


class Lease:
    """A lease that this process holds, until :meth:`release`."""

    def __init__(self, owner: "Leases", key: str, generation: int) -> None:
        self.key = key
        self.path = owner.file(key, generation)
        self._owner = owner
        self._generation = generation

    def release(self) -> None:
        """Give the work free; a second call does nothing."""
        self._owner.drop(self)
        for generation in range(self._generation + 1):
            self._owner.file(self.key, generation).unlink(missing_ok=True)


class Leases:
    """All leases in one folder.

    Args:
        folder: where the lease files are; it must exist before :meth:`acquire`.
        heartbeat_s: seconds between renewals.
        stale_s: seconds without renewal after which a lease may be taken over.
    """

    def __init__(self, folder: Path, heartbeat_s: float = HEARTBEAT_S, stale_s: float = STALE_S) -> None:
        self.folder = folder
        self.heartbeat_s, self.stale_s = heartbeat_s, stale_s
        self._held: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    def file(self, key: str, generation: int) -> Path:
        """File of a lease; a take-over has the next generation."""
        return self.folder / f"{key}.{generation}"

    def acquire(self, key: str, label: str = "") -> Lease | None:
        """Take a lease that is free or stale.

        Args:
            key: what is to be worked on.
            label: the same in words, for those who wait.

        Returns:
            The lease, or None when another process has it.
        """
        while True:
            last = max(self._generations(key), default=-1)
            if last >= 0 and self._live(self.file(key, last), self._now()) is not None:
                return None
            lease = Lease(self, key, last + 1)
            if not _create(lease.path, {**_identity(), "label": label, "started": time.time()}):
                return None
            if last >= 0 and not self.file(key, last).exists():
                lease.path.unlink(missing_ok=True)  # its holder was alive after all and has just ended
                continue
            self._keep(lease)
            return lease

    def holder(self, key: str) -> Mapping[str, Any] | None:
        """Who holds a lease (host, pid, label, start), None when it is free or stale."""
        last = max(self._generations(key), default=-1)
        return None if last < 0 else self._live(self.file(key, last), time.time())

    def active(self) -> dict[str, Mapping[str, Any]]:
        """Every lease that is held by a living process: key -> holder."""
        latest: dict[str, int] = {}
        for key, generation in self._files():
            latest[key] = max(generation, latest.get(key, 0))
        holders = {key: self._live(self.file(key, latest[key]), time.time()) for key in sorted(latest)}
        return {key: holder for key, holder in holders.items() if holder is not None}

    def sweep(self) -> None:
        """Remove what the dead left; each lease is taken first, so that nobody else's can go."""
        for key in {key for key, _ in self._files()} - self.active().keys():
            lease = self.acquire(key)
            if lease is not None:
                lease.release()

    def release_all(self) -> None:
        """Release every lease that this process holds."""
        for lease in list(self._held):
            lease.release()

    def drop(self, lease: Lease) -> None:
        """Stop renewing a lease; the renewing thread ends with the last one."""
        with self._lock:
            self._held.discard(lease)
            if not self._held:
                self._wake.set()
                self._thread = None

    def _keep(self, lease: Lease) -> None:
        with self._lock:
            self._held.add(lease)
            if self._thread is None:
                self._wake = threading.Event()
                arguments = (self._wake,)
                self._thread = threading.Thread(target=self._renew, args=arguments, name="leases", daemon=True)
                self._thread.start()

    def _renew(self, wake: threading.Event) -> None:
        while not wake.wait(self.heartbeat_s):
            with self._lock:
                held = list(self._held)
            for lease in held:
                with suppress(OSError):  # taken over or removed: whoever did it knows
                    os.utime(lease.path)

    def _files(self) -> list[tuple[str, int]]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - names alone, many times a second
        except OSError:
            return []
        pairs = [name.rsplit(".", 1) for name in names if not name.startswith(".")]
        return [(pair[0], int(pair[1])) for pair in pairs if len(pair) == 2 and pair[1].isdigit()]

    def _generations(self, key: str) -> list[int]:
        return [generation for name, generation in self._files() if name == key]

    def _live(self, path: Path, now: float) -> Mapping[str, Any] | None:
        """What a lease says, None when it is stale or gone."""
        try:
            age = now - path.stat().st_mtime
            text = path.read_text(encoding="utf-8")
        except OSError:
            return None
        if age > self.stale_s:
            return None
        try:
            holder: dict[str, Any] = json.loads(text)
        except ValueError:
            return {"host": "", "pid": 0, "label": ""}  # created this moment, not yet written
        same_host = holder.get("host") == host_name()
        return None if same_host and not process_lives(holder["pid"], holder["created"]) else holder

    def _now(self) -> float:
        """Time by the clock of the file system, which is not always this machine's."""
        clock = self.folder / ".clock"
        try:
            clock.touch()
            return clock.stat().st_mtime
        except OSError:
            return time.time()


def process_lives(pid: int, created: float | None = None) -> bool:
    """Whether a process of this host is running, and is the same that was meant.

    Args:
        pid: its number.
        created: when it was started; None accepts any process of that number.

    Example:
        >>> process_lives(os.getpid())
        True
    """
    import psutil

    try:
        process = psutil.Process(pid)
        started, status = process.create_time(), process.status()
    except psutil.Error:
        return False
    return status != psutil.STATUS_ZOMBIE and (created is None or abs(started - created) < 2.0)


def _identity() -> dict[str, Any]:
    return {"host": host_name(), "pid": os.getpid(), "created": _created(os.getpid())}


@lru_cache(maxsize=8)
def _created(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).create_time())


@lru_cache(maxsize=1)
def host_name() -> str:
    """Name of the space that process numbers belong to: the machine, and on Linux the container.

    Example:
        >>> host_name().startswith(socket.gethostname())
        True
    """
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def _create(path: Path, content: Mapping[str, Any]) -> bool:
    """Create a file that must not exist; False when it does."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, json.dumps(content).encode())
    finally:
        os.close(descriptor)
    return True
