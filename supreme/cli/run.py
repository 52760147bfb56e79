"""``supreme run``: does what a plan asks for and is not there yet, and shows the tables."""

import importlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from supreme.cli.options import Options
from supreme.cli.report import show_current
from supreme.cli.shipped import plan_file
from supreme.cli.slurm import add_launcher_options, hand_in, slurm_settings
from supreme.errors import ConfigError
from supreme.experiment.pins import pin, recall
from supreme.experiment.plan import Plan, load_plan
from supreme.experiment.preview import Preview, preview
from supreme.experiment.progress import duration, progress_for
from supreme.experiment.scheduler import Summary, run_plan
from supreme.experiment.selection import select, select_stages
from supreme.experiment.store import Store
from supreme.experiment.trainer_settings import processes
from supreme.precision import check_hardware

_EXAMPLES = """
examples:
  supreme run quickstart                             the plan that comes with the package
  supreme run plan.yaml --workers 4
  supreme run plan.yaml --only method=SSD,seed=260
  supreme run plan.yaml --force stage=evaluate       compute the metrics of all runs again
  supreme run plan.yaml --launcher slurm --slurm.partition gpu --slurm.gpus_per_node 1 --slurm.max_concurrent 12
"""

_OF_LAUNCHERS = ("LOCAL_RANK", "TORCHELASTIC_", "SLURM_", "LSB_", "OMPI_", "PMI")  # how their variables begin


def main(command: str, words: Sequence[str]) -> int:
    """Run a plan.

    Args:
        command: ``"run"``.
        words: the words after it.

    Returns:
        1 when a run has no result, else 0.

    Raises:
        SupremeError: if the plan, a selection or the output folder cannot be used; nothing has been started then.
    """
    given = _options(command).parse_args(words)
    slurm = slurm_settings(given)
    plan = load_plan(plan_file(given.plan))
    if given.output:
        plan = replace(plan, output=Path(given.output))
    if given.workers is not None and given.workers < 1:
        raise ConfigError(f"Expected at least one worker, got {given.workers}.")
    if not given.dry_run:
        _check_alone()
    plan = recall(plan, Store(plan.output)) if given.dry_run else pin(plan)
    runs = select(plan.runs(), given.only)
    forced = select_stages(runs, given.force) if given.force else set()
    gpus = _gpus(plan)
    workers = given.workers or _workers(plan, gpus)
    if given.dry_run:
        sys.stderr.writelines(f"{line}\n" for line in _crowding(plan, gpus, workers))
        sys.stdout.writelines(f"{line}\n" for line in _preview(plan, preview(plan, runs, forced, workers)))
        return 0
    if slurm is not None:
        return hand_in(plan, runs, slurm, given.force, given.track_evaluation)
    sys.stderr.writelines(f"{line}\n" for line in _crowding(plan, gpus, workers))
    check_hardware(*(plan.trainer[name] for name in ("precision", "accelerator", "strategy")))
    summary = run_plan(
        plan,
        workers=workers,
        progress=progress_for(),
        only=given.only,
        force=given.force,
        gpus=gpus or (),
        track_evaluation=given.track_evaluation,
    )
    sys.stderr.writelines(f"{line}\n" for line in _ending(plan, summary))
    show_current(plan.output)
    return summary.exit_code


def _options(command: str) -> Options:
    options = Options(f"supreme {command}", "Do the runs of a plan that have no result yet; print the tables.")
    options.epilog = _EXAMPLES
    options.add_argument("plan", metavar="PLAN", help="YAML file, or the name of a shipped plan such as quickstart")
    options.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="stages at a time; the default is one per core (with the plan's threads each), or one per accelerator",
    )
    options.add_argument("--dry_run", action="store_true", help="show runs, stages and the time they take; do nothing")
    options.add_argument("--output", metavar="DIR", help="folder of the results in place of the plan's")
    options.add_argument("--only", default="", metavar="FIELD=VALUE,...", help="some runs: method=SSD,seed=260")
    options.add_argument("--force", default="", metavar="FIELD=VALUE,...", help="compute again: stage=evaluate")
    options.add_argument(
        "--track_evaluation", action="store_true", help="time and memory of every metric, in the records made now"
    )
    add_launcher_options(options)
    return options


def _preview(plan: Plan, found: Preview) -> Iterator[str]:
    yield from found.lines()
    for left_out in plan.not_applicable():
        yield f"left out {left_out.method} in {left_out.scenario}: {left_out.reason}"
    yield from _settings(plan)
    done = sum(state == "done" for state in found.states.values())
    yield f"{len(found.states)} runs, {done} of them done already; results go to {plan.output}"


def _ending(plan: Plan, summary: Summary) -> Iterator[str]:
    """What was done, and why what failed did."""
    for left_out in summary.not_applicable:
        yield f"left out: {left_out.method} in {left_out.scenario}: {left_out.reason}"
    yield from _settings(plan)
    for failed in summary.failed:
        yield f"failed: {failed.run.label}: {failed.reason}"
        if failed.traceback and failed.stage == failed.run.stage:
            yield failed.traceback.rstrip()
    if not summary.done and not summary.failed:
        yield f"Nothing to do: all {summary.runs} runs have their result in {plan.output}."
    else:
        yield (
            f"{summary.done} runs done, {summary.reused} were there before, {len(summary.failed)} failed, "
            f"in {duration(summary.seconds)}; results are in {plan.output}."
        )


def _settings(plan: Plan) -> Iterator[str]:
    """The recipes and presets that settings come from."""
    for place, name in plan.used_recipes().items():
        yield f"recipe: {name} for {place} (configs/recipe/{name}.yaml); 'training' in the plan replaces it"
    for preset in plan.used_presets():
        yield f"preset: {preset.label}; 'presets: false' in the plan leaves it out"


def _check_alone() -> None:
    """Refuse to be one of several ranks: they would wait for each other in the stages that each of them begins."""
    if not any(name.startswith(_OF_LAUNCHERS) for name in os.environ):
        return  # without torch, which the next line imports
    try:
        launched: bool = importlib.import_module("supreme.ranks").launched()
    except RuntimeError:
        launched = True  # Lightning refuses srun's number of tasks, which is above 1 then
    if launched:
        raise ConfigError(
            "supreme run starts the processes of a stage itself; start it once, without torchrun, srun or mpirun, or "
            "on several machines with --launcher slurm."
        )


def _workers(plan: Plan, gpus: Sequence[str] | None) -> int:
    """How many stages fit on this machine at a time."""
    return max(1, len(gpus) if gpus is not None else _cores() // (plan.threads * processes(plan.trainer)))


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _crowding(plan: Plan, gpus: Sequence[str] | None, workers: int) -> Iterator[str]:
    """A warning where stages on the CPU have more threads than there are cores."""
    each, cores = plan.threads * processes(plan.trainer), _cores()
    if gpus is None and workers * each > cores:
        stages = f"{workers} stage{'s' * (workers > 1)} at a time with {each} thread{'s' * (each > 1)} each"
        yield (
            f"warning: {stages} on {cores} core{'s' * (cores > 1)}: they slow each other down and time_s grows; "
            f"--workers {max(1, cores // each)}{f' and threads: {cores}' if each > cores else ''} fits."
        )


def _gpus(plan: Plan) -> list[str] | None:
    """Accelerators to share out among the workers, None when the plan computes on the CPU.

    A stage that uses several devices has the machine for itself: no device is shared out, and there is one worker.
    """
    accelerator = str(plan.trainer["accelerator"])
    devices = _devices() if accelerator in ("auto", "gpu", "cuda") else []
    if accelerator == "cpu" or (accelerator == "auto" and not devices and not _metal()):
        return None
    return devices if plan.trainer["devices"] in (1, "1") else []


def _devices() -> list[str]:
    """Names of the CUDA devices, as CUDA_VISIBLE_DEVICES wants them, found without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    with suppress(PackageNotFoundError):
        if version("torch").endswith("+cpu"):
            return []
    try:
        nvml: Any = __import__("pynvml")
        nvml.nvmlInit()
        return [str(number) for number in range(nvml.nvmlDeviceGetCount())]
    except Exception:  # without a driver the library raises errors of its own
        return []


def _metal() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"
