"""``supreme status``: where a plan stands, read from its output folder only."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from supreme.cli.options import Options
from supreme.cli.shipped import plan_file, shipped_plans
from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan import load_plan
from supreme.experiment.status import StatusReport, Watch

WATCH_S = 2.0


def main(command: str, words: Sequence[str]) -> int:
    """Print the state of a plan.

    Args:
        command: ``"status"``.
        words: the words after it.

    Returns:
        1 when a run has failed, else 0.

    Raises:
        UnknownNameError: if there is neither such a folder nor such a plan.
        ConfigError: if no plan was ever run in the folder, or the seconds are none.
    """
    options = Options(f"supreme {command}", "How many runs of a plan are done, running, queued and failed, and why.")
    options.add_argument("where", metavar="RUNS_OR_PLAN", help="output folder of 'supreme run', or the plan")
    options.add_argument("--output", help="output folder, where it is not the one that the plan names")
    options.add_argument(
        "--watch",
        type=float,
        metavar="SECONDS",
        help=f"show it again and again until every run has ended, every {WATCH_S:g} seconds unless told otherwise",
    )
    given = options.parse_args(_with_seconds(words))
    if given.watch is not None and not 0 < given.watch < float("inf"):
        raise ConfigError(f"Expected more than 0 seconds after --watch, got {given.watch:g}.")
    if Path(given.where).is_dir():
        watch = Watch(given.where)
    else:
        plan = load_plan(_plan(given.where))
        watch = Watch(given.output or plan.output, plan)
    report = watch.report() if given.watch is None else _followed(watch, given.watch)
    if given.watch is None:
        _write(report.lines())
    return int(bool(report.failed))


def _followed(watch: Watch, seconds: float) -> StatusReport:
    """The report once every run has ended; until then it is shown in place, or as a line at a time."""
    report = watch.report()
    try:
        with _screen() as show:
            while True:
                show(report)
                if report.finished:
                    return report
                time.sleep(seconds)
                report = watch.report()
    finally:
        _write(report.lines())  # stays behind, after Ctrl-C too


@contextmanager
def _screen() -> Iterator[Callable[[StatusReport], None]]:
    """What shows a report: a part of the terminal that is drawn again, elsewhere a line."""
    if not sys.stdout.isatty():
        yield lambda report: None if report.finished else _write([next(report.lines())])
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False, transient=True) as live:
        yield lambda report: live.update(Text("\n".join(report.lines())), refresh=True)


def _write(lines: Iterator[str] | Sequence[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _with_seconds(words: Sequence[str]) -> list[str]:
    """The words with a number after ``--watch``, which may stand without one anywhere."""
    found: list[str] = []
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        found.append(word if word != "--watch" or _is_number(following) else f"--watch={WATCH_S}")
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _plan(text: str) -> Path:
    try:
        return plan_file(text)
    except UnknownNameError:
        hint = "Give the output folder of 'supreme run', a plan file, or the name of a shipped plan."
        raise UnknownNameError("folder or plan", text, shipped_plans(), hint) from None
