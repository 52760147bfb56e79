"""Scheduler: does every stage of a plan once, in an order that keeps the workers busy, whatever fails on the way."""

import heapq
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from supreme.errors import ConfigError
from supreme.experiment.checkpoints import Dropping
from supreme.experiment.costs import Costs
from supreme.experiment.lease import Lease
from supreme.experiment.plan import NotApplicable, Plan, Run
from supreme.experiment.progress import Counts, End, Progress
from supreme.experiment.record import publish, publish_failure, why, withdraw
from supreme.experiment.selection import select, select_stages
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store
from supreme.experiment.worker import Crew, InlineCrew, ProcessCrew

EXECUTE = "supreme.experiment.launchers:execute"
_POLL_S = 0.25


@dataclass(frozen=True)
class FailedRun:
    """A run without a result.

    Attributes:
        run: the run.
        stage: the stage that failed.
        reason: why, in one sentence.
        traceback: where in the code, "" when an error of this package tells it all.
    """

    run: Run
    stage: Stage
    reason: str
    traceback: str


@dataclass(frozen=True)
class Summary:
    """How a plan ended.

    Attributes:
        runs: number of runs.
        done: runs whose result was made now.
        reused: runs whose result was there before.
        failed: runs without a result.
        not_applicable: methods that the plan leaves out.
        stages_done: stages that were computed now, by this process.
        stages_reused: stages that were there before or were computed by another process.
        seconds: wall-clock time.
    """

    runs: int
    done: int
    reused: int
    failed: tuple[FailedRun, ...]
    not_applicable: tuple[NotApplicable, ...]
    stages_done: int
    stages_reused: int
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 when every run has a result, else 1."""
        return int(bool(self.failed))


def run_plan(
    plan: Plan,
    execute: str = EXECUTE,
    workers: int = 1,
    progress: Progress | None = None,
    only: str = "",
    force: str = "",
    gpus: Sequence[str] = (),
    track_evaluation: bool = False,
    apart: bool = False,
) -> Summary:
    """Do what a plan asks for and is not there yet.

    Several processes may run the same plan at once, also on several machines: they share the stages.

    Args:
        plan: the plan; one on images that may change is first given to :func:`supreme.experiment.pins.pin`.
        execute: dotted name of ``function(stage, store) -> None``.
        workers: stages at a time on this machine; 1 executes them in this process.
        progress: shows where it stands; None shows nothing.
        only: a selection of runs, for example ``"method=SSD,seed=260"``.
        force: a selection of stages to compute again, for example ``"stage=evaluate"``.
        gpus: accelerators to share out among the workers.
        track_evaluation: whether records say what each metric has cost; those that are there already stay as they are.
        apart: whether a single worker is a process of its own too, so that signals reach this process at once.

    Returns:
        What was done, what was there, and what failed.

    Raises:
        ConfigError: if there are no workers.
        UnknownNameError: if a selection names what is not in the plan.
        OutputError: if the output folder cannot be written; nothing has been written then.
        KeyboardInterrupt: on Ctrl-C or SIGTERM; all work has been stopped and all leases are released.
    """
    started = time.monotonic()
    if workers < 1:
        raise ConfigError(f"Expected at least one worker, got {workers}.")
    store = Store(plan.output, workers, track_evaluation).open()
    store.save_plan(plan.name, plan.content)
    everything = plan.runs()
    runs = select(everything, only)
    crew: Crew
    if workers == 1 and not apart:
        crew = InlineCrew(store, execute, plan.threads)
    else:
        crew = ProcessCrew(store, execute, plan.threads, workers, gpus)
    forced = select_stages(runs, force) if force else set()
    dropping = Dropping(store, everything if plan.checkpoints == "drop" else ())
    schedule = Schedule(runs, store, crew, workers, progress or Progress(), forced, dropping)
    with _interruptible():
        schedule.work()
    return schedule.summary(tuple(plan.not_applicable()), time.monotonic() - started)


class Schedule:
    """The state of a plan at work.

    Args:
        runs: the runs.
        store: where results are.
        crew: who executes stages.
        workers: how many at a time.
        progress: shows where it stands.
        forced: stages to compute again.
        dropping: removes checkpoints that the plan does not keep.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        store: Store,
        crew: Crew,
        workers: int,
        progress: Progress,
        forced: set[Stage],
        dropping: Dropping,
    ) -> None:
        self.dropping = dropping
        self.runs, self.store, self.crew, self.workers, self.progress = runs, store, crew, workers, progress
        self.forced = set(forced)
        self.costs = Costs()
        self.everything = list(dict.fromkeys(stage for run in runs for stage in run.stages()))
        self.open = needed(runs, store, self.forced)
        self.missing = {s: {i for i in s.inputs.values() if i in self.open} for s in self.open}
        self.readers: dict[Stage, list[Stage]] = {stage: [] for stage in self.open}
        for stage, inputs in self.missing.items():
            for source in inputs:
                self.readers[source].append(stage)
        self.marks = {stage: store.failure_mark(stage) for stage in self.open}
        self.failed: dict[Stage, tuple[Stage, dict[str, Any]]] = {}
        self.running: dict[Stage, tuple[int, Lease]] = {}
        self.elsewhere: list[Stage] = []
        self.total, self.computed, self.runs_failed, self.runs_left = len(self.open), 0, 0, 0
        self.groups = Counter(stage.group for stage in self.open)
        self.runs_of: dict[Stage, list[Run]] = {}
        for run in runs:
            self.runs_of.setdefault(run.stage, []).append(run)
            self.runs_left += run.stage in self.open
        self.before = len(runs) - self.runs_left

    def work(self) -> None:
        """Do everything; stops at once when interrupted."""
        self.costs.learn(self.store, self.everything)
        self._rank()
        self.progress.start(self.counts(), self.workers)
        try:
            for run in self.runs:
                withdraw(self.store, run)
                if run.stage not in self.open:
                    publish(self.store, run)
            self.dropping.everything(self.open)
            while self.open:
                self._hand_out()
                waiting = bool(self.elsewhere)
                for outcome in self.crew.collect(_POLL_S if waiting else None):
                    worker, lease = self.running.pop(outcome.stage)
                    if outcome.reason is None:
                        self.computed += 1
                        self.costs.observe(outcome.stage, outcome.seconds)
                    self._end(outcome.stage, worker, outcome.reason, outcome.seconds)
                    lease.release()
                self._look_elsewhere()
            self.dropping.everything(self.open)
        finally:
            self.crew.stop()
            self.store.leases.release_all()
            self.store.sweep()
            self.progress.stop()

    def counts(self) -> Counts:
        """Where it stands."""
        done = len(self.runs) - self.runs_left - self.runs_failed
        seconds = self.costs.left(self.groups, self.workers)
        return Counts(len(self.runs), done, self.runs_failed, self.total, len(self.open), seconds)

    def summary(self, not_applicable: tuple[NotApplicable, ...], seconds: float) -> Summary:
        """How it ended."""
        failed = []
        for run in self.runs:
            if run.stage in self.failed:
                cause, failure = self.failed[run.stage]
                failed.append(FailedRun(run, cause, why(run, cause, failure), str(failure["traceback"])))
        return Summary(
            runs=len(self.runs),
            done=len(self.runs) - self.before - len(failed),
            reused=self.before,
            failed=tuple(failed),
            not_applicable=not_applicable,
            stages_done=self.computed,
            stages_reused=len(self.everything) - self.computed - len(self.failed),
            seconds=seconds,
        )

    def _rank(self) -> None:
        """Put what is ready in a queue, the start of the longest chain of work first."""
        self.length: dict[Stage, float] = {}
        for stage in reversed(self.open):
            after = max((self.length[reader] for reader in self.readers[stage]), default=0.0)
            self.length[stage] = self.costs.estimate(stage) + after
        self.place = {stage: number for number, stage in enumerate(self.open)}
        self.queue: list[tuple[float, int, Stage]] = []
        for stage, inputs in self.missing.items():
            if not inputs:
                self._queue(stage)

    def _queue(self, stage: Stage) -> None:
        heapq.heappush(self.queue, (-self.length[stage], self.place[stage], stage))

    def _hand_out(self) -> None:
        """Give free workers what is ready and nobody else works on."""
        while self.queue and self.crew.free():
            stage = heapq.heappop(self.queue)[2]
            lease = self.store.leases.acquire(stage.key, stage.label)
            if lease is None:
                self.elsewhere.append(stage)
            elif self._settled(stage):
                lease.release()
            else:
                self._start(stage, lease)

    def _start(self, stage: Stage, lease: Lease) -> None:
        if stage in self.forced:
            self.forced.discard(stage)
            self.store.discard(stage)
        worker = self.crew.submit(stage)
        self.running[stage] = worker, lease
        self.progress.stage_started(worker, stage.label)

    def _look_elsewhere(self) -> None:
        """See what other processes have finished or given up."""
        waiting, self.elsewhere = self.elsewhere, []
        for stage in waiting:
            if self._settled(stage):
                continue
            if self.store.leases.holder(stage.key) is None:
                self._queue(stage)
            else:
                self.elsewhere.append(stage)

    def _settled(self, stage: Stage) -> bool:
        """Whether another process has done a stage or all that reads it, or tried and failed since this one began."""
        if stage not in self.forced and (self.store.has(stage) or not self._wanted(stage)):
            self._end(stage, None, None, 0.0)
        elif self.store.failure_mark(stage) != self.marks[stage]:
            self._end(stage, None, str((self.store.failure(stage) or {}).get("message", "")), 0.0)
        else:
            return False
        return True

    def _wanted(self, stage: Stage) -> bool:
        """Whether a run without a result still needs a stage that is not there: others drop what they have used."""
        lacking = (r for r in self.readers[stage] if r in self.open and (r in self.forced or not self.store.has(r)))
        return stage in self.runs_of or any(self._wanted(reader) for reader in lacking)

    def _end(self, stage: Stage, worker: int | None, reason: str | None, seconds: float) -> None:
        """Note how a stage ended, and what follows from it."""
        if reason is None:
            self._close(stage)
            for reader in self.readers[stage]:
                self.missing[reader].discard(stage)
                if not self.missing[reader] and reader in self.open:
                    self._queue(reader)
            for run in self.runs_of.get(stage, ()):
                publish(self.store, run)
            self.dropping.after(stage, self.open)
            self._show(stage, worker, "done" if worker is not None else "reused", seconds, "")
        else:
            failure = self.store.failure(stage) or {"type": "", "message": reason, "traceback": "", "finished": ""}
            self._fail(stage, stage, failure, worker, seconds)

    def _fail(self, stage: Stage, cause: Stage, failure: dict[str, Any], worker: int | None, seconds: float) -> None:
        self._close(stage)
        self.failed[stage] = cause, failure
        for run in self.runs_of.get(stage, ()):
            self.runs_failed += 1
            publish_failure(self.store, run, cause, failure)
        if stage == cause:
            self._show(stage, worker, "failed", seconds, str(failure["message"]))
        else:
            self._show(stage, None, "blocked", 0.0, f"'{cause.label}' failed")
        for reader in self.readers[stage]:
            if reader in self.open:
                self._fail(reader, cause, failure, None, 0.0)

    def _close(self, stage: Stage) -> None:
        """Take a stage out of what is to be done."""
        del self.open[stage]
        self.groups[stage.group] -= 1
        self.runs_left -= len(self.runs_of.get(stage, ()))

    def _show(self, stage: Stage, worker: int | None, end: End, seconds: float, reason: str) -> None:
        self.progress.stage_ended(worker, stage.label, end, seconds, reason, self.counts())


def needed(runs: Iterable[Run], store: Store, forced: Collection[Stage] = ()) -> dict[Stage, None]:
    """Stages without a result that a run without a result needs, inputs first.

    Args:
        runs: the runs.
        store: where results are.
        forced: stages to compute again.
    """
    found: dict[Stage, None] = {}

    def visit(stage: Stage) -> None:
        if stage not in found and (stage in forced or not store.has(stage)):
            for source in stage.inputs.values():
                visit(source)
            found[stage] = None

    for run in runs:
        visit(run.stage)
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
