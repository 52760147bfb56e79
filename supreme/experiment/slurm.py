"""SLURM: a plan as an array of tasks, one per run. The tasks share stages through the store's leases.

A task is a scheduler of its own that does one run of the plan and nothing else, so M_o and M_r are made by the task
that comes first, and the others wait for it or do something else in the meantime. A task that runs out of time or is
preempted releases its leases and is put into the queue again.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from importlib import import_module
from io import StringIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from supreme.errors import ConfigError, OutputError
from supreme.experiment.plan import Plan, Run
from supreme.experiment.record import publish
from supreme.experiment.scheduler import EXECUTE, run_plan
from supreme.experiment.slurm_queue import FOLDER, array_of, cancel, job_name, largest_array, note, release, tasks
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store

DEFAULT_TIME = "24:00:00"
CUT_OFFS = 10  # a run has fewer stages, and each time one is finished at least, where the limit suffices for it
ON_NODES = "supreme.experiment.slurm_nodes:execute"
_MARKS = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class SlurmSettings:
    """What a task asks SLURM for.

    Args:
        partition: where to run; None is the cluster's default.
        account: who pays; None is the user's default.
        time: limit of a task as ``sbatch --time`` takes it, at least as long as the longest stage: a task that is cut
            off goes into the queue again, ten times at most, and begins the stage that it was at anew.
        nodes: machines of a task; None takes the plan's ``num_nodes``.
        gpus_per_node: GPUs of a task on each machine; None takes the plan's ``devices`` where it computes on GPUs.
        max_concurrent: tasks at a time; None leaves that to SLURM.

    Raises:
        ConfigError: if a number is too small or the time is none.

    Example:
        >>> SlurmSettings(time="2-12").minutes, SlurmSettings(time="1:30:01").minutes, SlurmSettings(time="45").minutes
        (3600, 91, 45)
    """

    partition: str | None = None
    account: str | None = None
    time: str = DEFAULT_TIME
    nodes: int | None = None
    gpus_per_node: int | None = None
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        """Refuse what sbatch would refuse, or take for something else."""
        for name, least in {"nodes": 1, "gpus_per_node": 0, "max_concurrent": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"Expected --slurm.{name} >= {least}, got {value}.")
        if self.minutes < 1:
            raise ConfigError(f"Expected --slurm.time of at least a minute, got '{self.time}'.")

    @property
    def minutes(self) -> int:
        """The time limit in minutes, rounded up."""
        found = _TIME.fullmatch(self.time.strip())
        if not found:
            raise ConfigError(
                f"Expected --slurm.time as minutes, hours:minutes:seconds or days-hours:minutes, got '{self.time}'."
            )
        parts = [int(part) for part in found["parts"].split(":")]
        if found["days"]:
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        else:
            hours, minutes, seconds = [(0, *parts, 0), (0, *parts), tuple(parts)][len(parts) - 1]
        return int(found["days"] or 0) * 1440 + hours * 60 + minutes + (seconds > 0)


@dataclass(frozen=True)
class Submission:
    """What was handed to SLURM.

    Attributes:
        jobs: numbers of the arrays.
        submitted: runs that got a task now.
        waiting: runs that have a task from before.
        done: runs that have their result.
    """

    jobs: tuple[str, ...]
    submitted: tuple[Run, ...]
    waiting: tuple[Run, ...]
    done: tuple[Run, ...]


class RunTask:
    """The work of one task: one run of a plan.

    Args:
        plan: the plan, with an absolute output folder.
        key: key of the run.
        track_evaluation: as in :func:`run_plan`.
        execute: dotted name of the executor of stages.
    """

    def __init__(self, plan: Plan, key: str, track_evaluation: bool = False, execute: str = EXECUTE) -> None:
        self.plan, self.key, self.track_evaluation, self.execute = plan, key, track_evaluation, execute

    def __call__(self) -> None:
        """Do the run.

        Raises:
            RuntimeError: if it has no result; SLURM then shows the task as failed.
        """
        for name in _MARKS:
            os.environ.pop(name, None)  # stages start their own ranks; Lightning must not take this process for one
        summary = run_plan(
            self.plan,
            self.execute,
            only=f"key={self.key}",
            apart=True,
            track_evaluation=self.track_evaluation,
        )
        for failed in summary.failed:
            raise RuntimeError(f"{failed.run.label}: {failed.reason}")

    def checkpoint(self, *arguments: Any, **named: Any) -> Any:
        """What goes into the queue when the task is out of time or preempted: the same; finished stages stay."""
        return _submitit().helpers.DelayedSubmission(self, *arguments, **named)


def submit(
    plan: Plan,
    runs: Sequence[Run],
    settings: SlurmSettings,
    force: Iterable[Stage] = (),
    track_evaluation: bool = False,
    execute: str | None = None,
) -> Submission:
    """Hand every run that has no result and no task to SLURM.

    Args:
        plan: the plan, pinned.
        runs: those of its runs that are asked for.
        settings: what a task asks for.
        force: stages whose results are to be computed again.
        track_evaluation: as in :func:`run_plan`.
        execute: dotted name of the executor of stages; None takes the one that suits the number of machines.

    Raises:
        ConfigError: if submitit or SLURM is missing, the settings do not fit the plan, or SLURM refuses them; nothing
            has been written then, and nothing is in the queue. Also if SLURM does not release the tasks; they are
            cancelled then.
        OutputError: if the output folder cannot be written.
    """
    wanted = _requested(plan, settings)
    execute = execute or (ON_NODES if wanted["nodes"] > 1 else EXECUTE)
    root = plan.output.absolute()
    plan, forced = replace(plan, output=root), set(force)
    store = Store(root)
    known = tasks(store)
    done = [run for run in runs if run.stage not in forced and store.has(run.stage)]
    queued = {key for key, task in known.items() if task.state in ("waiting", "running")}
    waiting = [run for run in runs if run.key in queued and run not in done]
    due = _spread([run for run in runs if run not in waiting and run not in done])
    for run in done:
        publish(store, run)  # its task may be about to
    if not due:
        return Submission((), (), tuple(waiting), tuple(done))
    with _undone_on_failure(root) as arrays:
        store.open().save_plan(plan.name, plan.content)
        executor = _executor(root / FOLDER)
        # Held back until all are in the queue and noted, and nothing is left that they are to compute again.
        executor.update_parameters(name=job_name(plan.name), **wanted, slurm_additional_parameters={"hold": True})
        jobs: list[Any] = []
        for some in _chunks(due, largest_array()):
            if arrays:  # one array after the other, so that the limit of tasks at a time holds for all
                executor.update_parameters(slurm_dependency=f"afterany:{arrays[-1]}")
            jobs += _hand_in(executor, [RunTask(plan, run.key, track_evaluation, execute) for run in some])
            arrays.append(array_of(jobs[-1].job_id))
        numbers = {run.key: (str(job.job_id), run.stage.key) for run, job in zip(due, jobs, strict=True)}
        note(store, plan.name, numbers)
        for stage in forced:
            store.discard(stage)
    release(arrays)
    return Submission(tuple(arrays), tuple(due), tuple(waiting), tuple(done))


def _requested(plan: Plan, settings: SlurmSettings) -> dict[str, Any]:
    """The parameters of the executor.

    Raises:
        ConfigError: if tasks would get other devices than the plan uses.
    """
    devices, nodes = plan.trainer["devices"], int(plan.trainer.get("num_nodes") or 1)
    if settings.nodes not in (None, nodes):
        raise ConfigError(
            f"Expected --slurm.nodes {nodes}, as 'trainer: num_nodes' of the plan says, got {settings.nodes}; "
            "correct one of them."
        )
    gpus = settings.gpus_per_node
    several = int(devices) if str(devices).isdigit() else None
    if nodes > 1 and several is None:
        raise ConfigError(f"Expected a number of 'trainer: devices' for {nodes} nodes, got {devices!r}.")
    on_gpus = str(plan.trainer["accelerator"]) in ("gpu", "cuda")
    if gpus is None and on_gpus:
        gpus = several
    if on_gpus and several is not None and gpus is not None and gpus < several:
        raise ConfigError(
            f"Expected --slurm.gpus_per_node of at least {several}, as 'trainer: devices' of the plan says, got {gpus}."
        )
    wanted = {
        "timeout_min": settings.minutes,
        "nodes": nodes,
        "cpus_per_task": plan.threads * (1 if on_gpus or several is None else several),
        "gpus_per_node": gpus or None,
        "slurm_partition": settings.partition,
        "slurm_account": settings.account,
        "slurm_array_parallelism": settings.max_concurrent or largest_array(),
        "slurm_srun_args": ["--nodes=1", "--ntasks=1", "--overlap"] if nodes > 1 else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _submitit() -> Any:
    try:
        return import_module("submitit")
    except ModuleNotFoundError:
        raise ConfigError(
            "The launcher slurm needs submitit, which is not installed; pip install 'supreme-lightning[slurm]'."
        ) from None


def _executor(folder: Path) -> Any:
    """What hands tasks to SLURM."""
    submitit = _submitit()
    if shutil.which("sbatch") is None:
        raise ConfigError("There is no 'sbatch' on this machine; start this on a login node of a SLURM cluster.")
    return submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=CUT_OFFS)


def _hand_in(executor: Any, work: Sequence[RunTask]) -> list[Any]:
    """Submit tasks as one array.

    Raises:
        ConfigError: if SLURM refuses them.
    """
    try:
        with redirect_stderr(StringIO()), executor.batch():
            jobs = [executor.submit(task) for task in work]
    except (RuntimeError, subprocess.CalledProcessError) as exc:
        lines = [line.rpartition("error: ")[2] for line in str(exc).splitlines() if line.strip()]
        reason = lines[-1].rstrip(".") if lines else "without a reason"
        raise ConfigError(
            f"SLURM refused the tasks: {reason}; correct the --slurm options, or hand in fewer runs with --only."
        ) from exc
    return jobs


def _spread(runs: Sequence[Run]) -> list[Run]:
    """The runs in an order in which neighbours wait for different models, as SLURM starts tasks in order."""
    groups: dict[tuple[Stage, ...], list[Run]] = {}
    for run in runs:
        shared = tuple(stage for stage in run.stages() if stage.kind == "train")
        groups.setdefault(shared, []).append(run)
    rounds = zip_longest(*groups.values())
    return [run for run in chain.from_iterable(rounds) if run is not None]


def _chunks(runs: Sequence[Run], size: int) -> Iterator[Sequence[Run]]:
    return (runs[start : start + size] for start in range(0, len(runs), size))


@contextmanager
def _undone_on_failure(root: Path) -> Iterator[list[str]]:
    """Cancel what the block has submitted and remove what it has written if it does not get to its end.

    Args:
        root: the output folder.

    Yields:
        A list for the numbers of the arrays; their tasks must not have begun.

    Raises:
        ConfigError: if they cannot be cancelled; what they read stays then.
    """
    place = root
    while not place.parent.exists():
        place = place.parent
    fresh, folder = not place.exists(), root / FOLDER
    before = set(folder.iterdir()) if folder.is_dir() else set[Path]()
    arrays: list[str] = []
    try:
        yield arrays
    except (ConfigError, OutputError, KeyboardInterrupt):
        cancel(arrays)
        if fresh:
            shutil.rmtree(place, ignore_errors=True)
        elif folder.is_dir():
            for path in set(folder.iterdir()) - before:
                path.unlink(missing_ok=True)
        raise
