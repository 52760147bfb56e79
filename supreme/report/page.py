"""The report as one HTML page that needs no network: tables, plots, and the origin of every number."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

from supreme.experiment.bootstrap import BOOTSTRAP_SEED
from supreme.report.columns import COLUMNS, Column
from supreme.report.figure import Plot, themed
from supreme.report.grid import Grid, grid_html
from supreme.report.intervals import entry
from supreme.report.labels import clean, listing, method_order, natural
from supreme.report.markup import Markup, join, tag
from supreme.report.notes import LEGEND
from supreme.report.origin import run_details
from supreme.report.records import SEEDS
from supreme.report.sortable import button, column_id, runs_link
from supreme.report.study import Study
from supreme.report.table import Cell, Row, Table, runs_of
from supreme.report.table import tables as tables_of
from supreme.report.text import groups

CONFIGS = 2000
TARGETS = 24


def page(
    records: Sequence[Mapping[str, Any]],
    data: pd.DataFrame,
    tables: Sequence[Table],
    plots: Sequence[Sequence[Plot]],
    studies: Sequence[Study] = (),
    stamp: str = "",
) -> str:
    """The whole report as one file.

    Args:
        records: the records, in the order of the rows of ``data``.
        data: their frame.
        tables: result tables.
        plots: the plots of every table.
        studies: the statistics of every table; none leaves them out.
        stamp: tells what the page was made of.

    Returns:
        HTML without any reference to another file.
    """
    title = f"SUPREME report: {listing(sorted(set(data['plan']) - {''}), 3) or 'results'}"
    found = studies or [Study((), ())] * len(tables)
    sections = [
        _section(place, table, figures, runs_of(table, data), records, one)
        for place, (table, figures, one) in enumerate(zip(tables, plots, found, strict=True))
    ]
    script = Markup((files("supreme.report") / "page.js").read_text(encoding="utf-8"))
    body = join(_header(title, data, tables), tag("main", *sections), _footer(), tag("script", script))
    head = _head(title, script, stamp)
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en', class_='no-script')}\n"


def grids_page(title: str, grids: Sequence[Grid]) -> str:
    """Some tables as one file that needs no network.

    Args:
        title: heading of the page.
        grids: what it shows.
    """
    script = Markup((files("supreme.report") / "page.js").read_text(encoding="utf-8"))
    header = tag("header", tag("h1", title))
    body = join(header, tag("main", *(grid_html(grid) for grid in grids)), tag("footer"), tag("script", script))
    return f"<!DOCTYPE html>\n{tag('html', _head(title, script), tag('body', body), lang='en', class_='no-script')}\n"


def _head(title: str, script: str, stamp: str = "") -> Markup:
    """Head of the page; its policy lets nothing load and no script run but ours."""
    style = Markup((files("supreme.report") / "page.css").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        *([tag("meta", name="supreme-records", content=stamp)] if stamp else []),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )


def _header(title: str, data: pd.DataFrame, tables: Sequence[Table]) -> Markup:
    live = data[~data["superseded"].astype(bool)]
    states = live["status"].value_counts()
    facts = [f"{count} run{'s' * (count != 1)} {clean(status).replace('_', ' ')}" for status, count in states.items()]
    seeds = len(live[list(SEEDS)].drop_duplicates())
    facts.append(f"{seeds} seed{'s' * (seeds != 1)}")
    facts.append(f"last finished {clean(max(live['finished']))}")
    links = [tag("li", tag("a", table.title, href=f"#table-{place}")) for place, table in enumerate(tables)]
    return tag(
        "header",
        tag("h1", title),
        tag("ul", *(tag("li", fact) for fact in facts), class_="facts"),
        tag("nav", tag("ul", *links), aria_label="Tables") if len(links) > 1 else "",
    )


def _footer() -> Markup:
    about = [join(tag("dt", column.title), tag("dd", column.about)) for column in COLUMNS if column.about]
    drawn = f"Intervals and tests that draw (bootstrap, permutations) use the fixed seed {BOOTSTRAP_SEED}."
    return tag(
        "footer",
        tag("p", LEGEND),
        tag("p", drawn),
        tag("details", tag("summary", "What the columns mean"), tag("dl", *about, class_="pairs legend")),
    )


def _section(
    place: int,
    table: Table,
    plots: Sequence[Plot],
    runs: pd.DataFrame,
    records: Sequence[Mapping[str, Any]],
    found: Study,
) -> Markup:
    figures = [_figure(plot, f"t{place}{plot.name}") for plot in (*plots, *found.plots)]
    several = table.target is None and 1 < runs["target"].nunique() <= TARGETS
    single = tables_of(runs, per_target=True) if several else []
    list_id = f"runs-{place}"
    names = [(row.name, entry(row)) for row in table.rows] + [("M_r", "Retrain"), ("another M_r", "Retrain")]
    links = {name: runs_link(name, list_id, method, table.target) for name, method in names}
    parts = [_target(part, list_id) for part in single]
    return tag(
        "section",
        tag("h2", table.title),
        tag("p", table.caption, class_="soft"),
        _results(table, list_id),
        tag("div", *figures, class_="plots") if figures else "",
        *(grid_html(grid, links) for grid in found.grids),
        _fold(f"Tables per forget target ({len(parts)})", parts) if parts else "",
        _runs(runs, records, list_id),
        id=f"table-{place}",
    )


def _target(table: Table, list_id: str) -> Markup:
    """The table of one forget target."""
    return join(tag("h3", table.title), tag("p", table.caption, class_="soft"), _results(table, list_id))


def _results(table: Table, list_id: str) -> Markup:
    """A table with its notes; reference rows stay on top when the methods are sorted."""
    parts = groups(table.columns)
    first = {part[0].key for part in parts}
    bodies = [[row for row in table.rows if row.reference], [row for row in table.rows if not row.reference]]
    rows = [
        tag("tbody", *(_row(row, place, table, first, list_id) for place, row in enumerate(body))) for body in bodies
    ]
    grid = tag("table", _thead(parts), *rows, class_="results")
    notes = [tag("li", note, value=place) for place, note in enumerate(table.footnotes, start=1)]
    remarks = [tag("li", note) for note in table.notes]
    return join(
        tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=table.title),
        tag("ol", *notes, class_="notes") if notes else "",
        tag("ul", *remarks, class_="notes") if remarks else "",
    )


def _thead(parts: Sequence[Sequence[Column]]) -> Markup:
    top, below = [tag("th", button("Method", "name"), class_="name", rowspan=2, scope="col", aria_sort="none")], []
    for part in parts:
        if not any(column.name for column in part):
            top.append(_column_head(part[0], part[0].group, rowspan=2, first=True))
            continue
        top.append(tag("th", part[0].group, class_="group", colspan=len(part), scope="colgroup"))
        below += [_column_head(column, column.name, first=column is part[0]) for column in part]
    return tag("thead", tag("tr", *top), tag("tr", *below))


def _column_head(column: Column, text: str, *, first: bool, rowspan: int | None = None) -> Markup:
    return tag(
        "th",
        button(text, column.key),
        class_="first" if first else None,
        rowspan=rowspan,
        scope="col",
        title=column.about or None,
        aria_sort="none",
    )


def _row(row: Row, place: int, table: Table, first: set[str], list_id: str) -> Markup:
    count = tag("span", f" {row.count}", class_="count") if row.count else ""
    mark = tag("sup", row.note) if row.note else ""
    link = runs_link(row.name, list_id, entry(row), table.target)
    head = tag("th", link, count, mark, class_="name reference" if row.reference else "name", scope="row")
    cells = [_cell(column, row.cells.get(column.key), first=column.key in first) for column in table.columns]
    return tag("tr", head, *cells, data_place=place, data_name=row.name)


def _cell(column: Column, cell: Cell | None, *, first: bool) -> Markup:
    names = " ".join([*(["first"] if first else []), *(["best"] if cell and cell.best else [])]) or None
    if cell is None or not cell.n:
        return tag("td", "-", class_=names, data_column=column_id(column.key), data_value="")
    value = tag("b", cell.text) if cell.best else cell.text
    return tag(
        "td",
        value,
        tag("small", f"± {cell.spread}") if cell.spread else "",
        class_=names,
        data_column=column_id(column.key),
        data_value="" if math.isnan(cell.mean) else repr(cell.mean).replace("inf", "Infinity"),
        title=f"{cell.mean:.6g}, n = {cell.n}",
    )


def _figure(plot: Plot, prefix: str) -> Markup:
    caption = tag("figcaption", tag("b", plot.title), plot.about)
    return tag("figure", caption, Markup(themed(plot.svg, prefix)))


def _runs(runs: pd.DataFrame, records: Sequence[Mapping[str, Any]], list_id: str) -> Markup:
    """The runs of a table; the script shows those of one row, and says so in the line that is empty here."""
    whole = len(records) <= CONFIGS
    items = [run_details(records[place], run, whole=whole) for place, run in _numbered(runs)]
    failed = int((runs["status"] == "failed").sum())
    text = f"Runs ({len(runs)}{f', {failed} failed' if failed else ''}): seeds, configuration, versions, hardware"
    find = tag(
        "input", class_="find", type="search", placeholder="Filter, e.g. SSD 261 failed", aria_label="Filter runs"
    )
    every = tag("button", "Show all runs", type="button", class_="every")
    chosen = tag("p", tag("span"), every, class_="chosen", tabindex=-1, role="status", hidden=True)
    return _fold(text, [chosen, find, *items], list_id)


def _fold(title: str, parts: Sequence[Markup], list_id: str | None = None) -> Markup:
    return tag("details", tag("summary", title), *parts, class_="fold", id=list_id)


def _numbered(runs: pd.DataFrame) -> list[tuple[int, dict[Any, Any]]]:
    """Runs with their place among all records: failed ones first, then in order of method, target and seeds."""
    items = list(zip((int(place) for place in runs.index), runs.to_dict("records"), strict=True))
    return sorted(items, key=lambda item: _place(item[1]))


def _place(run: Mapping[Any, Any]) -> tuple[Any, ...]:
    seeds = tuple(run[name] for name in SEEDS)
    return run["status"] == "done", method_order(run["method"], run["variant"]), natural(run["target"]), seeds
