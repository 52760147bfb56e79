"""``supreme status``: where a plan stands, read from its output folder only."""

import sys
from collections.abc import Sequence
from pathlib import Path

from supreme.cli.options import Options
from supreme.cli.shipped import plan_file, shipped_plans
from supreme.errors import UnknownNameError
from supreme.experiment.plan import load_plan
from supreme.experiment.status import status


def main(command: str, words: Sequence[str]) -> int:
    """Print the state of a plan.

    Args:
        command: ``"status"``.
        words: the words after it.

    Returns:
        1 when a run has failed, else 0.

    Raises:
        UnknownNameError: if there is neither such a folder nor such a plan.
        ConfigError: if no plan was ever run in the folder.
    """
    options = Options(f"supreme {command}", "How many runs of a plan are done, running, queued and failed, and why.")
    options.add_argument("where", metavar="RUNS_OR_PLAN", help="output folder of 'supreme run', or the plan")
    options.add_argument("--output", help="output folder, where it is not the one that the plan names")
    given = options.parse_args(words)
    if Path(given.where).is_dir():
        report = status(given.where)
    else:
        plan = load_plan(_plan(given.where))
        report = status(given.output or plan.output, plan)
    sys.stdout.writelines(f"{line}\n" for line in report.lines())
    return int(bool(report.failed))


def _plan(text: str) -> Path:
    try:
        return plan_file(text)
    except UnknownNameError:
        hint = "Give the output folder of 'supreme run', a plan file, or the name of a shipped plan."
        raise UnknownNameError("folder or plan", text, shipped_plans(), hint) from None
