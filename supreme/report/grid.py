"""A small table of texts for what the result tables do not hold: intervals, ranks, sources of spread."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supreme.report.formats import latex_text, markdown_text
from supreme.report.markup import Markup, join, tag
from supreme.report.sortable import button, column_id


@dataclass(frozen=True)
class Entry:
    """One field.

    Attributes:
        text: what is printed.
        small: what is printed below it, smaller.
        mark: letters behind it, raised.
        best: whether it is bold.
        value: what the page sorts by; NaN sorts last.
    """

    text: str
    small: str = ""
    mark: str = ""
    best: bool = False
    value: float = math.nan


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        name: short name.
        title: heading.
        about: what it shows, in a sentence or two.
        header: headings of the columns; the first is that of the rows' names.
        rows: the name of every row and its fields.
        notes: remarks below it.
        top: number of rows that stay on top when the page sorts.
        folded: whether the page shows it only on request.
    """

    name: str
    title: str
    about: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = ()
    top: int = 0
    folded: bool = False


def grid_html(grid: Grid, links: Mapping[str, Markup] | None = None) -> Markup:
    """A grid as a part of the page, sortable like the result tables.

    Args:
        grid: the grid.
        links: what leads to the runs of a row, by its name; a name such as "SSD: rank" has the link of "SSD".
    """
    links = links or {}
    head = [tag("th", button(grid.header[0], "name"), class_="name", scope="col", aria_sort="none")]
    head += [tag("th", button(text, text), class_="first", scope="col", aria_sort="none") for text in grid.header[1:]]
    bodies = [grid.rows[: grid.top], grid.rows[grid.top :]]
    rows = [tag("tbody", *(_row(grid, place, links, *row) for place, row in enumerate(body))) for body in bodies]
    table = tag("table", tag("thead", tag("tr", *head)), *rows, class_="results")
    notes = [tag("li", note) for note in grid.notes]
    parts = join(
        tag("p", grid.about, class_="soft"),
        tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=grid.title) if grid.rows else "",
        tag("ul", *notes, class_="notes") if notes else "",
    )
    if grid.folded:
        return tag("details", tag("summary", grid.title), parts, class_="fold")
    return join(tag("h3", grid.title), parts)


def _row(grid: Grid, place: int, links: Mapping[str, Markup], name: str, fields: Sequence[Entry]) -> Markup:
    cells = [_cell(text, field) for text, field in zip(grid.header[1:], fields, strict=True)]
    first, colon, rest = (name, "", "") if name in links else name.partition(": ")
    head = tag("th", links.get(first, first), colon + rest, class_="name", scope="row")
    return tag("tr", head, *cells, data_place=place, data_name=name)


def _cell(column: str, field: Entry) -> Markup:
    value = "" if math.isnan(field.value) else repr(float(field.value)).replace("inf", "Infinity")
    return tag(
        "td",
        tag("b", field.text) if field.best else field.text,
        tag("sup", field.mark, class_="letters") if field.mark else "",
        tag("small", field.small) if field.small else "",
        class_="first best" if field.best else "first",
        data_column=column_id(column),
        data_value=value,
    )


def grid_markdown(grid: Grid, place: str) -> str:
    """A grid in GitHub's Markdown.

    Args:
        grid: the grid.
        place: the result table that it belongs to, "" for none.
    """
    rows = [[markdown_text(text) for text in grid.header], ["---", *["---:"] * (len(grid.header) - 1)]]
    for name, fields in grid.rows:
        rows.append([markdown_text(name), *(_markdown_cell(field) for field in fields)])
    title = f"{grid.title}: {place}" if place else grid.title
    parts = [f"## {markdown_text(title)}", markdown_text(grid.about)]
    parts += ["\n".join(f"| {' | '.join(row)} |" for row in rows)] if grid.rows else []
    parts += ["\n".join(f"- {markdown_text(note)}" for note in grid.notes)] if grid.notes else []
    return "\n\n".join(parts)


def _markdown_cell(field: Entry) -> str:
    text = markdown_text(" ".join(part for part in (field.text, field.small) if part))
    return (f"**{text}**" if field.best else text) + (f" {markdown_text(field.mark)}" if field.mark else "")


def grid_latex(grid: Grid, place: str, label: str, columns: int = 7) -> str:
    """A grid as LaTeX floats that need booktabs, cut into blocks of columns that fit a page.

    Args:
        grid: the grid.
        place: the result table that it belongs to, "" for none.
        label: what it is referred to by.
        columns: most columns of a float.
    """
    title = f"{grid.title}: {place}" if place else grid.title
    starts = range(1, max(2, len(grid.header)), columns)
    return "\n\n".join(_float(grid, title, label, part, start, columns) for part, start in enumerate(starts, 1))


def _float(grid: Grid, title: str, label: str, part: int, start: int, columns: int) -> str:
    caption = f"{title}{' (continued)' if part > 1 else ''}. {grid.about}"
    chosen = slice(start - 1, start - 1 + columns)
    header = [latex_text(text) for text in (grid.header[0], *grid.header[1:][chosen])]
    lines = [" & ".join(header) + r" \\", r"\midrule"]
    for place, (name, fields) in enumerate(grid.rows):
        lines += [r"\midrule"] if grid.top and place == grid.top else []
        lines.append(" & ".join([latex_text(name), *(_latex_cell(field) for field in fields[chosen])]) + r" \\")
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    notes = [f"\\par\\smallskip{{\\footnotesize {latex_text(note)}\\par}}" for note in grid.notes if part == 1]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{latex_text(caption)}}}",
            f"\\label{{tab:supreme-{label}-{part}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}\n{body}\n\\end{{tabular}}",
            *notes,
            r"\end{table}",
        ]
    )


def _latex_cell(field: Entry) -> str:
    text = latex_text(field.text).replace("{-}", "$-$")
    text = f"\\textbf{{{text}}}" if field.best else text
    mark = f"$^{{\\mathrm{{{latex_text(field.mark)}}}}}$" if field.mark else ""
    small = f" {{\\scriptsize {latex_text(field.small).replace('{-}', '$-$')}}}" if field.small else ""
    return text + mark + small
