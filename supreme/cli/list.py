"""``supreme list``: which components exist, read from their files without importing them; which results differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import yaml
from rich import box
from rich.table import Table
from rich.text import Text

from supreme.cli.console import open_console
from supreme.cli.options import Options
from supreme.components import Component, Kind, elsewhere, listing
from supreme.errors import UnknownNameError

KINDS: tuple[Kind, ...] = get_args(Kind)
CORRECTIONS = "corrections"


def main(command: str, words: Sequence[str]) -> int:
    """List the components of a kind, or the corrections of the published implementation.

    Args:
        command: ``"list"``.
        words: the words after it.

    Raises:
        UnknownNameError: if there is no such kind.
    """
    options = Options(f"supreme {command}", "What exists: name, what it is, where it comes from, what it needs.")
    options.add_argument("kind", metavar="KIND", help=", ".join((*KINDS, CORRECTIONS)))
    kind = options.parse_args(words).kind
    if kind == CORRECTIONS:
        open_console().print(_grid(correction_columns(), "what"))
        return 0
    known = next((name for name in KINDS if kind in (name, name.removesuffix("s"))), None)
    if known is None:
        raise UnknownNameError("kind of component", kind, (*KINDS, CORRECTIONS))
    open_console().print(_table(known, listing(known)))
    further = sorted(elsewhere(known))
    if further:
        open_console().print(f"Of torchvision.models: {', '.join(further)}", highlight=False)
    return 0


def corrections() -> list[dict[str, str]]:
    """Where results differ from those of the published implementation: what, published, here, why, restore.

    Example:
        >>> corrections()[0]["what"]
        'evaluation'
    """
    text = Path(__file__).with_name("corrections.yaml").read_text(encoding="utf-8")
    found: list[dict[str, str]] = yaml.safe_load(text)
    return found


def correction_columns() -> dict[str, list[str]]:
    """The corrections by column, under the headers that a reader sees."""
    headers = {
        "what": "what",
        "published": "published implementation",
        "here": "here",
        "why": "why",
        "restore": "to get the published one",
    }
    return {header: [row[name].replace("`", "") or "-" for row in corrections()] for name, header in headers.items()}


def _table(kind: Kind, components: Sequence[Component]) -> Table:
    shown = {
        kind.removesuffix("s"): [_name(component) for component in components],
        "what it is": [component.summary for component in components],
        "paper": [component.paper for component in components],
        "needs": [", ".join(component.needs) for component in components],
        "precision": [", ".join(component.precisions) for component in components],
    }
    return _grid({header: cells for header, cells in shown.items() if any(cells)}, kind.removesuffix("s"))


def _grid(shown: Mapping[str, Sequence[str]], whole: str) -> Table:
    """A table of columns, one of which is never broken."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in shown:
        table.add_column(header, overflow="fold", no_wrap=header == whole)
    for row in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


def _name(component: Component) -> str:
    """The name to write, with its aliases; a component of a plug-in is marked."""
    name = ", ".join((component.name, *component.aliases))
    return f"{name} [{component.plugin}]" if component.plugin else name
