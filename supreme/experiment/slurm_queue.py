"""SLURM's queue: which task does which run, and where it stands."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supreme.errors import ConfigError
from supreme.experiment.store import Store, write_json

FOLDER = "slurm"
_TASKS = "tasks.json"
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "CONFIGURING")

State = Literal["waiting", "running", "gone", "unknown"]


@dataclass(frozen=True)
class SlurmTask:
    """A task of a run, and where it stands.

    Attributes:
        number: number that SLURM gave it, for example ``"123_4"``.
        state: ``"gone"`` when SLURM knows nothing of it any more, ``"unknown"`` where SLURM cannot be asked.
        stage: key of the run's last stage when the task was submitted.
        log: where it prints.
    """

    number: str
    state: State
    stage: str
    log: Path


def tasks(store: Store) -> dict[str, SlurmTask]:
    """The last task of every run that was handed to SLURM: key of the run -> task.

    Args:
        store: where the plan's results are.
    """
    folder = store.root / FOLDER
    try:
        noted: dict[str, dict[str, tuple[str, str]]] = json.loads((folder / _TASKS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    found = {}
    for plan, numbers in noted.items():
        states = _states(job_name(plan))
        for key, (number, stage) in numbers.items():
            state: State = "unknown" if states is None else states.get(number, "gone")
            found[key] = SlurmTask(number, state, stage, folder / f"{number}_0_log.err")
    return found


def in_queue(states: Mapping[str, SlurmTask]) -> str:
    """Tasks that are in the queue, in words; "" without any.

    Example:
        >>> in_queue({"a": SlurmTask("7_0", "running", "", Path()), "b": SlurmTask("7_1", "gone", "", Path())})
        '1 running (array 7)'
    """
    alive = [task for task in states.values() if task.state in ("waiting", "running")]
    counts = Counter(task.state for task in alive)
    arrays = ", ".join(dict.fromkeys(array_of(task.number) for task in alive))
    shown = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"{shown} (array {arrays})" if shown else ""


def note(store: Store, plan: str, numbers: Mapping[str, tuple[str, str]]) -> None:
    """Remember which task does which run; what was noted before stays.

    Args:
        store: where the plan's results are.
        plan: name of the plan.
        numbers: key of a run -> number of its task and key of its last stage.
    """
    file = store.root / FOLDER / _TASKS
    try:
        noted = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        noted = {}
    write_json(file, {**noted, plan: {**noted.get(plan, {}), **numbers}})


def release(arrays: Sequence[str]) -> None:
    """Let tasks begin that were held back.

    Args:
        arrays: numbers of their arrays.

    Raises:
        ConfigError: if SLURM does not; they are cancelled then, as they are after Ctrl-C.
    """
    try:
        problem = _ask("scontrol", "release", *arrays)
    except KeyboardInterrupt:
        cancel(arrays)
        raise
    if problem:
        cancel(arrays)
        raise ConfigError(f"SLURM did not release the tasks: {problem}; they were cancelled, so start this again.")


def cancel(arrays: Sequence[str]) -> None:
    """Take arrays out of the queue.

    Args:
        arrays: their numbers; there may be none.

    Raises:
        ConfigError: if SLURM does not.
    """
    problem = _ask("scancel", *arrays) if arrays else ""
    if problem:
        names = " ".join(arrays)
        raise ConfigError(f"SLURM did not cancel the arrays {names}: {problem}; do it with 'scancel {names}'.")


def _ask(*command: str) -> str:
    """Run one of SLURM's commands; gives what is wrong, "" for nothing."""
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except subprocess.CalledProcessError as exc:
        lines: list[str] = exc.stderr.strip().splitlines()
        return lines[-1].rpartition("error: ")[2].rstrip(".") if lines else f"exit code {exc.returncode}"
    except (OSError, subprocess.SubprocessError) as exc:
        return str(exc)
    return ""


def _states(name: str) -> dict[str, State] | None:
    """Tasks of a name in the queue -> their state; None where SLURM cannot be asked."""
    command = ["squeue", "--noheader", "--array", f"--name={name}", "--format=%i %T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = [line.split() for line in done.stdout.splitlines()]
    return {pair[0]: "waiting" if pair[1] in _WAITING else "running" for pair in pairs if len(pair) == 2}


def largest_array() -> int:
    """How many tasks an array may have."""
    with suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True)  # noqa: S607
        found = re.search(r"MaxArraySize\s*=\s*(\d+)", shown.stdout)
        if found:
            return max(1, int(found[1]) - 1)
    return 1000


def job_name(plan: str) -> str:
    """Name of the tasks of a plan in the queue."""
    return f"supreme-{plan}"


def array_of(number: str) -> str:
    """Number of the array of a task."""
    return number.partition("_")[0]
