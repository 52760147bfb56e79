"""Headings of tables on the page that sort by a click."""

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


def column_id(key: str) -> str:
    """Name of a column that is safe in a selector.

    Example:
        >>> column_id("name"), column_id("forget/accuracy")
        ('name', 'cbd2e1e52')
    """
    return key if key == "name" else f"c{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:8]}"
