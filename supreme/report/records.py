"""Records of runs: read the JSON files, check them, and lay them out as one data frame."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from supreme.errors import DataError
from supreme.experiment.run_columns import DRAW
from supreme.report.columns import in_order
from supreme.report.present import present

SCHEMA = 1
NOT_APPLICABLE = "not_applicable"
SEEDS = ("training_seed", "unlearning_seed", "evaluation_seed")
RUN = ("dataset", "model", "scenario", "target", "method", "variant", *SEEDS)
STATE = ("status", "error_type", "error_message", "contended", "superseded", "notes")
ORIGIN = ("hardware", "versions", "plan", "key", "config_hash", "fingerprint", "git_commit", "started", "finished")
FIELDS = (*RUN, *STATE, *ORIGIN)
MAPPINGS = ("error", "metrics", "hardware", "versions", "stages", "method_arguments", "config", "scenario_sizes")


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Read the records below ``path`` that are of the plans in ``plans`` beside them, sorted by file name.

    Records of runs that none of those plans asks for now, in its present settings, are left out and named in the
    ``notes`` of the others; see :func:`supreme.report.present.present`.

    Args:
        path: the output folder of a plan (with a folder ``records`` inside) or a folder of records.

    Returns:
        One dictionary per record.

    Raises:
        DataError: if there is no record, or one is not readable as a record; the text names the file.
    """
    folder = _folder(path)
    return present(every_record(path), folder.parent if folder.name == "records" else folder)


def every_record(path: str | Path) -> list[dict[str, Any]]:
    """Read every record below ``path``, of whatever plan, sorted by file name.

    Args:
        path: as for :func:`read_records`.

    Raises:
        DataError: as :func:`read_records`.
    """
    folder = _folder(path)
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise DataError(f"Expected records (*.json) in '{folder}', found none; give the output folder of a plan.")
    return [_read(file) for file in files]


def _folder(path: str | Path) -> Path:
    """Where the records are."""
    inside = Path(path) / "records"
    return inside if inside.is_dir() else Path(path)


def frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per record, in the given order: the run's fields, its state and origin, then its metrics.

    A run that was recorded twice (for example before and after a changed setting) counts once: ``superseded`` is True
    in every row but the one that finished last.

    Args:
        records: dictionaries as :func:`read_records` gives them.

    Returns:
        A frame whose columns are ``FIELDS``, ``DRAW`` where runs drew their samples, and then the metric keys, those of
        the tables first; a metric that a run does not have is NaN.
    """
    rows = [_row(record) for record in records]
    for row, superseded in zip(rows, _superseded(rows), strict=True):
        row["superseded"] = superseded
    drawn = [DRAW] if any(row[DRAW] is not None for row in rows) else []
    metrics = in_order({name for row in rows for name in row if name not in (*FIELDS, DRAW)})
    data = pd.DataFrame(rows, columns=[*FIELDS, *drawn, *metrics])
    return data.astype(dict.fromkeys(metrics, "float64") | dict.fromkeys(drawn, "Int64"))


def metric_names(data: pd.DataFrame) -> list[str]:
    """The metric columns of a frame."""
    return [name for name in data.columns if name not in (*FIELDS, DRAW)]


def metric_name(key: str) -> str:
    """Column name of a metric key; a key that is also a run field gets a prefix."""
    return f"metrics.{key}" if key in (*FIELDS, DRAW) else key


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    error = record.get("error") or {}
    row: dict[str, Any] = {name: record["run"][name] for name in RUN} | {DRAW: record["run"].get(DRAW)}
    row |= {name: str(record.get(name) or "") for name in ORIGIN}
    row |= {name: describe(record.get(name) or {}) for name in ("hardware", "versions")}
    row |= {"status": record["status"], "contended": bool(record.get("contended"))}
    row["notes"] = "\n".join(map(str, record.get("notes") or ()))
    row |= {"error_type": str(error.get("type") or ""), "error_message": str(error.get("message") or "")}
    metrics = record.get("metrics") or {}
    return row | {metric_name(key): value for key, value in metrics.items() if value is not None}


def describe(values: Mapping[str, Any]) -> str:
    """Plain values in one line.

    Example:
        >>> describe({"accelerator": "cpu", "devices": 1})
        'accelerator cpu, devices 1'
    """
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _superseded(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether a later record of the same run exists."""
    latest: dict[tuple[Any, ...], tuple[str, str, int]] = {}
    stamps = [(str(row["finished"]), str(row["started"]), number) for number, row in enumerate(rows)]
    names = [tuple(row[name] for name in (*RUN, DRAW)) for row in rows]
    for name, stamp in zip(names, stamps, strict=True):
        latest[name] = max(stamp, latest.get(name, stamp))
    return [latest[name] != stamp for name, stamp in zip(names, stamps, strict=True)]


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        text = f"Record '{file}' is not readable as JSON ({error}); delete it and run its plan again."
        raise DataError(text) from None
    fault = next(_faults(record), "")
    if fault:
        raise DataError(f"Record '{file}' {fault}; delete it and run its plan again.")
    return dict(record)


def _faults(record: Any) -> Iterator[str]:
    """What is wrong with a record, as ends of the sentence that begins with its name."""
    if not isinstance(record, dict):
        yield "is not a JSON object"
        return
    if record.get("schema") != SCHEMA:
        yield f"has schema {record.get('schema')!r} where {SCHEMA} was expected"
    run = record.get("run")
    for name in RUN:
        value = run.get(name) if isinstance(run, dict) else None
        if not isinstance(value, int if name in SEEDS else str) or isinstance(value, bool):
            yield f"has no usable run field '{name}' (got {value!r})"
    if not isinstance(record.get("status"), str):
        yield f"has no usable status (got {record.get('status')!r})"
    wrong = [name for name in MAPPINGS if not isinstance(record.get(name) or {}, dict)]
    if wrong:
        yield f"has a field '{wrong[0]}' that is not an object"
        return
    for key, value in (record.get("metrics") or {}).items():
        if not isinstance(value, (int, float, type(None))):
            yield f"has a metric '{key}' that is not a number (got {value!r})"
