"""The three tables of the paper, in its form: blocks of model and scenario, methods in its order, two decimals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from supreme.report.columns import COLUMNS, Column, number
from supreme.report.formats import latex_text, markdown_text
from supreme.report.labels import clean
from supreme.report.table import Cell, Row, Table

PAPER = "Andreou et al. 2026, arXiv:2606.00380"
FIELDS = ("table", "dataset", "model", "scenario", "target", "method", "variant", "metric", "mean", "std", "n", "best")
SCENARIOS = {"FullClass": "Full-class", "SubClass": "Sub-class", "RandomSample": "Random"}


@dataclass(frozen=True)
class Layout:
    """What one of the tables shows.

    Attributes:
        name: short name, part of labels.
        title: caption.
        keys: its metrics.
        gold: whether M_r has a row.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    gold: bool = False


LAYOUTS = (
    Layout(
        "main",
        "Accuracy gaps to the retrained model (percentage points) and layer-wise distance",
        ("forget/accuracy_gap", "retain/accuracy_gap", "layerwise_distance"),
    ),
    Layout(
        "distances",
        "Activation distances to the retrained model and gap of the membership attack",
        ("forget/activation_distance", "retain/activation_distance", "mia_gap"),
    ),
    Layout("raw", "Accuracies (%) and membership attack", ("forget/accuracy", "retain/accuracy", "mia"), gold=True),
)


@dataclass(frozen=True)
class Line:
    """One method in one block.

    Attributes:
        row: its row of the result table.
        cells: printed mean, printed spread and whether it is bold, by metric.
    """

    row: Row
    cells: tuple[tuple[str, str, bool], ...]


def paper_columns(layout: Layout) -> list[Column]:
    """The columns of a table, with the paper's two decimals.

    Args:
        layout: which table.
    """
    known = {column.key: column for column in COLUMNS}
    return [replace(known[key], digits=2) for key in layout.keys]


def paper_lines(table: Table, layout: Layout) -> list[Line]:
    """The block of one result table: M_r where it is shown, then the methods; UNSIR never with random samples.

    Args:
        table: the result table.
        layout: which of the paper's tables.
    """
    rows = [
        row
        for row in table.rows
        if (layout.gold and row.method == "Retrain")
        or not (row.reference or (row.method == "UNSIR" and table.scenario == "RandomSample"))
    ]
    columns = paper_columns(layout)
    best = [set() if layout.gold else _best(column, rows) for column in columns]
    return [
        Line(
            row,
            tuple(
                _cell(column, row.cells.get(column.key), place in top)
                for column, top in zip(columns, best, strict=True)
            ),
        )
        for place, row in enumerate(rows)
    ]


def _best(column: Column, rows: Sequence[Row]) -> set[int]:
    """Places of the smallest printed size; ties all."""
    sizes = {
        place: abs(float(number(cell.mean * column.scale, 2)))
        for place, row in enumerate(rows)
        if (cell := row.cells.get(column.key)) is not None and cell.n and cell.mean == cell.mean
    }
    return {place for place, size in sizes.items() if size == min(sizes.values())}


def _cell(column: Column, cell: Cell | None, best: bool) -> tuple[str, str, bool]:
    if cell is None or not cell.n:
        return "-", "", False
    spread = "" if cell.std is None else number(cell.std * column.scale, 2)
    return number(cell.mean * column.scale, 2), spread, best


def block_name(table: Table) -> str:
    """Heading of a block: model and scenario, and the dataset's name and the fraction."""
    scenario = SCENARIOS.get(table.scenario, table.scenario)
    target = f" {table.target}" if table.target else ""
    return f"{clean(table.dataset, 60)}: {clean(table.model, 60)}, {clean(f'{scenario}{target}', 60)}"


def paper_markdown(tables: Sequence[Table]) -> str:
    """The three tables in GitHub's Markdown.

    Args:
        tables: the result tables, each of which becomes a block.
    """
    parts = ["# Tables in the form of the paper", markdown_text(_note(tables))]
    for layout in LAYOUTS:
        columns = paper_columns(layout)
        rows = [["Model and scenario", "Method", *(markdown_text(column.title) for column in columns)]]
        rows.append(["---", "---", *["---:"] * len(columns)])
        for table in tables:
            for place, line in enumerate(paper_lines(table, layout)):
                texts = [_markdown_cell(*cell) for cell in line.cells]
                rows.append(["" if place else markdown_text(block_name(table)), markdown_text(line.row.name), *texts])
        parts += [f"## {markdown_text(layout.title)}", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
    return "\n\n".join(parts) + "\n"


def _markdown_cell(text: str, spread: str, best: bool) -> str:
    label = f"{text} ± {spread}" if spread else text
    return f"**{label}**" if best else label


def _note(tables: Sequence[Table]) -> str:
    text = f"As in {PAPER}: mean ± sample standard deviation, two decimals, best after rounding bold, ties all bold."
    single = all(cell.std is None for table in tables for row in table.rows for cell in row.cells.values())
    return f"{text} Single seed: there is no spread." if single else text


def paper_latex(tables: Sequence[Table]) -> str:
    """The three tables as LaTeX floats that need booktabs.

    Args:
        tables: the result tables, each of which becomes a block.
    """
    floats = [_float(layout, tables) for layout in LAYOUTS]
    return "\n\n".join(["% Needs \\usepackage{booktabs} in the preamble.", *floats]) + "\n"


def _float(layout: Layout, tables: Sequence[Table]) -> str:
    columns = paper_columns(layout)
    width = 1 + 2 * len(columns)
    heads = [f"\\multicolumn{{2}}{{c}}{{{latex_text(column.title)}}}" for column in columns]
    lines = [" & ".join(["Method", *heads]) + r" \\"]
    for table in tables:
        block = f"\\multicolumn{{{width}}}{{l}}{{\\emph{{{latex_text(block_name(table))}}}}} \\\\"
        lines += [r"\midrule", block, r"\addlinespace[2pt]"]
        for line in paper_lines(table, layout):
            name = latex_text(line.row.name).replace(r"(M\_r)", "($M_r$)")
            lines.append(" & ".join([name, *(_latex_cell(*cell) for cell in line.cells)]) + r" \\")
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\small",
            f"\\caption{{{latex_text(f'{layout.title}. {_note(tables)}')}}}",
            f"\\label{{tab:supreme-paper-{layout.name}}}",
            f"\\begin{{tabular}}{{l{'r@{}l' * len(columns)}}}\n{body}\n\\end{{tabular}}",
            r"\end{table}",
        ]
    )


def _latex_cell(text: str, spread: str, best: bool) -> str:
    if text == "-":
        return "-- & "
    text = text.replace("-", "$-$")
    shown = f"$\\,\\pm\\,${spread}" if spread else ""
    return f"\\textbf{{{text}}} & \\textbf{{{shown}}}" if best and shown else f"{_bold(text, best)} & {shown}"


def _bold(text: str, best: bool) -> str:
    return f"\\textbf{{{text}}}" if best else text


def paper_rows(tables: Sequence[Table]) -> list[tuple[Any, ...]]:
    """All cells of the three tables at full precision, under the names of ``FIELDS``.

    Args:
        tables: the result tables.
    """
    found: list[tuple[Any, ...]] = []
    for layout in LAYOUTS:
        for table in tables:
            place = (layout.name, table.dataset, table.model, table.scenario, table.target or "")
            for line in paper_lines(table, layout):
                for key, (text, _, best) in zip(layout.keys, line.cells, strict=True):
                    cell = line.row.cells.get(key)
                    if text != "-" and cell is not None:
                        std = "" if cell.std is None else cell.std
                        found.append(
                            (*place, line.row.method, line.row.variant, key, cell.mean, std, cell.n, int(best))
                        )
    return found
