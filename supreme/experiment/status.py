"""Status: where a plan stands, read from its output folder only."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from supreme.experiment.stage import KINDS, Stage
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

    @property
    def runs(self) -> int:
        """Number of all runs."""
        return len(self.done) + len(self.running) + len(self.queued) + len(self.failed)

    def lines(self) -> Iterator[str]:
        """The report as lines of text."""
        left = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} to go"
        yield (
            f"{self.plan} in {self.root}: {self.runs} runs: {len(self.done)} done, {len(self.running)} running, "
            f"{len(self.queued)} queued, {len(self.failed)} failed{left}"
        )
        yield "stages: " + ", ".join(f"{kind} {done}/{total}" for kind, (done, total) in self.stages.items())
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
    store = Store(root)
    plan = _last_plan(store) if plan is None else recall(plan, store)
    runs = plan.runs()
    stages = {stage: None for run in runs for stage in run.stages()}
    snapshot = _Snapshot(store, stages)
    states = {run: snapshot.state(run) for run in runs}
    by_state = {state: tuple(run for run in runs if states[run] == state) for state in states.values()}
    costs = Costs()
    costs.learn(store, stages)
    waiting = {s for run in runs if states[run] in ("running", "queued") for s in run.stages() if s not in snapshot.has}
    groups = Counter(stage.group for stage in waiting)
    return StatusReport(
        plan=plan.name,
        root=store.root,
        done=by_state.get("done", ()),
        running=by_state.get("running", ()),
        queued=by_state.get("queued", ()),
        failed=by_state.get("failed", ()),
        reasons={run.key: why(run, *snapshot.cause(run)) for run in by_state.get("failed", ())},
        stages={kind: _progress(snapshot.has, [s for s in stages if s.kind == kind]) for kind in KINDS},
        working={s.label: _holder(snapshot.active[s.key]) for s in stages if s.key in snapshot.active},
        not_applicable=tuple(plan.not_applicable()),
        other_versions=_other_versions(store, snapshot.has),
        seconds_left=costs.left(groups, max(1, len(snapshot.active))) if waiting else None,
    )


class _Snapshot:
    """The store at one moment."""

    def __init__(self, store: Store, stages: Iterable[Stage]) -> None:
        self.store = store
        self.has = {stage for stage in stages if store.has(stage)}
        self.active = store.leases.active()
        self.failed = store.failed_keys()

    def state(self, run: Run) -> State:
        if run.stage in self.has:
            return "done"
        missing = [stage for stage in run.stages() if stage not in self.has]
        if any(stage.key in self.active for stage in missing):
            return "running"
        return "failed" if any(stage.key in self.failed for stage in missing) else "queued"

    def cause(self, run: Run) -> tuple[Stage, Mapping[str, Any]]:
        """The first stage of a failed run that failed, and how."""
        stage = next(stage for stage in run.stages() if stage not in self.has and stage.key in self.failed)
        return stage, self.store.failure(stage) or {"message": "it has just been repaired"}


def _last_plan(store: Store) -> Plan:
    files = sorted(store.plans(), key=lambda path: path.stat().st_mtime)
    if not files:
        raise ConfigError(f"No plan was ever run in '{store.root}'; give the output folder of 'supreme run'.")
    return load_plan(files[-1])


def _progress(has: set[Stage], stages: list[Stage]) -> tuple[int, int]:
    return sum(stage in has for stage in stages), len(stages)


def _holder(lease: Mapping[str, Any]) -> str:
    return f"{str(lease['host']).partition(' ')[0]}, process {lease['pid']}"


def _other_versions(store: Store, stages: Iterable[Stage]) -> dict[str, tuple[str, ...]]:
    """Versions in the stages' descriptions that differ from those installed here."""
    here, others = versions(), dict[str, set[str]]()
    for stage in stages:
        for library, version in store.description(stage)["versions"].items():
            if here.get(library) != version:
                others.setdefault(library, set()).add(version)
    return {library: tuple(sorted(found)) for library, found in sorted(others.items())}
