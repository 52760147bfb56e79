"""``supreme run --launcher slurm``: hands the runs of a plan to SLURM and says what it did."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from supreme.cli.options import Options
from supreme.cli.report import show_current
from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan import Plan, Run
from supreme.experiment.selection import select_stages
from supreme.experiment.slurm import DEFAULT_TIME, SlurmSettings, Submission, submit

LAUNCHERS = ("local", "slurm")
_OPTIONS = {
    "partition": (str, "NAME", "where tasks run"),
    "account": (str, "NAME", "who pays"),
    "time": (str, "TIME", f"limit of a task, as in sbatch; the default is {DEFAULT_TIME}"),
    "nodes": (int, "N", "machines of a task; the default is the plan's num_nodes"),
    "gpus_per_node": (int, "N", "GPUs of a task; the default is the plan's devices, where it computes on GPUs"),
    "max_concurrent": (int, "N", "tasks at a time"),
}


def add_launcher_options(options: Options) -> None:
    """Add ``--launcher`` and the options of SLURM.

    Args:
        options: the options of ``supreme run``.
    """
    options.add_argument("--launcher", default="local", metavar="local|slurm", help="where: here, or one task per run")
    for name, (kind, value, text) in _OPTIONS.items():
        options.add_argument(f"--slurm.{name}", type=kind, metavar=value, help=text)


def slurm_settings(given: argparse.Namespace) -> SlurmSettings | None:
    """What tasks ask SLURM for, None where the plan is run on this machine.

    Args:
        given: the parsed options.

    Raises:
        UnknownNameError: if there is no such launcher.
        ConfigError: if an option does not fit the launcher or its value cannot be used.
    """
    if given.launcher not in LAUNCHERS:
        raise UnknownNameError("launcher", given.launcher, LAUNCHERS)
    values = {name: vars(given)[f"slurm.{name}"] for name in _OPTIONS}
    chosen = {name: value for name, value in values.items() if value is not None}
    if given.launcher == "slurm":
        if given.workers is not None:
            raise ConfigError("Expected no --workers with --launcher slurm; --slurm.max_concurrent limits the tasks.")
        return SlurmSettings(**chosen)
    if chosen:
        raise ConfigError(f"Expected --launcher slurm with --slurm.{next(iter(chosen))}; add it.")
    return None


def hand_in(
    plan: Plan, runs: Sequence[Run], settings: SlurmSettings, force: str = "", track_evaluation: bool = False
) -> int:
    """Hand the runs to SLURM, and say so; the tables are shown when there is nothing left to do.

    Args:
        plan: the plan, pinned.
        runs: those that are asked for.
        settings: what a task asks for.
        force: a selection of stages to compute again.
        track_evaluation: whether records say what each metric has cost.
    """
    forced = select_stages(runs, force) if force else set()
    submission = submit(plan, runs, settings, forced, track_evaluation)
    sys.stderr.writelines(f"{line}\n" for line in _said(plan, submission))
    if not submission.submitted and not submission.waiting:
        show_current(plan.output)
    return 0


def _said(plan: Plan, submission: Submission) -> Iterator[str]:
    if submission.submitted:
        arrays = " and ".join(submission.jobs)
        yield f"submitted: {len(submission.submitted)} runs, one task each, as SLURM array {arrays}"
    if submission.waiting:
        yield f"in the queue from before: {len(submission.waiting)} runs"
    if submission.done:
        yield f"with a result: {len(submission.done)} runs"
    if submission.submitted or submission.waiting:
        yield f"'supreme status {plan.output}' shows where they stand, 'supreme report {plan.output}' makes the tables."
