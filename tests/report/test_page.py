import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from supreme.report import frame, tables
from supreme.report.markup import Markup, escape, tag
from supreme.report.page import page
from supreme.report.plots import plots
from supreme.report.study import study

VOID = {"br", "wbr", "meta", "link", "input"}


class Reader(HTMLParser):
    """Checks that elements nest, and keeps what is needed to look things up."""

    def __init__(self):
        super().__init__()
        self.stack, self.elements, self.texts = [], [], []

    def handle_starttag(self, name, attrs):
        self.elements.append((name, dict(attrs)))
        if name not in VOID:
            self.stack.append(name)

    def handle_startendtag(self, name, attrs):
        self.elements.append((name, dict(attrs)))

    def handle_endtag(self, name):
        assert self.stack.pop() == name

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def all(self, name, **attrs):
        return [found for kind, found in self.elements if kind == name and attrs.items() <= found.items()]

    def text(self):
        return " ".join(text for name, text in self.texts if name not in ("style", "script"))


def build(records):
    data = frame(records)
    found = tables(data)
    return page(records, data, found, [plots(table, data) for table in found])


def parse(text):
    reader = Reader()
    reader.feed(text)
    assert reader.stack == []
    return reader


def test_runs_name_the_draw_of_their_samples(plan):
    text = parse(build(plan.drawn(seeds=(260,), draws=(1, 4)))).text()
    assert "SSD, target 0.05, seed 260, draw 4" in text
    assert "training 260, unlearning 260, evaluation 260, draw 1" in text
    assert ", draw" not in parse(build(plan.records(seeds=(260,), methods=("SSD",), scenarios=("FullClass",)))).text()


@pytest.fixture(scope="module")
def rich_page():
    return {}


@pytest.fixture
def text(plan, rich_page):
    if not rich_page:
        rich_page["text"] = build(plan.rich())
    return rich_page["text"]


def test_the_page_is_well_formed_with_unique_ids(text):
    reader = parse(text)
    ids = [attrs["id"] for _, attrs in reader.elements if attrs.get("id")]
    assert len(ids) == len(set(ids)) > 10


def test_the_page_needs_nothing_from_outside(text):
    reader = parse(text)
    for name, attrs in reader.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            value = attrs.get(key) or "#"
            assert value.startswith(("#", "data:")), (name, value)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_only_our_own_script_may_run(text):
    reader = parse(text)
    scripts = [data for name, data in reader.texts if name == "script"]
    assert len(reader.all("script")) == len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = reader.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not any(key.startswith("on") for _, attrs in reader.elements for key in attrs)


def test_hostile_names_are_shown_as_text(text, plan):
    reader = parse(text)
    assert "<script>alert" not in text
    assert reader.all("i") == []
    assert plan.hostile in reader.text()
    assert "my_pkg.<b>Bold</b>" in reader.text()


def test_every_cell_is_there_with_its_value(text, plan):
    reader = parse(text)
    found = tables(frame(plan.rich()))
    values = [attrs["data-value"] for attrs in reader.all("td")]
    shown = [row.cells[column.key] for table in found for row in table.rows for column in table.columns]
    assert {repr(cell.mean) if cell.n else "" for cell in shown} <= set(values)
    assert all(f"± {cell.spread}" in reader.text() for cell in shown if cell.spread)


def test_every_run_shows_where_it_comes_from(text, plan):
    reader = parse(text)
    words = reader.text()
    records = plan.rich()
    assert len(reader.all("details", **{"class": "run"})) == len(records)
    for record in records:
        assert record["config_hash"] in words
    for phrase in ("torch 2.15.0", "cpu Some CPU", "training 261, unlearning 261, evaluation 261", "Configuration"):
        assert phrase in words


def test_failures_show_their_traceback(text):
    reader = parse(text)
    traces = [data for name, data in reader.texts if name == "pre" and data.startswith("Traceback")]
    assert len(traces) == 7
    assert "5/6" in reader.text()


def test_tables_can_be_sorted_and_read_aloud(text):
    reader = parse(text)
    buttons = {attrs["data-column"] for attrs in reader.all("button") if attrs.get("class") != "every"}
    cells = {attrs["data-column"] for attrs in reader.all("td")}
    assert buttons == cells | {"name"}
    assert all("aria-sort" in attrs for attrs in reader.all("th", scope="col"))
    assert reader.all("html", lang="en")


def rows_and_runs(text):
    """Links of rows by the list that they lead to, and the runs of every list, as attributes."""
    links, runs = {}, {}
    for section in text.split("<section")[1:]:
        reader = Reader()
        reader.feed(f"<section {section.partition('</section>')[0]}")
        (place,) = [attrs["id"] for attrs in reader.all("details", **{"class": "fold"}) if "id" in attrs]
        links[place] = [attrs for attrs in reader.all("a") if "data-entry" in attrs]
        runs[place] = reader.all("details", **{"class": "run"})
    return links, runs


def test_every_row_leads_to_its_own_runs(text, plan):
    links, runs = rows_and_runs(text)
    data = frame(plan.rich())
    found = tables(data)
    assert len(links) == len(found) > 2
    for place, table in enumerate(found):
        here = links[f"runs-{place}"]
        assert {attrs["href"] for attrs in here} == {f"#runs-{place}"}
        for row in table.rows:
            entry = f"{row.method} ({row.variant})" if row.variant else row.method
            assert any(attrs["data-entry"] == entry for attrs in here)
            mine = [attrs for attrs in runs[f"runs-{place}"] if attrs["data-entry"] == entry]
            chosen = (data["method"] == row.method) & (data["variant"] == row.variant)
            chosen &= (data["dataset"] == table.dataset) & (data["scenario"] == table.scenario)
            assert len(mine) == chosen.sum() > 0
        targets = {attrs["data-target"] for attrs in runs[f"runs-{place}"]}
        assert {attrs["data-target"] for attrs in here if "data-target" in attrs} <= targets
    per_target = [attrs for attrs in links["runs-1"] if attrs.get("data-target") == "7"]
    assert len(per_target) == len(found[1].rows)


def test_rows_of_the_statistics_lead_to_the_same_runs(plan):
    records = plan.records(methods=("Retrain", "SSD"), scenarios=("FullClass",))
    data = frame(records)
    (table,) = tables(data)
    text = page(records, data, [table], [[]], [study(table, data)])
    links, _ = rows_and_runs(text)
    ssd = [attrs for attrs in links["runs-0"] if attrs["data-entry"] == "SSD" and "data-target" not in attrs]
    shown = {data for name, data in parse(text).texts if name == "a"}
    assert {"SSD", "Retrain (M_r)", "M_r", "another M_r"} <= shown
    assert len(ssd) > 5  # the result table, overview, intervals, gaps of M_r, sources of spread


def test_runs_stand_in_the_order_of_the_tables(plan):
    records = plan.records(methods=("SSD", "Retrain"), targets=("10", "3"), seeds=(2, 1), scenarios=("FullClass",))
    plan.fail(records[0])
    shown = re.findall(r"</span> (\S+(?: \(M_r\))?), target (\d+), seed (\d)", build(records))
    rest = [(name, target, seed) for name in ("Retrain (M_r)", "SSD") for target in ("3", "10") for seed in "12"]
    assert shown == [("SSD", "10", "2"), *(run for run in rest if run != ("SSD", "10", "2"))]


def test_the_line_of_a_run_names_all_its_seeds(plan):
    (record,) = plan.records(methods=("SSD",), seeds=(7,), targets=("3",), scenarios=("FullClass",))
    assert "SSD, target 3, seed 7" in parse(build([record])).text()
    record["run"] |= {"unlearning_seed": 7001, "evaluation_seed": 7001002}
    assert "SSD, target 3, seed 7/7001/7001002" in parse(build([record])).text()


def test_both_themes_phones_and_printers_are_served(text):
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 600px"):
        assert rule in text
    assert 'name="viewport"' in text


def test_targets_have_tables_of_their_own_unless_they_are_many(text, plan):
    assert "Tables per forget target (2)" in text
    targets = tuple(str(number) for number in range(30))
    many = plan.records(methods=("SSD",), seeds=(1,), targets=targets, scenarios=("FullClass",))
    assert "Tables per forget target" not in build(many)


def test_very_many_runs_keep_their_origin_but_not_their_configuration(plan, monkeypatch):
    monkeypatch.setattr("supreme.report.page.CONFIGS", 1)
    records = plan.records(methods=("SSD",), seeds=(1, 2), targets=("3",), scenarios=("FullClass",))
    words = parse(build(records)).text()
    assert f"records/{records[0]['key']}.json" in words
    assert records[0]["config_hash"] in words
    assert "max_epochs" not in words


def test_sparse_records_are_enough(plan):
    records = plan.records(methods=("SSD",), seeds=(1,), targets=("3",), scenarios=("FullClass",))
    small = [{name: record[name] for name in ("schema", "run", "status", "metrics")} for record in records]
    assert "SSD" in parse(build(small)).text()


def test_markup_escapes_everything_but_itself():
    assert tag("p", "<&>", Markup("<b>"), 3, title='"<', data_x=None, hidden=True) == (
        '<p title="&quot;&lt;" hidden>&lt;&amp;&gt;<b>3</p>'
    )
    assert escape("'") == "&#x27;"
