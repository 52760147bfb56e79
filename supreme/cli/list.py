"""``supreme list``: which components exist, read from their files without importing them."""

from collections.abc import Sequence
from typing import get_args

from rich import box
from rich.table import Table
from rich.text import Text

from supreme.cli.console import open_console
from supreme.cli.options import Options
from supreme.components import Component, Kind, listing
from supreme.errors import UnknownNameError

KINDS: tuple[Kind, ...] = get_args(Kind)


def main(command: str, words: Sequence[str]) -> int:
    """List the components of a kind.

    Args:
        command: ``"list"``.
        words: the words after it.

    Raises:
        UnknownNameError: if there is no such kind.
    """
    options = Options(f"supreme {command}", "What exists: name, what it is, where it comes from, what it needs.")
    options.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    kind = options.parse_args(words).kind
    known = next((name for name in KINDS if kind in (name, name.removesuffix("s"))), None)
    if known is None:
        raise UnknownNameError("kind of component", kind, KINDS)
    open_console().print(_table(known, listing(known)))
    return 0


def _table(kind: Kind, components: Sequence[Component]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    shown = {
        kind.removesuffix("s"): [_name(component) for component in components],
        "what it is": [component.summary for component in components],
        "paper": [component.paper for component in components],
        "needs": [", ".join(component.needs) for component in components],
    }
    shown = {header: cells for header, cells in shown.items() if any(cells)}
    for header in shown:
        table.add_column(header, overflow="fold", no_wrap=header == kind.removesuffix("s"))
    for row in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _name(component: Component) -> str:
    """The name to write, with its aliases; a component of a plug-in is marked."""
    name = ", ".join((component.name, *component.aliases))
    return f"{name} [{component.plugin}]" if component.plugin else name
