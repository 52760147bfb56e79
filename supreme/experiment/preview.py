"""Preview: what a plan would do, and about how long that would take, before anything is done."""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from supreme.experiment.costs import Costs
from supreme.experiment.plan import Plan, Run
from supreme.experiment.progress import duration
from supreme.experiment.scheduler import needed
from supreme.experiment.stage import KINDS, Kind, Stage
from supreme.experiment.status import status
from supreme.experiment.store import Store


@dataclass(frozen=True)
class KindPreview:
    """The stages of one kind.

    Attributes:
        stages: how many the runs have, each counted once.
        done: how many have a result.
        due: how many are to be done.
        shared: how many serve several runs.
        seconds: how long those take that are to be done, one after another; None if no such stage was ever seen.
    """

    stages: int
    done: int
    due: int
    shared: int
    seconds: float | None


@dataclass(frozen=True)
class Preview:
    """What a plan would do.

    Attributes:
        states: runs with their state.
        shared: stages that serve several runs -> how many.
        kinds: the stages by kind.
        workers: stages at a time.
        seconds: time until all is done, None where that cannot be told from earlier stages.
    """

    states: Mapping[Run, str]
    shared: Mapping[Stage, int]
    kinds: Mapping[Kind, KindPreview]
    workers: int
    seconds: float | None

    def lines(self) -> Iterator[str]:
        """The runs, the shared stages, and a table of all stages."""
        for run, state in self.states.items():
            yield f"{state:8} {run.label}"
        for stage, count in self.shared.items():
            yield f"shared   {stage.label}: {count} runs"
        yield f"{'stages':10} {'all':>6} {'done':>6} {'to do':>6} {'shared':>6}  time"
        for kind, row in self.kinds.items():
            yield f"{kind:10} {row.stages:6} {row.done:6} {row.due:6} {row.shared:6}  {_about(row.seconds, row.due)}"
        rows = [(row.stages, row.done, row.due, row.shared) for row in self.kinds.values()]
        sums = [sum(values) for values in zip(*rows, strict=True)]
        with_workers = f" with {self.workers} worker{'s' * (self.workers != 1)}"
        about = _about(self.seconds, sums[2])
        yield f"{'in all':10} {sums[0]:6} {sums[1]:6} {sums[2]:6} {sums[3]:6}  {about}{with_workers if sums[2] else ''}"
        if self.seconds is None:
            yield "The time is not known: nothing of the kind was done before in this output folder or beside it."


def preview(plan: Plan, runs: Sequence[Run], forced: Collection[Stage] = (), workers: int = 1) -> Preview:
    """What a plan would do now; nothing is written.

    Args:
        plan: the plan.
        runs: those of its runs that are asked for.
        forced: stages to compute again.
        workers: stages at a time.
    """
    store, report = Store(plan.output), status(plan.output, plan)
    found = {run: state for state in ("done", "running", "queued", "failed") for run in getattr(report, state)}
    served = Counter(stage for run in runs for stage in run.stages())
    due, have = needed(runs, store, forced), store.having(served)
    costs = Costs()
    costs.learn(store, served)
    costs.borrow(store.root, due)
    kinds = {}
    for kind in KINDS:
        stages = [stage for stage in served if stage.kind == kind]
        if not stages:
            continue
        left = [stage for stage in stages if stage in due]
        done = sum((stage in have or store.dropped(stage)) and stage not in due for stage in stages)
        shared = sum(served[stage] > 1 for stage in stages)
        kinds[kind] = KindPreview(len(stages), done, len(left), shared, _sum(costs, left))
    known = all(row.seconds is not None for row in kinds.values())
    return Preview(
        states={run: "queued" if run.stage in due and found[run] == "done" else found[run] for run in runs},
        shared={stage: count for stage, count in served.items() if count > 1},
        kinds=kinds,
        workers=workers,
        seconds=makespan({stage: costs.estimate(stage) for stage in due}, workers) if known else None,
    )


def makespan(seconds: Mapping[Stage, float], workers: int) -> float:
    """Time until all of some stages are done, in the order of the scheduler: start of the longest chain first.

    Args:
        seconds: stages, inputs first -> how long each takes.
        workers: how many at a time.

    Example:
        >>> first = Stage("train", {})
        >>> makespan({first: 3.0, Stage("train", {"seed": 1}): 4.0, Stage("unlearn", {}, {"original": first}): 2.0}, 2)
        5.0
    """
    length = dict.fromkeys(seconds, 0.0)  # from the start of a stage to the end of the longest chain behind it
    readers: dict[Stage, list[Stage]] = {stage: [] for stage in seconds}
    missing = dict.fromkeys(seconds, 0)
    for stage in reversed(list(seconds)):
        length[stage] += seconds[stage]
        for source in {source for source in stage.inputs.values() if source in seconds}:
            length[source] = max(length[source], length[stage])
            readers[source].append(stage)
            missing[stage] += 1
    place = {stage: number for number, stage in enumerate(seconds)}
    ready = [(-length[stage], place[stage], stage) for stage, count in missing.items() if not count]
    heapq.heapify(ready)
    now, busy = 0.0, list[tuple[float, int, Stage]]()
    while ready or busy:
        while ready and len(busy) < workers:
            _, number, stage = heapq.heappop(ready)
            heapq.heappush(busy, (now + seconds[stage], number, stage))
        now, _, stage = heapq.heappop(busy)
        for reader in readers[stage]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, (-length[reader], place[reader], reader))
    return now


def _sum(costs: Costs, stages: Sequence[Stage]) -> float | None:
    total = 0.0
    for stage in stages:
        seconds = costs.known(stage)
        if seconds is None:
            return None
        total += seconds
    return total


def _about(seconds: float | None, due: int) -> str:
    if not due:
        return "-"
    return "unknown" if seconds is None else f"about {duration(seconds)}"
