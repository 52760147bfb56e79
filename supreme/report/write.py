"""Write the report of a plan: tables, plots and one page, each file replaced in one step."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from supreme import __version__
from supreme.errors import OutputError
from supreme.report.curves import curve_plot
from supreme.report.figure import Plot
from supreme.report.formats import csv_text, markdown_text, to_csv, to_latex, to_markdown
from supreme.report.grid import Grid, grid_latex, grid_markdown
from supreme.report.page import grids_page, page
from supreme.report.paper import FIELDS as PAPER_FIELDS
from supreme.report.paper import paper_latex, paper_markdown, paper_rows
from supreme.report.plots import plots
from supreme.report.records import frame, read_records
from supreme.report.samples import sample_plots
from supreme.report.study import Study, joined, study, with_distances
from supreme.report.table import Table, tables
from supreme.report.text import render

STUDIED = 24
PAGE, HEAD = "index.html", 1000  # characters in which a page says what it was made of
NEEDS = "% Needs \\usepackage{booktabs} in the preamble."


def write_report(
    path: str | Path, out: str | Path | None = None, *, per_target: bool = False, studied: int = STUDIED
) -> list[Path]:
    """Read the records of a plan and write the whole report.

    Files: ``index.html`` (everything on one page), ``tables.txt``, ``tables.md``, ``tables.tex``, ``tables.csv``
    (mean, standard deviation and n of every metric), ``runs.csv`` (every run), ``statistics.md``, ``statistics.tex``
    and ``statistics/`` (intervals, comparisons, ranks, sources of spread, M_r as a distribution), ``paper.md``,
    ``paper.tex`` and ``paper.csv`` (the paper's three tables in its form), and ``plots/`` with every plot as SVG, PNG
    and CSV. The same records always give the same files.

    Args:
        path: the output folder of a plan, or a folder of records.
        out: where to write; None writes to ``<path>/report``.
        per_target: one table per forget target instead of means over targets (the page has both).
        studied: number of tables, from the first, that have statistics and plots of samples, which take seconds each;
            the others have a note that says so.

    Returns:
        The files written, the page first.

    Raises:
        DataError: if there are no records, or one cannot be read.
        OutputError: if a file cannot be written.
    """
    records = read_records(path)
    data = frame(records)
    chosen = _noted(tables(data, per_target=per_target), studied)
    figures = [[*plots(table, data), *filter(None, [curve_plot(table, data, records)])] for table in chosen]
    studies = [study(table, data) if place < studied else Study((), ()) for place, table in enumerate(chosen)]
    root = Path(path).parent if Path(path).name == "records" else Path(path)
    samples = [sample_plots(table, data, records, root) for table in chosen[:studied]]
    samples += [[] for _ in chosen[studied:]]
    pairs = zip(studies, chosen, strict=True)
    studies = [with_distances(one, table, data, records, root) if one.grids else one for one, table in pairs]
    figures = [[*own, *more] for own, more in zip(figures, samples, strict=True)]
    drawn = [[*own, *one.plots] for own, one in zip(figures, studies, strict=True)]
    grids = [
        (grid, table.title, f"{grid.name}-{place}")
        for place, (table, one) in enumerate(zip(chosen, studies, strict=True), start=1)
        for grid in one.grids
    ]
    folder = Path(path) / "report" if out is None else Path(out)
    contents: dict[str, str | bytes] = {
        "tables.txt": render(chosen),
        "tables.md": to_markdown(chosen),
        "tables.tex": to_latex(chosen),
        "tables.csv": to_csv(chosen),
        "runs.csv": runs_csv(data),
        "statistics.md": _joined(["# Statistics", *(grid_markdown(grid, place) for grid, place, _ in grids)]),
        "statistics.tex": _joined([NEEDS, *(grid_latex(grid, place, label) for grid, place, label in grids)]),
        "paper.md": paper_markdown(chosen),
        "paper.tex": paper_latex(chosen),
        "paper.csv": csv_text(PAPER_FIELDS, paper_rows(chosen)),
        **{f"statistics/{name}.csv": csv_of(frame) for name, frame in joined(studies, chosen).items()},
        **{f"plots/{name}": content for name, content in _plot_files(chosen, drawn)},
    }
    written = [_write(folder / name, content) for name, content in contents.items()]
    whole = page(records, data, chosen, figures, studies, _stamp(records, per_target, studied))
    return [_write(folder / PAGE, whole), *written]  # last, so that it stands for all of them


def is_current(path: str | Path) -> bool:
    """Whether the report of a plan is there, as :func:`write_report` would write it from the present records.

    Args:
        path: the output folder of the plan.

    Raises:
        DataError: if there are no records, or one cannot be read.
    """
    file, stamp = Path(path) / "report" / PAGE, _stamp(read_records(path), per_target=False, studied=STUDIED)
    return file.is_file() and f'"{stamp}"' in file.read_text(encoding="utf-8")[:HEAD]


def _stamp(records: Sequence[Mapping[str, Any]], per_target: bool, studied: int) -> str:
    """What a report is made of, as a hash: the records, the choices, and the version that writes it."""
    content = json.dumps([__version__, per_target, studied, *records], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def write_grids(folder: str | Path, name: str, title: str, grids: Sequence[Grid], data: pd.DataFrame) -> list[Path]:
    """Write tables that stand for themselves: ``<name>.html``, ``.md``, ``.tex`` and ``.csv``.

    Args:
        folder: where to write.
        name: name of the files.
        title: heading.
        grids: the tables.
        data: their numbers.

    Returns:
        The files written, the page first.

    Raises:
        OutputError: if a file cannot be written.
    """
    contents = {
        "html": grids_page(title, grids),
        "md": _joined([f"# {markdown_text(title)}", *(grid_markdown(grid, "") for grid in grids)]),
        "tex": _joined([NEEDS, *(grid_latex(grid, "", f"{name}-{place}", 4) for place, grid in enumerate(grids, 1))]),
        "csv": csv_of(data),
    }
    return [_write(Path(folder) / f"{name}.{kind}", content) for kind, content in contents.items()]


def runs_csv(data: pd.DataFrame) -> str:
    """Every run as one line: its fields, state, origin and metrics at full precision."""
    return csv_of(data)


def _noted(chosen: Sequence[Table], studied: int) -> list[Table]:
    """Tables, with a note on those beyond the first that have statistics."""
    note = (
        "Left out: statistics (overview, intervals, ranks, sources of spread) and plots of samples, which only the "
        f"first {studied} of {len(chosen)} tables have; "
        f"supreme.report.write_report(RUNS, studied={len(chosen)}) writes all."
    )
    return [*chosen[:studied], *(replace(table, notes=(*table.notes, note)) for table in chosen[studied:])]


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


def csv_of(data: pd.DataFrame) -> str:
    """A frame as CSV with full-precision numbers."""
    return str(data.to_csv(index=False, lineterminator="\n"))


def _plot_files(chosen: Sequence[Table], figures: Sequence[Sequence[Plot]]) -> Iterator[tuple[str, str | bytes]]:
    taken: set[str] = set()
    for table, found in zip(chosen, figures, strict=True):
        stem = _stem(table, taken)
        for plot in found:
            yield f"{stem}-{plot.name}.svg", plot.svg
            yield f"{stem}-{plot.name}.png", plot.png
            yield f"{stem}-{plot.name}.csv", csv_text(plot.header, plot.data)


def _stem(table: Table, taken: set[str]) -> str:
    """File name of a table: letters, digits and dots only, different for every table."""
    words = [table.dataset, table.model, table.scenario, *([table.target] if table.target else [])]
    stem = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", word).strip("_.")[:40] or "x" for word in words).lower()
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def _write(file: Path, content: str | bytes) -> Path:
    """Write a file beside its place and move it there, so that readers never see half of it."""
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(raw)
            Path(name).chmod(0o644)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"Cannot write '{file}' ({reason}); choose a folder that you may write to.") from None
    return file
