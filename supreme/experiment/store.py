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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from supreme.callbacks.environment import hardware, versions
from supreme.errors import OutputError, SupremeError
from supreme.experiment.lease import STALE_S, Leases, host_name, process_lives
from supreme.experiment.stage import KINDS, Stage

STAGE_FILE = "stage.json"
DROPPED_FILE = "dropped.json"  # what stage.json becomes when the weights go
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
        track_evaluation: whether evaluations measure the time and memory of every metric.
    """

    def __init__(self, root: str | Path, workers: int = 1, track_evaluation: bool = False) -> None:
        self.root = Path(root)
        self.workers = workers
        self.track_evaluation = track_evaluation
        self.leases = Leases(self.root / "leases")
        self._began: dict[str, float] = {}
        self._stages = str(self.root / "stages")

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
        """Remove what killed processes left: their leases, and what those of this host left half-written."""
        self.leases.sweep()
        for folder, here in self.abandoned():
            if here:
                shutil.rmtree(folder, ignore_errors=True)

    def abandoned(self) -> Iterator[tuple[Path, bool]]:
        """Half-written folders of dead processes, and whether those were of this host.

        A process of another host counts as dead when nobody has held the stage's lease or written for five minutes.
        """
        active = self.leases.active()
        for folder in self.root.glob("stages/*/.*.*.*.*"):
            _, key, host, pid, *_ = folder.name.split(".")
            here = host == _host_digest()
            with suppress(OSError):
                if here and pid.isdigit() and not process_lives(int(pid)):
                    yield folder, True
                elif not here and key not in active and time.time() - folder.stat().st_mtime > STALE_S:
                    yield folder, False

    @property
    def contended(self) -> bool:
        """Whether stages share this machine: several workers, or leases of another process."""
        here = [holder for holder in self.leases.active().values() if holder["host"] == host_name()]
        return self.workers > 1 or len(here) > 1

    def save_plan(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a plan beside its results, so that the folder alone tells its state.

        The file's time of change is that of the plan's last start, also where the text stays as it was.
        """
        path = self.root / "plans" / f"{name}.yaml"
        text = yaml.safe_dump({**content, "name": name}, sort_keys=False)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            with _output_errors(path):
                os.utime(path)
        else:
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
        files = (STAGE_FILE, RESULT_FILE) if stage.kind == "evaluate" else (STAGE_FILE,)
        return all(os.path.isfile(self._file(stage, name)) for name in files)  # noqa: PTH113

    def having(self, stages: Iterable[Stage]) -> set[Stage]:
        """Those of many stages that have a result, found with one look at the folders."""
        present = {kind: _names(self.root / "stages" / kind) for kind in KINDS}
        return {stage for stage in stages if stage.key in present[stage.kind] and self.has(stage)}

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
        """What ``stage.json`` says, also of a dropped result: configuration, versions, hardware, times."""
        try:
            return read_json(self._file(stage, STAGE_FILE))
        except FileNotFoundError:
            return read_json(self._file(stage, DROPPED_FILE))

    def result(self, stage: Stage) -> dict[str, Any]:
        """What ``result.json`` of an evaluate stage says."""
        return read_json(self._file(stage, RESULT_FILE))

    def discard(self, stage: Stage) -> None:
        """Remove a stage's result, so that it is computed again."""
        with suppress(FileNotFoundError):
            self.remove(self.path(stage))

    def remove(self, folder: Path) -> None:
        """Remove a folder of a result; it is gone for others at once.

        Raises:
            FileNotFoundError: if it is not there.
            OSError: if it cannot be renamed.
        """
        key = folder.name.lstrip(".").partition(".")[0]
        doomed = folder.with_name(f".{key}.{_host_digest()}.{os.getpid()}.{secrets.token_hex(4)}")
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def drop(self, stage: Stage) -> None:
        """Remove the weights of a result and keep its description; whoever needs it computes it again."""
        folder = self.path(stage)
        with suppress(FileNotFoundError):
            (folder / STAGE_FILE).rename(folder / DROPPED_FILE)
        if self.dropped(stage):
            for weights in folder.glob("*.safetensors"):
                weights.unlink(missing_ok=True)

    def dropped(self, stage: Stage) -> bool:
        """Whether a stage had a result whose weights were dropped."""
        return os.path.isfile(self._file(stage, DROPPED_FILE)) and not self.has(stage)  # noqa: PTH113

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
            return read_json(self._failure_path(stage))
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

    def _file(self, stage: Stage, name: str) -> str:
        """A file of a result; a text, as there are tens of thousands of them."""
        return f"{self._stages}{os.sep}{stage.kind}{os.sep}{stage.key}{os.sep}{name}"

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


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names alone, of thousands of folders
    except OSError:
        return set()


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


def holds_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Whether a file says what :func:`write_json` would write."""
    try:
        return json.dumps(read_json(path)) == json.dumps(content)  # as text: NaN is not equal to itself
    except (OSError, ValueError):
        return False


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


def read_json(path: str | Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON.
    """
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as for Store._file
        content: dict[str, Any] = json.load(file)
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
