"""Names as printed: methods in the paper's order and abbreviations, and text that is safe on one line."""

import re
from collections.abc import Iterable

ORDER = ("Original", "Retrain", "FineTune", "BadTeacher", "UNSIR", "RandomLabels", "SSD", "LFSSD")
REFERENCES = ("Original", "Retrain")
LABELS = {"Retrain": "Retrain (M_r)", "FineTune": "FT", "BadTeacher": "BadT", "RandomLabels": "RL"}


def method_label(method: str, variant: str = "") -> str:
    """The paper's abbreviation of a method, and the variant.

    Example:
        >>> method_label("FineTune"), method_label("SSD", "dampening=2")
        ('FT', 'SSD (dampening=2)')
    """
    name = LABELS.get(method, clean(method, 60))
    return f"{name} ({clean(variant, 60)})" if variant else name


def method_order(method: str, variant: str = "") -> tuple[int, str, list[str | float]]:
    """Sort key: original, retrained, the paper's order, then alphabetical; variants in natural order."""
    return (ORDER.index(method) if method in ORDER else len(ORDER), method.lower(), natural(variant))


def clean(text: object, limit: int = 200) -> str:
    r"""Text for one line: no control characters, no line breaks, not longer than ``limit``.

    Example:
        >>> clean("two\n lines\x1b[31m")
        'two lines [31m'
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def printable(text: object) -> str:
    r"""Text of several lines without colour codes and other control characters.

    Example:
        >>> printable("one\x1b[31m red\x1b[0m\n\ttwo\x00")
        'one red\n    two'
    """
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(text)).expandtabs(4)
    return "".join(char for char in plain if char == "\n" or char.isprintable())


def natural(text: str) -> list[str | float]:
    """Sort key that puts "2" before "10".

    Example:
        >>> sorted(["10", "2", "0.05"], key=natural)
        ['0.05', '2', '10']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [float(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def listing(items: Iterable[object], limit: int = 8) -> str:
    """Items in one line, cut after ``limit``.

    Example:
        >>> listing([1, 2, 3], limit=2)
        '1, 2 and 1 more'
    """
    texts = [clean(item, 60) for item in items]
    more = len(texts) - limit
    return ", ".join(texts[:limit]) + (f" and {more} more" if more > 0 else "")
