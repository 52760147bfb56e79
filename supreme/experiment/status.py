"""Status: where a plan stands, read from its output folder only."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from supreme.callbacks.environment import versions
from supreme.errors import ConfigError
from supreme.experiment.costs import Costs
from supreme.experiment.pins import recall
from supreme.experiment.plan import NotApplicable, Plan, Run, load_plan
from supreme.experiment.progress import duration
from supreme.experiment.record import why
from supreme.experiment.slurm_queue import in_queue, tasks
from supreme.experiment.stage import KINDS, Kind, Stage
from supreme.experiment.store import Store

State = Literal["done", "running", "queued", "failed"]


@dataclass(frozen=True)
class StatusReport:
    """Where a plan stands.

    Attributes:
        plan: name of the plan.
        root: its output folder.
        done: runs with a result.
        running: runs that need a stage which is being computed.
        queued: runs that wait.
        failed: runs that failed the last time.
        reasons: key of a failed run -> why, in one sentence.
        stages: kind -> (stages with a result, all stages).
        working: what is being computed -> by whom.
        not_applicable: methods that the plan leaves out.
        other_versions: library -> its versions, other than the present one, that results were made with.
        seconds_left: estimate, with as many workers as there are now; None when too little is known.
        slurm: tasks in SLURM's queue, in words; "" without any.
    """

    plan: str
    root: Path
    done: tuple[Run, ...]
    running: tuple[Run, ...]
    queued: tuple[Run, ...]
    failed: tuple[Run, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    working: Mapping[str, str] = field(default_factory=dict)
    not_applicable: tuple[NotApplicable, ...] = ()
    other_versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds_left: float | None = None
    slurm: str = ""

    @property
    def runs(self) -> int:
        """Number of all runs."""
        return len(self.done) + len(self.running) + len(self.queued) + len(self.failed)

    @property
    def finished(self) -> bool:
        """Whether every run has ended, well or not."""
        return not self.running and not self.queued

    def lines(self) -> Iterator[str]:
        """The report as lines of text."""
        left = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} to go"
        yield (
            f"{self.plan} in {self.root}: {self.runs} runs: {len(self.done)} done, {len(self.running)} running, "
            f"{len(self.queued)} queued, {len(self.failed)} failed{left}"
        )
        yield "stages: " + ", ".join(f"{kind} {done}/{total}" for kind, (done, total) in self.stages.items())
        if self.slurm:
            yield f"SLURM tasks: {self.slurm}"
        yield from (f"running: {label} ({holder})" for label, holder in self.working.items())
        yield from (f"failed: {run.label}: {self.reasons[run.key]}" for run in self.failed)
        yield from (f"not applicable: {n.method} in {n.scenario}: {n.reason}" for n in self.not_applicable)
        for library, others in self.other_versions.items():
            here = versions().get(library, "none")
            yield f"versions: some results were made with {library} {', '.join(others)}; here it is {here}"


def status(root: str | Path, plan: Plan | None = None) -> StatusReport:
    """Where a plan stands.

    Args:
        root: output folder of the plan.
        plan: the plan; None takes the one that was last started there.

    Raises:
        ConfigError: if no plan was started there.

    Example:
        >>> status("no_such_folder")
        Traceback (most recent call last):
        supreme.errors.ConfigError: No plan was ever run in 'no_such_folder'; give the output folder of 'supreme run'.
    """
    return Watch(root, plan).report()


class Watch:
    """Looks at a plan again and again; what does not change is read once.

    Args:
        root: output folder of the plan.
        plan: the plan; None takes the one that was last started there.

    Raises:
        ConfigError: if no plan was started there.
    """

    def __init__(self, root: str | Path, plan: Plan | None = None) -> None:
        self.store = Store(root)
        self.plan = _last_plan(self.store) if plan is None else recall(plan, self.store)
        self.runs = self.plan.runs()
        self.stages = list(dict.fromkeys(stage for run in self.runs for stage in run.stages()))
        self._versions: dict[Stage, Mapping[str, str]] = {}

    def report(self) -> StatusReport:
        """Where the plan stands now."""
        snapshot = _Snapshot(self.store, self.stages)
        states: dict[State, list[Run]] = {"done": [], "running": [], "queued": [], "failed": []}
        for run in self.runs:
            states[snapshot.state(run)].append(run)
        unfinished = [*states["running"], *states["queued"]]
        waiting = {stage for run in unfinished for stage in run.stages() if stage not in snapshot.has}
        return StatusReport(
            plan=self.plan.name,
            root=self.store.root,
            done=tuple(states["done"]),
            running=tuple(states["running"]),
            queued=tuple(states["queued"]),
            failed=tuple(states["failed"]),
            reasons={run.key: why(run, *snapshot.cause(run)) for run in states["failed"]},
            stages={kind: snapshot.progress(found) for kind in KINDS if (found := self._of_kind(kind))},
            working={s.label: _holder(snapshot.active[s.key]) for s in self.stages if s.key in snapshot.active},
            not_applicable=tuple(self.plan.not_applicable()),
            other_versions=self._other_versions(snapshot.has),
            seconds_left=self._seconds_left(waiting, len(snapshot.active)) if waiting else None,
            slurm=in_queue(snapshot.tasks),
        )

    def _of_kind(self, kind: Kind) -> list[Stage]:
        return [stage for stage in self.stages if stage.kind == kind]

    def _seconds_left(self, waiting: Iterable[Stage], workers: int) -> float | None:
        costs = Costs()
        costs.learn(self.store, self.stages)
        return costs.left(Counter(stage.group for stage in waiting), max(1, workers))

    def _other_versions(self, stages: Iterable[Stage]) -> dict[str, tuple[str, ...]]:
        """Versions in the stages' descriptions that differ from those installed here."""
        here, others = versions(), dict[str, set[str]]()
        for stage in stages:
            if stage not in self._versions:
                found = self.store.description(stage)["versions"]
                self._versions[stage] = {name: text for name, text in found.items() if here.get(name) != text}
            for library, version in self._versions[stage].items():
                others.setdefault(library, set()).add(version)
        return {library: tuple(sorted(found)) for library, found in sorted(others.items())}


class _Snapshot:
    """The store at one moment."""

    def __init__(self, store: Store, stages: Collection[Stage]) -> None:
        self.store = store
        self.has = store.having(stages)
        self.active = store.leases.active()
        self.failed = store.failed_keys()
        self.tasks = tasks(store)

    def state(self, run: Run) -> State:
        if run.stage in self.has:
            return "done"
        task = self.tasks[run.key].state if run.key in self.tasks else "unknown"
        gone = task == "gone" and self.tasks[run.key].stage == run.stage.key
        missing = [stage for stage in run.stages() if stage not in self.has]
        if task == "waiting":
            return "queued"
        if task == "running" or any(stage.key in self.active for stage in missing):
            return "running"
        return "failed" if gone or any(stage.key in self.failed for stage in missing) else "queued"

    def progress(self, stages: Sequence[Stage]) -> tuple[int, int]:
        """How many stages were done, those whose weights were dropped since included, and how many there are."""
        done = sum(s in self.has or self.store.dropped(s) for s in stages)
        return done, len(stages)

    def cause(self, run: Run) -> tuple[Stage, Mapping[str, Any]]:
        """The first stage of a failed run that failed, and how; its task in SLURM where no stage did."""
        for stage in run.stages():
            if stage not in self.has and stage.key in self.failed:
                return stage, self.store.failure(stage) or {"message": "it has just been repaired"}
        task = self.tasks[run.key]
        text = f"SLURM ended its task {task.number} before there was a result (time, memory or scancel)"
        return run.stage, {"message": f"{text}; see '{task.log}', and start 'supreme run' again"}


def _last_plan(store: Store) -> Plan:
    files = sorted(store.plans(), key=lambda path: path.stat().st_mtime)
    if not files:
        raise ConfigError(f"No plan was ever run in '{store.root}'; give the output folder of 'supreme run'.")
    return load_plan(files[-1])


def _holder(lease: Mapping[str, Any]) -> str:
    return f"{str(lease['host']).partition(' ')[0]}, process {lease['pid']}"
