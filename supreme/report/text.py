"""Result tables for a terminal, in as many blocks of columns as its width asks for."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from supreme.report.columns import Column
from supreme.report.notes import LEGEND
from supreme.report.table import Cell, Row, Table

WIDTH = 120
_NAME = 34


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print tables; what is too wide for the console continues in a further block of columns.

    The best method is bold, and marked with ``*`` where the console cannot show bold text.

    Args:
        tables: what :func:`supreme.report.table.tables` returns.
        console: where to print; None prints on the standard output.
    """
    console = console or Console()
    for table in tables:
        _print(table, console)
    if tables:
        console.print(Text(LEGEND, style="dim"))


def render(tables: Sequence[Table], width: int = WIDTH) -> str:
    """Tables as plain text of a given width."""
    stream = io.StringIO()
    print_tables(tables, Console(file=stream, width=width, color_system=None))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def groups(columns: Sequence[Column]) -> list[list[Column]]:
    """Neighbouring columns that share a heading."""
    found: list[list[Column]] = []
    for column in columns:
        if found and found[-1][0].group == column.group:
            found[-1].append(column)
        else:
            found.append([column])
    return found


def _print(table: Table, console: Console) -> None:
    plain = console.color_system is None
    console.print(Text(table.title, style="bold"))
    console.print(Text(table.caption, style="dim"))
    wide, narrow = (_blocks(table, console.width, gap, plain=plain) for gap in (2, 1))
    gap, blocks = (2, wide) if len(wide) == len(narrow) else (1, narrow)
    for block in blocks:
        console.print()
        console.print(_block(table, block, gap, plain=plain))
    console.print()
    for place, note in enumerate(table.footnotes, start=1):
        console.print(Text(f"[{place}] {note}", style="yellow"))
    for note in table.notes:
        console.print(Text(note, style="dim"))
    if table.footnotes or table.notes:
        console.print()


def _blocks(table: Table, width: int, gap: int, *, plain: bool) -> list[list[Column]]:
    """Columns of a table cut into blocks that fit ``width`` characters; a group of columns stays together if it can."""
    room = width - min(_NAME, max((len(_name(row)) for row in table.rows), default=0))
    cut: list[list[Column]] = [[]]
    used = 0
    for group in groups(table.columns):
        sizes = [_width(table, column, plain=plain) + gap for column in group]
        together = sum(sizes) <= room
        for place, (column, size) in enumerate(zip(group, sizes, strict=True)):
            needed = sum(sizes) if together and not place else size
            if cut[-1] and used + needed > room:
                cut.append([])
                used = 0
            cut[-1].append(column)
            used += size
    return cut


def _width(table: Table, column: Column, *, plain: bool) -> int:
    texts = [_text(row.cells.get(column.key), plain=plain) for row in table.rows]
    return max(map(len, [*column.header.splitlines(), *texts]))


def _block(table: Table, columns: Sequence[Column], gap: int, *, plain: bool) -> RichTable:
    # The box draws one blank between columns, the padding adds the rest of the gap.
    block = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0), show_edge=False)
    block.add_column(Text("\nmethod"), max_width=_NAME, overflow="fold")
    for column in columns:
        header = column.header if "\n" in column.header else f"\n{column.header}"
        block.add_column(Text(header, justify="right"), justify="right", no_wrap=True, overflow="ellipsis")
    for place, row in enumerate(table.rows):
        cells = [row.cells.get(column.key) for column in columns]
        texts = [Text(_text(cell, plain=plain), style="bold green" if cell and cell.best else "") for cell in cells]
        end = row.reference and any(not other.reference for other in table.rows[place + 1 : place + 2])
        block.add_row(Text(_name(row), style="dim" if row.reference else ""), *texts, end_section=end)
    return block


def _name(row: Row) -> str:
    return " ".join([row.name, *([row.count] if row.count else []), *([f"[{row.note}]"] if row.note else [])])


def _text(cell: Cell | None, *, plain: bool) -> str:
    """The cell as printed; a blank keeps the decimals of cells with and without a mark in one column."""
    if cell is None:
        return "-"
    label = f"{cell.text}±{cell.spread}" if cell.spread else cell.text
    return label + ("*" if cell.best else " ") if plain else label
