"""``supreme report``: tables, plots and one page from the records of a plan."""

import sys
from collections.abc import Sequence
from pathlib import Path

from supreme.cli.console import open_console
from supreme.cli.options import Options


def main(command: str, words: Sequence[str]) -> int:
    """Print the tables and write the report.

    Args:
        command: ``"report"``.
        words: the words after it.

    Raises:
        DataError: if there are no records.
        OutputError: if the report cannot be written.
    """
    options = Options(f"supreme {command}", "Tables on the screen; the same with plots and statistics as files.")
    options.add_argument("runs", metavar="RUNS", help="output folder of 'supreme run'")
    options.add_argument("--output", metavar="DIR", help="where the files go; the default is RUNS/report")
    options.add_argument("--per_target", action="store_true", help="a table per forget target instead of means")
    given = options.parse_args(words)
    show(given.runs, given.output, per_target=given.per_target)
    return 0


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
