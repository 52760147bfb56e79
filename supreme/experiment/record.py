"""Records: one JSON file per run, made from the result of its evaluate stage or from a failure."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from supreme.experiment.plan import Run
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store, holds_json, write_json

SCHEMA = 1


def record_path(store: Store, run: Run) -> Path:
    """File of a run's record; it keeps its name when the configuration changes, so there is one per run."""
    return store.root / "records" / f"{run.key}.json"


def publish(store: Store, run: Run) -> None:
    """Write the record of a finished run, unless the one that is there says just what the store says.

    All of it is compared: a result that was computed again has the key of the one before. A result that another process
    is computing again at this moment is published by that one.

    Raises:
        OutputError: if it cannot be written.
    """
    path = record_path(store, run)
    with suppress(FileNotFoundError):
        description = store.description(run.stage)
        found = {name: description[name] for name in ("versions", "hardware", "started", "finished")}
        record = {**_head(run), "status": "done", "error": None, **found, **store.result(run.stage)}
        if not holds_json(path, record):
            write_json(path, record)


def publish_failure(store: Store, run: Run, failed: Stage, failure: Mapping[str, Any]) -> None:
    """Write that a run failed, because of one of its stages.

    Args:
        store: where to.
        run: the run.
        failed: the stage that failed.
        failure: what :meth:`Store.failure` says of it.
    """
    reason = why(run, failed, failure)
    error = {"type": failure["type"], "message": reason, "traceback": failure["traceback"]}
    outcome = {"status": "failed", "error": error, "metrics": {}, "finished": failure["finished"]}
    write_json(record_path(store, run), {**_head(run), **outcome})


def why(run: Run, failed: Stage, failure: Mapping[str, Any]) -> str:
    """Why a run has no result, in one sentence."""
    reason = str(failure["message"])
    return reason if failed == run.stage else f"'{failed.label}' failed: {reason}"


def withdraw(store: Store, run: Run) -> None:
    """Remove a record that another configuration or other code made; the stage's result stays in the store."""
    status, key = _state(store, run)
    if status and key != run.stage.key:
        record_path(store, run).unlink(missing_ok=True)


def _state(store: Store, run: Run) -> tuple[str, str]:
    """Status of the run's record and key of its evaluate stage; empty without a readable record."""
    try:
        record = json.loads(record_path(store, run).read_text(encoding="utf-8"))
        return str(record["status"]), str(record["stages"]["evaluate"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def _head(run: Run) -> dict[str, Any]:
    inputs = run.stage.inputs
    stages = {
        "train": inputs["original_outputs"].inputs["model"].key,
        "retrain": inputs["retrained"].key,
        "unlearn": inputs["unlearned"].key,
        "evaluate": run.stage.key,
    }
    if "importances" in inputs["unlearned"].inputs:
        stages["importances"] = inputs["unlearned"].inputs["importances"].key
    return {
        "schema": SCHEMA,
        "key": run.key,
        "plan": run.plan,
        "plan_hash": run.plan_hash,
        "run": run.identity,
        "method_arguments": dict(run.config["method"]["init_args"]),
        "config": run.config,
        "config_hash": run.config_hash,
        "stages": stages,
    }
