"""Result tables as files: CSV for programs, Markdown for documents, LaTeX for papers."""

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from supreme.report.columns import Column
from supreme.report.notes import LEGEND
from supreme.report.table import Cell, Row, Table
from supreme.report.text import groups

CSV_FIELDS = ("dataset", "model", "scenario", "target", "method", "variant", "metric")
CSV_VALUES = ("mean", "std", "n", "runs_done", "runs_total", "best")
_LATEX_BLOCK = 4
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{char: f"{{{char}}}" for char in "[]*-`'"},
}


def to_csv(tables: Sequence[Table]) -> str:
    """One line per cell: mean, sample standard deviation and n at full precision, in the units of the records.

    Metrics that the printed tables leave out are included; an empty field means that there is no value.
    """
    rows = []
    for table in tables:
        for row in table.rows:
            for column in (*table.columns, *table.hidden):
                cell = row.cells.get(column.key)
                if cell is not None:
                    names = (table.dataset, table.model, table.scenario, table.target or "", row.method, row.variant)
                    values = (_plain(cell.mean), _plain(cell.std), cell.n, row.done, row.total, int(cell.best))
                    rows.append((*names, column.key, *values))
    return csv_text((*CSV_FIELDS, *CSV_VALUES), rows)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV with full-precision numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def _plain(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))


def to_markdown(tables: Sequence[Table]) -> str:
    """Tables in GitHub's Markdown."""
    parts = ["# Results", *(_markdown_table(table) for table in tables), markdown_text(LEGEND)]
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    header = ["Method", *(markdown_text(column.title) for column in table.columns)]
    rows = [header, ["---", *["---:"] * len(table.columns)]]
    for row in table.rows:
        name = " ".join([markdown_text(row.name), *([row.count] if row.count else []), *_mark(row, r"\[{}\]")])
        rows.append([name, *(_markdown_cell(row.cells.get(column.key)) for column in table.columns)])
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = [f"- {markdown_text(text)}" for text in (*_numbered(table), *table.notes)]
    parts = [f"## {markdown_text(table.title)}", markdown_text(table.caption), lines, "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    return f"**{cell.label}**" if cell.best else cell.label


def markdown_text(text: str) -> str:
    """Text without any character that Markdown or HTML would read as markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


def to_latex(tables: Sequence[Table]) -> str:
    r"""Tables as LaTeX floats that need ``\usepackage{booktabs}`` and nothing else."""
    head = "% Needs \\usepackage{booktabs} in the preamble."
    return "\n\n".join([head, *(_latex_table(table, place) for place, table in enumerate(tables, start=1))]) + "\n"


def _latex_table(table: Table, place: int) -> str:
    """One float per block of columns, so that each fits a page."""
    single = all(not cell.spread for row in table.rows for cell in row.cells.values())
    blocks = _latex_blocks(table.columns, _LATEX_BLOCK + (3 if single else 0))
    floats = []
    for part, block in enumerate(blocks, start=1):
        caption = f"{table.title}{' (continued)' if part > 1 else ''}. {table.caption}"
        lines = [
            r"\begin{table}[htbp]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{latex_text(caption)}}}",
            f"\\label{{tab:supreme-{place}-{part}}}",
            _tabular(table, block),
        ]
        notes = [*_numbered(table), *table.notes] if part == 1 else []
        lines += [f"\\par\\smallskip{{\\footnotesize {latex_text(note)}\\par}}" for note in notes]
        floats.append("\n".join([*lines, r"\end{table}"]))
    return "\n\n".join(floats)


def _numbered(table: Table) -> list[str]:
    return [f"[{place}] {text}" for place, text in enumerate(table.footnotes, start=1)]


def _latex_blocks(columns: Sequence[Column], limit: int) -> list[list[Column]]:
    """Blocks of at most ``limit`` columns; groups stay together."""
    blocks: list[list[Column]] = [[]]
    for group in groups(columns):
        if blocks[-1] and len(blocks[-1]) + len(group) > limit:
            blocks.append([])
        blocks[-1] += group
    return blocks


def _tabular(table: Table, columns: Sequence[Column]) -> str:
    """One tabular; every metric is two columns (mean, spread), so that decimals and signs stand in line."""
    head, rules, names, start = [""], [], ["Method"], 2
    for group in groups(columns):
        width = 2 * len(group)
        named = any(column.name for column in group)
        head.append(f"\\multicolumn{{{width}}}{{c}}{{{latex_text(group[0].group) if named else ''}}}")
        rules += [f"\\cmidrule(lr){{{start}-{start + width - 1}}}"] if named else []
        names += [f"\\multicolumn{{2}}{{c}}{{{latex_text(column.name or column.group)}}}" for column in group]
        start += width
    lines = [" & ".join(head) + r" \\", "".join(rules), " & ".join(names) + r" \\", r"\midrule"]
    for number, row in enumerate(table.rows):
        if number and table.rows[number - 1].reference and not row.reference:
            lines.append(r"\midrule")
        cells = [_latex_cell(row.cells.get(column.key)) for column in columns]
        lines.append(" & ".join([_latex_name(row), *cells]) + r" \\")
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    return f"\\begin{{tabular}}{{l{'r@{}l' * len(columns)}}}\n{body}\n\\end{{tabular}}"


def _latex_name(row: Row) -> str:
    name = latex_text(row.name).replace(r"(M\_r)", "($M_r$)")
    return " ".join([name, *([row.count] if row.count else []), *_mark(row, "$^{{{}}}$")])


def _latex_cell(cell: Cell | None) -> str:
    if cell is None or not cell.n:
        return "-- & "
    spread = f"{{\\scriptsize$\\,\\pm\\,${cell.spread}}}" if cell.spread else ""
    text, spread = (part.replace("-", "$-$") for part in (cell.text, spread))
    return f"\\textbf{{{text}}} & {spread}" if cell.best else f"{text} & {spread}"


def latex_text(text: str) -> str:
    """Text without any character that LaTeX would read as a command, in characters that every engine can set."""
    return "".join(_LATEX.get(char) or _latex_char(char) for char in text)


def _latex_char(char: str) -> str:
    if ord(char) < 0x180:
        return char
    name = unicodedata.name(char, "").split()
    if name[:2] == ["GREEK", "SMALL"] and len(name) == 4:
        return f"$\\{name[3].lower().replace('lamda', 'lambda')}$"
    return f"U+{ord(char):04X}"


def _mark(row: Row, pattern: str) -> list[str]:
    return [pattern.format(row.note)] if row.note else []
