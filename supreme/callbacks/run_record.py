"""Record of what ran: configuration, versions, hardware, commit, times and results, as one JSON file."""

import contextlib
import json
import os
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from supreme.callbacks.description import describe, plain
from supreme.callbacks.environment import git_commit, hardware, versions
from supreme.callbacks.export_splits import output_folder
from supreme.errors import OutputError

SCHEMA = 1
_SETTINGS = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "limit_train_batches")


class RunRecord(Callback):
    """Writes ``run.json``: what ran, on what, from when to when, and what it cost.

    The status is ``"running"`` from set-up on, ``"done"`` at the end, and ``"failed"``, with type, message and
    traceback, after an exception; a run that was killed therefore stays ``"running"``. Rank 0 writes; another rank
    does so only when it fails first. The file is replaced in one step, so it is never half written.

    Args:
        folder: where the file goes; None is the trainer's log folder.

    Attributes:
        record: the content; None before set-up.

    Raises:
        OutputError: at set-up or at the end, if the file cannot be written.

    Example:
        >>> RunRecord("runs/one").folder
        'runs/one'
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = folder
        self.record: dict[str, Any] | None = None
        self._path = Path("run.json")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Describe the run and write it as running."""
        self._path = output_folder(trainer, self.folder) / "run.json"
        record = _opening(trainer, pl_module, stage)
        if trainer.is_global_zero:
            write_json(self._path, record)
        self.record = record

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the results of the callbacks beside."""
        if trainer.is_global_zero and self.record is not None:
            self.record |= _closing(trainer, "done")
            write_json(self._path, self.record)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the failure, unless another rank has written one; never hides the exception itself."""
        if self.record is None:
            return
        error = {
            "type": type(exception).__name__,
            "message": str(exception),
            "traceback": "".join(traceback.format_exception(type(exception), exception, exception.__traceback__)),
            "rank": trainer.global_rank,
        }
        self.record |= {**_closing(trainer, "failed"), "error": error}
        try:
            if trainer.world_size == 1 or _status(self._path) != "failed":
                write_json(self._path, self.record)
        except OSError as problem:
            rank_zero_warn(f"The failure of this run could not be recorded: {problem}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file in one step: readers see the old or the new content, never a part.

    Args:
        path: the file; its folder is made.
        content: JSON types only, without NaN.

    Raises:
        OutputError: if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OutputError(f"Cannot write {path}: {error.strerror}; choose a folder that can be written.") from error


def _opening(trainer: Any, module: LightningModule, stage: str) -> dict[str, Any]:
    datamodule = getattr(trainer, "datamodule", None)
    return {
        "schema": SCHEMA,
        "status": "running",
        "error": None,
        "stage": plain(stage),
        "module": describe(module),
        "network": plain(getattr(module, "model", None)),
        "datamodule": None if datamodule is None else describe(datamodule),
        "trainer": {name: plain(getattr(trainer, name, None)) for name in _SETTINGS},
        "config": _command_line(trainer),
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "fingerprint": getattr(getattr(datamodule, "dataset", None), "fingerprint", None),
        "resources": {},
        "versions": versions(),
        "hardware": hardware(trainer),
        "git_commit": git_commit(Path.cwd()),
        "started": _now(),
        "finished": None,
    }


def _closing(trainer: Any, status: str) -> dict[str, Any]:
    """Status, time and the results of all callbacks that have a method ``resources``."""
    found = [callback.resources() for callback in trainer.callbacks if hasattr(callback, "resources")]
    merged = {key: value for item in found for key, value in item.items()}
    return {"status": status, "finished": _now(), "resources": plain(merged)}


def _command_line(trainer: Any) -> Any:
    """The whole configuration when LightningCLI runs the trainer, as it saves it; else None."""
    for callback in trainer.callbacks:
        parser: Any = getattr(callback, "parser", None)
        config: Any = getattr(callback, "config", None)
        if hasattr(parser, "dump") and config is not None:
            return plain(json.loads(parser.dump(config, format="json", skip_none=False)))
    return None


def _status(path: Path) -> str | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content.get("status") if isinstance(content, dict) else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
