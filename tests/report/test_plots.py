import math
import random
import warnings
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest

from supreme.report import frame, tables
from supreme.report.curves import curve_plot
from supreme.report.plots import LINE, TEXT, pareto, plots, themed


def drawn(records):
    data = frame(records)
    return plots(tables(data)[0], data)


def drawn_of(plan, **options):
    return drawn(plan.records(scenarios=("FullClass",), **options))


def named(records):
    return {plot.name: plot for plot in drawn(records)}


def rows(plot):
    return [dict(zip(plot.header, row, strict=True)) for row in plot.data]


def test_three_plots_with_the_numbers_they_show(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Original", "Retrain", "FineTune", "SSD"))
    found = named(records)
    assert list(found) == ["distributions", "gaps", "cost"]

    points = rows(found["distributions"])
    metrics = ("accuracy", "activation_distance", "js_divergence")
    shown = {f"{part}/{name}" for part in ("forget", "retain") for name in metrics} | {"mia", "speedup"}
    assert {point["metric"] for point in points} == shown
    assert len(points) == 4 * 3 * 8 - 3  # M_o has no speed-up
    for point in points:
        want = [
            record["metrics"][point["metric"]]
            for record in records
            if record["run"]["method"] == point["method"] and record["run"]["training_seed"] == point["training_seed"]
        ]
        assert len(want) == 2
        assert math.isclose(point["value"], sum(want) / 2, rel_tol=1e-12)

    for point in rows(found["cost"]):
        by_seed = []
        for seed in (260, 261, 262):
            mine = [
                record["metrics"]
                for record in records
                if record["run"]["method"] == point["method"] and record["run"]["training_seed"] == seed
            ]
            sizes = [abs(one[f"{part}/accuracy_gap"]) for one in mine for part in ("forget", "retain")]
            by_seed.append(100 * sum(sizes) / 4)
        assert math.isclose(point["gap_points_mean"], sum(by_seed) / 3, rel_tol=1e-9)
    assert [row[0] for row in found["cost"].data] == ["FineTune", "SSD"]
    assert {row[0] for row in found["gaps"].data} == {"Original", "FineTune", "SSD"}


def test_gaps_of_different_sign_do_not_reach_the_front(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD", "LFSSD"), seeds=(1, 2))
    for record in records:
        run = record["run"]
        size = {"SSD": 0.1 if run["target"] == "3" else -0.1, "LFSSD": 0.02}.get(run["method"], 0.0)
        record["metrics"] |= {"forget/accuracy_gap": size, "retain/accuracy_gap": 0.0, "time_s": 1.0}
    found = {row["method"]: row for row in rows(named(records)["cost"])}
    assert found["SSD"]["gap_points_mean"] == pytest.approx(5.0)
    assert found["LFSSD"]["gap_points_mean"] == pytest.approx(1.0)
    assert (found["SSD"]["pareto"], found["LFSSD"]["pareto"]) == (0, 1)


def test_files_are_what_they_say(plan):
    for plot in drawn_of(plan, methods=("Retrain", "SSD")):
        assert plot.png.startswith(b"\x89PNG")
        assert ET.fromstring(plot.svg).tag.endswith("svg")


def test_the_same_table_gives_the_same_bytes_and_leaves_no_settings(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"))
    before = dict(mpl.rcParams)
    first, second = drawn(records), drawn(records)
    assert [(plot.svg, plot.png) for plot in first] == [(plot.svg, plot.png) for plot in second]
    assert dict(mpl.rcParams) == before


def test_names_are_drawn_as_they_are(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"), seeds=(1,), targets=("3",))
    for record in records:
        if record["run"]["method"] == "SSD":
            record["run"]["method"] = "_<b>$x_$&%\u2603"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = drawn(records)
    assert len(found) == 3
    for plot in found:
        texts = [element.text or "" for element in ET.fromstring(plot.svg).iter() if element.tag.endswith("text")]
        assert any("_<b>$x_$&%" in text for text in texts), plot.name


def test_what_cannot_be_drawn_is_left_out(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"), seeds=(1,), targets=("3",))
    for record in records:
        record["metrics"] = {"forget/accuracy": 0.5}
    only = named(records)
    assert list(only) == ["distributions"]
    assert {point["metric"] for point in rows(only["distributions"])} == {"forget/accuracy"}
    for record in records:
        plan.fail(record)
    assert drawn(records) == []


def test_odd_numbers_do_not_stop_a_plot(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD", "LFSSD"), seeds=(1, 2), targets=("3",))
    odd = {"time_s": 0.0, "forget/accuracy_gap": math.inf, "speedup": math.inf, "mia": math.inf}
    for record in records:
        if record["run"]["method"] == "SSD":
            record["metrics"] |= odd
    found = named(records)
    assert [row[0] for row in found["cost"].data] == ["LFSSD"]
    assert "gaps" in found
    assert "mathdefault" not in found["distributions"].svg  # powers of ten are plain numbers


def test_a_page_figure_follows_the_theme_and_has_its_own_ids(plan):
    plot = drawn_of(plan, methods=("Retrain", "SSD"))[0]
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
