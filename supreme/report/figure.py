"""What every plot of a report is: a figure in one style, as SVG and PNG, with the numbers that it shows."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

TEXT, LINE, ACCENT, ABOVE, BELOW = "#25252b", "#c9c9d1", "#3b7fcb", "#c8453b", "#2f6fb5"
COLOURS = ("#3b7fcb", "#d9722c", "#2c9a6b", "#a463b0", "#c8453b", "#8d6e4b", "#3aa7c4", "#8a8d1f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 5.0
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": LINE,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "supreme",
    "svg.fonttype": "none",
    "legend.frameon": False,
    "savefig.dpi": 160,
}


@dataclass(frozen=True)
class Plot:
    """A figure and the numbers that it shows.

    Attributes:
        name: short name, part of the file name.
        title: heading.
        about: how to read it, in one sentence.
        header: names of the data columns.
        data: the numbers, row by row.
        svg: the figure as vector graphics.
        png: the figure as pixels on white.
    """

    name: str
    title: str
    about: str
    header: tuple[str, ...]
    data: tuple[tuple[Any, ...], ...]
    svg: str
    png: bytes


def themed(svg: str, prefix: str) -> str:
    """A figure for a page: colours that follow the page's theme, ids that are unique on it, no fixed size.

    Args:
        svg: a figure as it was drawn.
        prefix: what makes the ids unique, letters and digits.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1), count=1
    )
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'xlink:href="#{prefix}-')
    return body.replace(TEXT, "currentColor").replace(LINE, "var(--line)")


def drawn(
    name: str, title: str, about: str, header: tuple[str, ...], data: Sequence[tuple[Any, ...]], figure: Figure
) -> Plot:
    """Lay a figure out and save it in both formats.

    Args:
        name: short name, part of the file name.
        title: heading.
        about: how to read it.
        header: names of the data columns.
        data: the numbers that it shows, row by row.
        figure: what was drawn, inside :func:`style`.
    """
    engine = figure.get_layout_engine()
    if engine is not None:  # lay out once, not once per format
        engine.execute(figure)
        figure.set_layout_engine("none")
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None}, transparent=True)
    figure.savefig(png, format="png", metadata={"Software": None}, facecolor="white")
    return Plot(name, title, about, header, tuple(data), svg.getvalue(), png.getvalue())


@contextmanager
def style() -> Iterator[None]:
    """The look of all plots, for as long as it lasts.

    Names may hold characters that the plot font lacks; they are drawn as boxes, without a warning.
    """
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def plain_ticks(axis: Axis, most: int) -> None:
    """Powers of ten as plain numbers, none between them.

    Args:
        axis: a logarithmic axis.
        most: number of labels that have room.
    """
    axis.set_major_locator(LogLocator(numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
