"""What can be clicked in the tables of the page: headings that sort, names of rows that lead to their runs."""

import hashlib

from supreme.report.markup import Markup, join, tag


def button(text: str, key: str) -> Markup:
    """The heading of a column as a button that sorts by it; long names may break after a slash.

    Args:
        text: what it says.
        key: what the column is called, in any characters.
    """
    breakable = join(*text.split("/"), separator="/<wbr>")
    return tag("button", breakable, type="button", data_column=column_id(key))


def runs_link(text: object, section: str, entry: str, target: str | None = None) -> Markup:
    """The name of a row as a link to the list of its runs; without a script it leads to the whole list.

    Args:
        text: what it says.
        section: id of the list of runs.
        entry: method and variant, as the runs in the list carry them.
        target: the forget target, None for the runs on all of them.
    """
    return tag("a", text, href=f"#{section}", data_entry=entry, data_target=target, title="The runs behind this row")


def column_id(key: str) -> str:
    """Name of a column that is safe in a selector.

    Example:
        >>> column_id("name"), column_id("forget/accuracy")
        ('name', 'cbd2e1e52')
    """
    return key if key == "name" else f"c{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:8]}"
