"""Store: the output folder of a plan. A result is there whole or not at all.

::

    <root>/stages/<kind>/<key>/   the files of a stage's result and stage.json
    <root>/leases/                who works on what
    <root>/failures/<key>.json    why a stage failed the last time
    <root>/records/<key>.json     one record per run
    <root>/logs/                  what stages in worker processes printed
    <root>/plans/<name>.yaml      the plans that were run here
"""

import errno
import json
import os
import platform
import secrets
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from supreme.callbacks.environment import hardware, versions
from supreme.errors import OutputError, SupremeError
from supreme.experiment.lease import Leases, host_name, process_lives
from supreme.experiment.stage import Stage

STAGE_FILE = "stage.json"
RESULT_FILE = "result.json"
_versions = lru_cache(maxsize=1)(versions)
_FOLDERS = ("stages", "leases", "failures", "records", "logs", "plans")

Writer = Callable[[Path], Mapping[str, Any] | None]


class Store:
    """Results, failures, leases and records below one folder.

    Creating a store writes nothing; :meth:`open` does.

    Args:
        root: the output folder.
        workers: how many stages the scheduler runs at a time on this machine.
    """

    def __init__(self, root: str | Path, workers: int = 1) -> None:
        self.root = Path(root)
        self.workers = workers
        self.leases = Leases(self.root / "leases")
        self._began: dict[str, float] = {}

    def open(self) -> "Store":
        """Make the folders, and :meth:`sweep`.

        Raises:
            OutputError: if that is not possible; nothing has been written then.
        """
        try:
            for name in _FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe-{secrets.token_hex(4)}"
            probe.touch()
            probe.unlink()
        except OSError as exc:
            reason = exc.strerror or exc
            raise OutputError(f"Cannot write results to '{self.root}': {reason}; choose another output.") from exc
        self.sweep()
        return self

    def sweep(self) -> None:
        """Remove what killed processes of this host left half-written."""
        for folder in self.root.glob("stages/*/.*.*.*"):
            _, _, host, pid, *_ = folder.name.split(".")
            if host == _host_digest() and pid.isdigit() and not process_lives(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def contended(self) -> bool:
        """Whether stages share this machine: several workers, or leases of another process."""
        here = [holder for holder in self.leases.active().values() if holder["host"] == host_name()]
        return self.workers > 1 or len(here) > 1

    def save_plan(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a plan beside its results, so that the folder alone tells its state."""
        path = self.root / "plans" / f"{name}.yaml"
        text = yaml.safe_dump({**content, "name": name}, sort_keys=False)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            _write_text(path, text)

    def plans(self) -> list[Path]:
        """The plans that were run here."""
        return sorted((self.root / "plans").glob("*.yaml"))

    # --- results

    def path(self, stage: Stage) -> Path:
        """Folder of a stage's result."""
        return self.root / "stages" / stage.kind / stage.key

    def has(self, stage: Stage) -> bool:
        """Whether a stage's result is there, and whole."""
        folder = self.path(stage)
        return (folder / STAGE_FILE).is_file() and (stage.kind != "evaluate" or (folder / RESULT_FILE).is_file())

    def begin(self, stage: Stage) -> None:
        """Start the clock of a stage; :meth:`commit` stops it."""
        self._began[stage.key] = time.time()

    def commit(self, stage: Stage, writer: Writer) -> Path:
        """Write a stage's result: all of it, or nothing.

        Args:
            stage: the stage.
            writer: fills the folder that it is given; what it returns is added to ``stage.json``, ``hardware`` and
                ``versions`` being merged with those found here. The result of ``evaluate`` stages is the file
                ``result.json``.

        Returns:
            The folder of the result.

        Raises:
            OutputError: if the result cannot be written.
        """
        folder, started = self.path(stage), self._began.pop(stage.key, time.time())
        temporary = folder.with_name(f".{stage.key}.{_host_digest()}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with _output_errors(temporary):
                temporary.mkdir(parents=True)
            extra = dict(writer(temporary) or {})
            with _output_errors(temporary):
                text = _json(self._description(stage, started, extra))
                (temporary / STAGE_FILE).write_text(text, encoding="utf-8")
                _flush(temporary)
                self._install(stage, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._failure_path(stage).unlink(missing_ok=True)
        return folder

    def description(self, stage: Stage) -> dict[str, Any]:
        """What ``stage.json`` says: configuration, versions, hardware, times."""
        return _read_json(self.path(stage) / STAGE_FILE)

    def result(self, stage: Stage) -> dict[str, Any]:
        """What ``result.json`` of an evaluate stage says."""
        return _read_json(self.path(stage) / RESULT_FILE)

    def discard(self, stage: Stage) -> None:
        """Remove a stage's result, so that it is computed again."""
        folder = self.path(stage)
        doomed = folder.with_name(f".{stage.key}.{_host_digest()}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            folder.rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    @contextmanager
    def claim(self, stage: Stage) -> Iterator[bool]:
        """Work on a stage alone: gives True, or False when another process works on it."""
        lease = self.leases.acquire(stage.key, stage.label)
        try:
            yield lease is not None
        finally:
            if lease is not None:
                lease.release()

    # --- failures

    def fail(self, stage: Stage, exc: BaseException | str) -> str:
        """Note that a stage failed, and why; never a result.

        Args:
            stage: the stage.
            exc: what it raised, or what happened to its process.

        Returns:
            The reason in one sentence.
        """
        self._began.pop(stage.key, None)
        kind = type(exc).__name__ if isinstance(exc, BaseException) else "WorkerDied"
        reason = str(exc) if isinstance(exc, SupremeError | str) else f"{kind}: {exc}".rstrip(": ")
        lines = traceback.format_exception(exc) if isinstance(exc, BaseException) else []
        content = {
            **_head(stage),
            "type": kind,
            "message": reason,
            "traceback": "".join(lines),
            "finished": _stamp(time.time()),
        }
        write_json(self._failure_path(stage), content)
        return reason

    def failure(self, stage: Stage) -> dict[str, Any] | None:
        """Why a stage failed the last time, None when it did not."""
        try:
            return _read_json(self._failure_path(stage))
        except FileNotFoundError:
            return None

    def failed_keys(self) -> set[str]:
        """Keys of the stages that failed the last time."""
        return {path.stem for path in (self.root / "failures").glob("*.json")}

    def failure_mark(self, stage: Stage) -> int:
        """A number that changes with every failure of a stage."""
        try:
            return self._failure_path(stage).stat().st_mtime_ns
        except OSError:
            return 0

    def log(self, stage: Stage) -> Path:
        """File for what a stage prints in a worker process."""
        return self.root / "logs" / f"{stage.kind}-{stage.key}.log"

    def _failure_path(self, stage: Stage) -> Path:
        return self.root / "failures" / f"{stage.key}.json"

    def _description(self, stage: Stage, started: float, extra: dict[str, Any]) -> dict[str, Any]:
        finished = time.time()
        return {
            **_head(stage),
            "inputs": {role: source.key for role, source in stage.inputs.items()},
            "started": _stamp(started),
            "finished": _stamp(finished),
            "seconds": finished - started,
            **extra,
            "versions": {**_versions(), **extra.get("versions", {})},
            "hardware": {**_hardware(), **extra.get("hardware", {})},
        }

    def _install(self, stage: Stage, temporary: Path) -> None:
        """Rename a complete folder into place; a complete one that is already there stays."""
        folder = self.path(stage)
        try:
            temporary.rename(folder)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self.has(stage):
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                self.discard(stage)  # a folder without stage.json is no result
                temporary.rename(folder)


def _head(stage: Stage) -> dict[str, Any]:
    return {"schema": 1, "kind": stage.kind, "key": stage.key, "label": stage.label, "config": stage.config}


def _hardware() -> dict[str, Any]:
    """What results are made on; while nothing has imported torch, this does not either and names the host only."""
    return hardware() if "torch" in sys.modules else {"host": platform.node()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    _write_text(path, _json(content))


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with _output_errors(path):
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(f"Cannot write '{path}': {exc.strerror or exc}; free space or correct its rights.") from exc


def _flush(folder: Path) -> None:
    """Have every file of a folder on the disk before the folder gets its name."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def _host_digest() -> str:
    return sha256(host_name().encode()).hexdigest()[:8]
