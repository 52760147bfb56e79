"""HTML from Python calls; text is escaped unless it was built here."""

import html


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Text as HTML; markup stays as it is.

    Example:
        >>> escape("<b> & co")
        '&lt;b&gt; &amp; co'
    """
    return text if isinstance(text, Markup) else Markup(html.escape(str(text)))


def join(*children: object, separator: str = "") -> Markup:
    """Several pieces in a row, each escaped unless it is markup."""
    return Markup(separator.join(escape(child) for child in children))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element; children and attribute values are escaped, ``class_`` means ``class``, ``a_b`` means ``a-b``.

    An attribute that is None or False is left out, True gives an attribute without a value.

    Example:
        >>> tag("p", "1 < 2", tag("br"), class_="note", hidden=True)
        '<p class="note" hidden>1 &lt; 2<br></p>'
    """
    parts = []
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {label}")
        elif value is not None and value is not False:
            parts.append(f' {label}="{html.escape(str(value))}"')
    opening = f"<{name}{''.join(parts)}>"
    return Markup(opening if name in ("br", "meta", "link", "input") else f"{opening}{join(*children)}</{name}>")
