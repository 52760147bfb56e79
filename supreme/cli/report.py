"""``supreme report``: tables, plots and one page from the records of a plan."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from supreme.cli.console import open_console
from supreme.cli.options import Options
from supreme.errors import ConfigError


def main(command: str, words: Sequence[str]) -> int:
    """Print the tables and write the report.

    Args:
        command: ``"report"``.
        words: the words after it.

    Raises:
        ConfigError: if the words do not say which results are meant.
        DataError: if there are no records.
        OutputError: if the report cannot be written.
    """
    options = Options(f"supreme {command}", "Tables on the screen; the same with plots and statistics as files.")
    options.add_argument("runs", metavar="RUNS", nargs="*", help="output folder of 'supreme run'")
    options.add_argument("--output", metavar="DIR", help="where the files go; the default is RUNS/report")
    options.add_argument("--per_target", action="store_true", help="a table per forget target instead of means")
    about = "two result sets side by side: folders of runs, a report's tables.csv or a published table (CSV)"
    options.add_argument("--compare", metavar=("A", "B"), nargs=2, help=about)
    about = "methods of one or more folders in order, each row with its plan, seeds and records"
    options.add_argument("--leaderboard", action="store_true", help=about)
    about = "how many seeds give 95 %% intervals of this half-width at the least cost; 0.01 is one percentage point"
    options.add_argument("--plan_seeds", metavar="HALF_WIDTH", type=float, help=about)
    about = "with --plan_seeds, a metric such as mia_gap; may be given several times, the default is every gap"
    options.add_argument("--plan_metric", metavar="METRIC", action="append", help=about)
    given = options.parse_args(words)
    _check(given)
    if given.compare:
        if given.runs:
            raise ConfigError(f"Expected two result sets after --compare, got a third ('{given.runs[0]}'); remove it.")
        first, second = given.compare
        compare(first, second, given.output)
    elif given.leaderboard and given.runs:
        rank(given.runs, given.output)
    elif len(given.runs) != 1:
        raise ConfigError(f"Expected one output folder of 'supreme run', got {len(given.runs)}; name it as RUNS.")
    elif given.plan_seeds is not None:
        plan_seeds(given.runs[0], given.plan_seeds, given.plan_metric or (), given.output)
    else:
        show(given.runs[0], given.output, per_target=given.per_target)
    return 0


def _check(given: argparse.Namespace) -> None:
    """Whether the options go together."""
    asked = {"--compare": given.compare, "--leaderboard": given.leaderboard, "--plan_seeds": given.plan_seeds}
    several = [name for name, value in asked.items() if value is not None and value is not False]
    if len(several) > 1:
        raise ConfigError(f"Expected {' or '.join(several)}, got {'both' if len(several) == 2 else 'all'}; give one.")
    if given.plan_metric and given.plan_seeds is None:
        raise ConfigError("Expected --plan_seeds with --plan_metric, got none; add --plan_seeds 0.01.")
    if given.plan_seeds is not None and not 0 < given.plan_seeds < math.inf:
        raise ConfigError(f"Expected a half-width above 0 after --plan_seeds, got {given.plan_seeds:g}; try 0.01.")


def show_current(runs: str | Path) -> None:
    """Print the tables of a plan's results, and write its report unless that is there already.

    Args:
        runs: output folder of the plan.
    """
    from supreme.report import frame, is_current, print_tables, read_records, tables

    if not is_current(runs):
        show(runs)
        return
    print_tables(tables(frame(read_records(runs))), open_console())
    sys.stdout.write(f"Report: {Path(runs) / 'report' / 'index.html'}\n")


def show(runs: str | Path, output: str | Path | None = None, *, per_target: bool = False) -> None:
    """Print the tables of a plan's results and write its report.

    Args:
        runs: output folder of the plan.
        output: where the files go; None is ``<runs>/report``.
        per_target: whether every forget target has a table of its own.
    """
    from supreme.report import frame, print_tables, read_records, tables, write_report

    print_tables(tables(frame(read_records(runs)), per_target=per_target), open_console())
    page = write_report(runs, output, per_target=per_target)[0]
    sys.stdout.write(f"Report: {page}\n")


def compare(first: str, second: str, output: str | Path | None = None) -> None:
    """Print two result sets side by side and write the comparison.

    Args:
        first: a folder of runs, or a table as CSV.
        second: the same.
        output: where the files go; None is the report folder of the first folder of runs, else the working directory.
    """
    from supreme.report import beside_grids, print_grids, read_results, side_by_side, write_grids

    found = side_by_side(read_results(first), read_results(second))
    grids = beside_grids(found, (first, second))
    print_grids(grids, open_console())
    folders = [Path(path) for path in (first, second) if Path(path).is_dir()]
    folder = output or (folders[0] / "report" if folders else Path())
    page = write_grids(folder, "compare", "Two result sets side by side", grids, found)[0]
    sys.stdout.write(f"Comparison: {page}\n")


def plan_seeds(
    runs: str | Path, half_width: float, metrics: Sequence[str] = (), output: str | Path | None = None
) -> None:
    """Print how many seeds a precision costs at the least, going by a study, and write it.

    Args:
        runs: output folder of the study.
        half_width: wanted half-width of the 95 % intervals, in the unit of the records.
        metrics: what it is wanted for; none takes the gaps in accuracy and in the membership attack.
        output: where the files go; None is ``<runs>/report``.
    """
    from supreme.report import print_grids, seed_grids, write_grids

    grids, data = seed_grids(runs, half_width, metrics)
    print_grids(grids, open_console())
    title = f"Seeds for intervals of ± {half_width:g}"
    page = write_grids(output or Path(runs) / "report", "seeds", title, grids, data)[0]
    sys.stdout.write(f"Seeds: {page}\n")


def rank(runs: Sequence[str], output: str | Path | None = None) -> None:
    """Print the leaderboard of some plans and write it.

    Args:
        runs: output folders of the plans.
        output: where the files go; None is the report folder of the first.
    """
    from supreme.report import leaders, print_grids, write_grids

    grids, data = leaders(runs)
    print_grids(grids, open_console())
    page = write_grids(output or Path(runs[0]) / "report", "leaderboard", "Leaderboard", grids, data)[0]
    sys.stdout.write(f"Leaderboard: {page}\n")
