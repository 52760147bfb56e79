"""Where tables are printed."""

from rich.console import Console

WIDTH = 160  # where the output is no terminal


def open_console() -> Console:
    """The standard output, with room for wide tables where it is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    return console
