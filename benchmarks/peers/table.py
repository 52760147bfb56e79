"""Rows of the comparison: how many times faster, against which bar, as a table and as a file."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A measured quantity, or a ratio of two.

    Attributes:
        job: which job.
        side: whose; ``"ratio"`` for published / ours.
        quantity: what.
        unit: ``"s"``, ``"CPU s"``, ``"x"`` or none.
        median: over the repeats; a ratio's is that of the two medians.
        values: all repeats; a ratio's are those of each turn.
        bar: what is asked for, None where nothing is.
    """

    job: str
    side: str
    quantity: str
    unit: str
    median: float
    values: tuple[float, ...]
    bar: float | None = None


class Bar(NamedTuple):
    """A pair of quantities whose ratio is wanted.

    Attributes:
        job: which job.
        name: of the ratio.
        published: side and quantity above the line.
        ours: quantity below it.
        least: what is asked for.
    """

    job: str
    name: str
    published: tuple[str, str]
    ours: str
    least: float


_WORKERS_0 = "published, loader workers 0"
BARS = (
    Bar("evaluation", "as shipped", ("published", "evaluation"), "evaluation", 8.0),
    Bar("evaluation", "loader workers 0", (_WORKERS_0, "evaluation"), "evaluation", 6.0),
    Bar("evaluation", "as shipped, outputs cached", ("published", "evaluation"), "evaluation, outputs cached", 10.0),
    *(
        Bar("importances", name, ("published", name), name, least)
        for method in ("SSD", "LFSSD")
        for name, least in ((f"{method}, first target", 1.15), (f"{method}, further target", 7.0))
    ),
    Bar("cell", "total", ("published", "total"), "total", 2.5),
)


def ratios(rows: Sequence[Row]) -> Iterator[Row]:
    """How many times faster ours is; in a cell, also for every stage and how much of its side's time each took.

    Args:
        rows: of one job.
    """
    found = {(row.side, row.quantity): row for row in rows if row.unit == "s"}
    for bar in BARS:
        theirs, ours = found.get(bar.published), found.get(("ours", bar.ours))
        if theirs and ours and theirs.job == bar.job:
            yield _ratio(bar.name, theirs, ours, bar.least)
    for (side, quantity), row in found.items():
        if row.job != "cell" or quantity == "total":
            continue
        whole = found[side, "total"]
        share = tuple(part / total for part, total in zip(row.values, whole.values, strict=True))
        yield Row("cell", side, f"share of {quantity}", "", row.median / whole.median, share)
        if side == "published" and ("ours", quantity) in found and quantity != "other":
            yield _ratio(quantity, row, found["ours", quantity])


def _ratio(name: str, theirs: Row, ours: Row, least: float | None = None) -> Row:
    each = tuple(above / below for above, below in zip(theirs.values, ours.values, strict=True))
    return Row(theirs.job, "ratio", name, "x", theirs.median / ours.median, each, least)


def verdict(row: Row) -> str:
    """Whether a bar is reached, "" where there is none."""
    return "" if row.bar is None else ("reached" if row.median >= row.bar else "missed")


def write(rows: Sequence[Row], about: dict[str, Any], path: Path) -> None:
    """Print the table and write the file.

    Args:
        rows: all of them.
        about: hardware, versions and settings, for every line of the file.
        path: the file.
    """
    print(", ".join(f"{name}: {value}" for name, value in about.items()) + "\n")
    print("| job | side | quantity | n | median | bar | |\n|---|---|---|---|---|---|---|")
    for row in rows:
        median, bar = f"{row.median:.3f} {row.unit}".strip(), "" if row.bar is None else f">= {row.bar:g} x"
        print(f"| {row.job} | {row.side} | {row.quantity} | {len(row.values)} | {median} | {bar} | {verdict(row)} |")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["job", "side", "quantity", "unit", "n", "median", "all", "bar", "verdict", *about])
        for row in rows:
            every = " ".join(f"{value:.4f}" for value in row.values)
            bar = "" if row.bar is None else f"{row.bar:g}"
            head = [row.job, row.side, row.quantity, row.unit, len(row.values), f"{row.median:.4f}", every, bar]
            table.writerow([*head, verdict(row), *about.values()])
    print(f"\nWritten to {path}")
