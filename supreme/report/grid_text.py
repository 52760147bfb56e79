"""Grids on a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from supreme.report.grid import Grid


def print_grids(grids: Sequence[Grid], console: Console | None = None) -> None:
    """Print grids; what is too wide for the console is folded inside its column.

    Args:
        grids: what to print.
        console: where to print; None prints on the standard output.
    """
    console = console or Console()
    for grid in grids:
        console.print(Text(grid.title, style="bold"))
        console.print(Text(grid.about, style="dim"))
        block = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        for place, text in enumerate(grid.header):
            block.add_column(Text(text), justify="right" if place else "left", overflow="fold")
        for name, fields in grid.rows:
            block.add_row(Text(name), *(Text(f"{field.text}{field.mark}\n{field.small}".rstrip()) for field in fields))
        console.print(block)
        for note in grid.notes:
            console.print(Text(note, style="dim"))
        console.print()
