import math
import random
import warnings
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from supreme.report import frame, tables
from supreme.report.curves import curve_plot
from supreme.report.plots import LINE, TEXT, pareto, plots, themed


def table_of(plan, **options):
    return tables(frame(plan.records(scenarios=("FullClass",), **options)))[0]


def named(table):
    return {plot.name: plot for plot in plots(table)}


def test_three_plots_with_the_numbers_they_show(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Original", "Retrain", "FineTune", "SSD"))
    table = tables(frame(records))[0]
    found = named(table)
    assert list(found) == ["accuracy", "gaps", "cost"]

    points = [dict(zip(found["accuracy"].header, row, strict=True)) for row in found["accuracy"].data]
    assert len(points) == 4 * 2 * 3
    for point in points:
        want = [
            record["metrics"][f"{point['set']}/accuracy"]
            for record in records
            if record["run"]["method"] == point["method"] and record["run"]["training_seed"] == point["training_seed"]
        ]
        assert len(want) == 2
        assert math.isclose(point["accuracy"], sum(want) / 2, rel_tol=1e-12)

    for row in found["cost"].data:
        point = dict(zip(found["cost"].header, row, strict=True))
        by_seed = []
        for seed in (260, 261, 262):
            gaps = [
                sum(
                    record["metrics"][f"{part}/accuracy_gap"]
                    for record in records
                    if record["run"]["method"] == point["method"] and record["run"]["training_seed"] == seed
                )
                / 2
                for part in ("forget", "retain")
            ]
            by_seed.append(100 * (abs(gaps[0]) + abs(gaps[1])) / 2)
        assert math.isclose(point["gap_points_mean"], sum(by_seed) / 3, rel_tol=1e-9)
    assert [row[0] for row in found["cost"].data] == ["FineTune", "SSD"]
    assert {row[0] for row in found["gaps"].data} == {"Original", "FineTune", "SSD"}


def test_files_are_what_they_say(plan):
    for plot in plots(table_of(plan, methods=("Retrain", "SSD"))):
        assert plot.png.startswith(b"\x89PNG")
        assert ET.fromstring(plot.svg).tag.endswith("svg")


def test_the_same_table_gives_the_same_bytes_and_leaves_no_settings(plan):
    table = table_of(plan, methods=("Retrain", "SSD"))
    before = dict(mpl.rcParams)
    first, second = plots(table), plots(table)
    assert [(plot.svg, plot.png) for plot in first] == [(plot.svg, plot.png) for plot in second]
    assert dict(mpl.rcParams) == before


def test_names_are_drawn_as_they_are(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"), seeds=(1,), targets=("3",))
    for record in records:
        if record["run"]["method"] == "SSD":
            record["run"]["method"] = "_<b>$x_$&%\u2603"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plots(tables(frame(records))[0])
    assert len(found) == 3
    for plot in found:
        texts = [element.text or "" for element in ET.fromstring(plot.svg).iter() if element.tag.endswith("text")]
        assert any("_<b>$x_$&%" in text for text in texts), plot.name


def test_what_cannot_be_drawn_is_left_out(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"), seeds=(1,), targets=("3",))
    for record in records:
        record["metrics"] = {"forget/accuracy": 0.5}
    assert [plot.name for plot in plots(tables(frame(records))[0])] == ["accuracy"]
    for record in records:
        plan.fail(record)
    assert plots(tables(frame(records))[0]) == []


def test_odd_numbers_do_not_stop_a_plot(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD", "LFSSD"), seeds=(1, 2), targets=("3",))
    odd = {"time_s": 0.0, "forget/accuracy_gap": math.inf}
    for record in records:
        if record["run"]["method"] == "SSD":
            record["metrics"] |= odd
    found = named(tables(frame(records))[0])
    assert [row[0] for row in found["cost"].data] == ["LFSSD"]
    assert "gaps" in found


def test_a_page_figure_follows_the_theme_and_has_its_own_ids(plan):
    plot = plots(table_of(plan, methods=("Retrain", "SSD")))[0]
    text = themed(plot.svg, "a1")
    root = ET.fromstring(text)
    assert "width" not in root.attrib
    assert "viewBox" in root.attrib
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(name.startswith("a1-") for name in ids)
    used = {value.split("#")[1].rstrip(")") for value in text.split('"') if value.startswith(("url(#", "#"))}
    assert used <= set(ids)
    assert TEXT not in text
    assert LINE not in text
    assert "currentColor" in text
    assert "metadata" not in text


@pytest.mark.parametrize("seed", range(3))
def test_the_front_holds_exactly_what_nothing_beats(seed):
    rng = random.Random(seed)
    points = [(rng.randint(0, 6), rng.randint(0, 6)) for _ in range(12)]
    front = set(pareto(points))
    for place, (x, y) in enumerate(points):
        beaten = any((a <= x and b < y) or (a < x and b <= y) for a, b in points)
        assert (place in front) != beaten


def test_training_curves_are_of_each_model_once(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Original", "Retrain", "SSD"))
    for record in records:
        seed, target = record["run"]["training_seed"], record["run"]["target"]
        record["stages"] |= {"train": f"o{seed}", "retrain": f"r{seed}{target}"}
        record["loss_curves"] = {"original": [2.0, 1.0, seed - 259], "retrained": [3.0, int(target)]}
    data = frame(records)
    plot = curve_plot(tables(data)[0], data, records)
    assert plot.data[2] == ("original", 3, 2.0, 1.0, 3.0, 3)  # three seeds
    assert plot.data[4] == ("retrained", 2, pytest.approx(5.0), 3.0, 7.0, 6)  # and two targets
    assert len(plot.data) == 5
    assert curve_plot(tables(data)[0], data, [{}] * len(records)) is None
