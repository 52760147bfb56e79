"""What a plan costs beside its own compute: per run, and to look at when it is large.

    python benchmarks/speed/overhead.py                      # 200 tiny runs on 2 workers, 3 times; 10,000 records
    python benchmarks/speed/overhead.py --part records       # status and tables only

``runs``: a plan of so many runs of a linear network on the embedded digits is run from an empty folder. Its own compute
is the time inside the Trainer's loops, from the start of a fit or test to its end. Overhead per run is (wall-clock x
workers - compute) / runs: start of the workers, scheduler, leases, store, making of Trainers, reading of models. The
bar is 0.5 s of worker time a run.

``records``: a store of a finished plan of so many runs is made up, with files of the usual size. ``supreme status`` is
timed as a process, the tables of ``supreme report`` from reading the records to printing. The bar is 5 s each. CPU time
is given beside wall-clock, which on a machine with other work says more about that work.
"""

import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from measure import ROOT, begin, conditions, finish, parser, row

TINY = {
    "name": "overhead",
    "datasets": ["Digits"],
    "models": ["overhead.Tiny"],
    "training": {"epochs": 1, "lr": 0.01, "batch_size": 256, "warmup_epochs": 0.0},
    "scenarios": [{"class_path": "FullClass", "targets": [3]}],
    "methods": ["Original", "Retrain", {"class_path": "FineTune", "init_args": {"epochs": 1}}, "SSD"],
    "trainer": {"accelerator": "cpu"},
}
LARGE = {
    "name": "large",
    "datasets": ["Digits"],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 32}}],
    "training": {"epochs": 1},
    "methods": [
        *("Original", "Retrain", "FineTune", "BadTeacher", "RandomLabels", "UNSIR", "SSD", "LFSSD", "NegGrad", "SCRUB")
    ],
    "trainer": {"accelerator": "cpu"},
}
METRICS = ("accuracy", "loss", "activation_distance", "js_divergence", "completeness")


def Tiny(num_classes: int) -> Any:  # noqa: N802 - networks are named like classes
    """A linear network on three channels of 8 x 8 pixels."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))


# --- runs


def execute(stage: Any, store: Any) -> None:
    """The executor of plans, with a note of the time inside the Trainer's loops."""
    from lightning.pytorch import Callback

    run: Any = importlib.import_module("supreme.experiment.run")

    class Loops(Callback):
        seconds, since = 0.0, 0.0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.since = time.perf_counter()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.seconds += time.perf_counter() - self.since

        on_test_start, on_test_end = on_train_start, on_train_end

    loops, made = Loops(), run.quiet_trainer
    run.quiet_trainer = lambda **given: made(**{**given, "callbacks": [*given.get("callbacks", ()), loops]})
    try:
        run.execute(stage, store)
    finally:
        run.quiet_trainer = made
    descriptor = os.open(store.root / "compute", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, f"{loops.seconds}\n".encode())
    os.close(descriptor)


def plan_of_runs(folder: Path, runs: int) -> Path:
    """The tiny plan, with as many seeds as it takes."""
    path = folder / "overhead.yaml"
    seeds = list(range(runs // 4))
    path.write_text(yaml.safe_dump({**TINY, "seeds": seeds, "output": str(folder / "out")}))
    return path


def measure_runs(runs: int, workers: int) -> Iterator[tuple[str, float, str]]:
    """One plan from start to end."""
    from supreme.experiment.plan import load_plan
    from supreme.experiment.scheduler import run_plan

    with tempfile.TemporaryDirectory() as name:
        plan = load_plan(plan_of_runs(Path(name), runs))
        started = time.perf_counter()
        summary = run_plan(plan, "overhead:execute", workers)
        wall_s = time.perf_counter() - started
        assert (summary.done, len(summary.failed)) == (runs, 0), summary
        compute_s = sum(map(float, (plan.output / "compute").read_text().split()))
        yield "wall_clock", wall_s, "s"
        yield "compute", compute_s, "s"
        yield "stages", summary.stages_done, ""
        yield "overhead_per_run", (wall_s * workers - compute_s) / runs, "s of worker time"
        yield "overhead_per_run_wall_clock", (wall_s - compute_s / workers) / runs, "s"
        started = time.perf_counter()
        assert run_plan(plan, "overhead:execute", workers).stages_done == 0
        yield "second_time", time.perf_counter() - started, "s"


# --- records


def make_store(folder: Path, records: int) -> Any:
    """A finished plan of so many runs that was never run."""
    from supreme.experiment.plan import load_plan
    from supreme.experiment.record import publish
    from supreme.experiment.store import RESULT_FILE, Store

    targets = [{"class_path": "FullClass", "targets": list(range(10))}]
    content = {**LARGE, "scenarios": targets, "seeds": list(range(records // 100)), "output": str(folder / "out")}
    (folder / "large.yaml").write_text(yaml.safe_dump(content))
    plan = load_plan(folder / "large.yaml")
    store = Store(plan.output).open()
    store.save_plan(plan.name, plan.content)
    result = json.dumps(made_up_result())

    def write(place: Path) -> None:
        (place / RESULT_FILE).write_text(result)

    system: Any = os
    flush, system.fsync = os.fsync, lambda _descriptor: None  # nothing here has to outlive a power cut
    try:
        for run in plan.runs():
            for stage in run.stages():
                if not store.has(stage):
                    store.commit(stage, write)
            publish(store, run)
    finally:
        system.fsync = flush
    return plan


def made_up_result() -> dict[str, Any]:
    """What an evaluation of all metrics says, with other numbers."""
    sets = [f"{part}/{metric}" for part in ("whole", "retain", "forget") for metric in METRICS]
    keys = [*sets, "layerwise_distance", "forget/zrf", "forget/zrf_original", "forget/zrf_retrained", "mia", "mia_auc"]
    costs = {"time_s": 1.5, "speedup": 8.0, "peak_memory_bytes": 1e8, "utilisation": 0.9}
    values = {name: 0.123456789 + 0.01 * place for place, name in enumerate(keys)}
    gaps = {f"{name}_gap": 0.01 for name in keys[:15]}
    sizes = {"retain_test": 320, "forget_test": 39, "retain_train": 1290, "forget_train": 148}
    return {"metrics": {**values, **gaps, **costs}, "scenario_sizes": sizes, "fingerprint": "0" * 16, "notes": []}


def measure_records(records: int, repeats: int) -> Iterator[tuple[str, list[float], str]]:
    """Status as a process, and the tables in this one."""
    with tempfile.TemporaryDirectory() as name:
        plan = make_store(Path(name), records)
        command = [sys.executable, "-m", "supreme", "status", str(plan.output)]
        here = {**os.environ, "PYTHONPATH": str(ROOT)}

        def status() -> None:
            done = subprocess.run(command, env=here, check=True, capture_output=True, text=True)
            assert f"{records} runs: {records} done" in done.stdout, done.stdout

        for quantity, action in (("status", status), ("report_tables", lambda: tables(plan.output))):
            wall, cpu = timed(action, repeats)
            yield quantity, wall, "s"
            yield f"{quantity}_cpu", cpu, "s of CPU time"


def tables(folder: Path) -> None:
    """What ``supreme report`` prints."""
    from rich.console import Console

    from supreme.report import frame, print_tables, read_records
    from supreme.report import tables as tables_of

    print_tables(tables_of(frame(read_records(folder))), Console(file=io.StringIO(), width=160))


def timed(action: Callable[[], None], repeats: int) -> tuple[list[float], list[float]]:
    """Wall-clock and CPU time of each of several calls, processes that they start included."""
    wall, cpu = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), sum(os.times()[:4])
        action()
        wall.append(time.perf_counter() - started)
        cpu.append(sum(os.times()[:4]) - used)
    return wall, cpu


# --- results


BARS = {"overhead_per_run": "<= 0.5", "status": "<= 5", "report_tables": "<= 5"}


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--part", choices=["all", "runs", "records"], default="all")
    options.add_argument("--runs", type=int, default=200)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--records", type=int, default=10_000)
    given, found = begin(options), dict[tuple[str, int, str], list[float]]()
    about = conditions()
    if given.part in ("all", "runs"):
        for _ in range(given.repeats):
            for name, value, unit in measure_runs(given.runs, given.workers):
                found.setdefault((name, given.runs, unit), []).append(value)
    if given.part in ("all", "records"):
        for name, values, unit in measure_records(given.records, given.repeats):
            found[name, given.records, unit] = values
    rows = [
        row(name, n, values, unit, BARS.get(name, ""), workers=given.workers)
        for (name, n, unit), values in found.items()
    ]
    finish("overhead", rows, given, about)


if __name__ == "__main__":
    main()
