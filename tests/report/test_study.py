import copy
import inspect
import itertools
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supreme.experiment.bootstrap import BOOTSTRAP_SEED, bootstrap_interval, interval_table, nested_bootstrap
from supreme.experiment.comparison import compare, sign_flip
from supreme.experiment.ranking import mean_ranks
from supreme.experiment.variance import decompose, variance_table
from supreme.report import frame, tables
from supreme.report.grid import Entry, Grid, grid_html, grid_latex, grid_markdown
from supreme.report.intervals import ends, interval_grid
from supreme.report.overview import overview_grid
from supreme.report.page import page
from supreme.report.ranks import rank_grid, rank_plot
from supreme.report.retrained import retrained_grid
from supreme.report.sortable import button, column_id
from supreme.report.sources import source_grid, source_plot
from supreme.report.study import Study, joined, study

METHODS = ("Original", "Retrain", "FineTune", "SSD", "LFSSD")


def build(plan, **options):
    records = plan.records(scenarios=("FullClass",), methods=METHODS, **options)
    data = frame(records)
    return records, data, tables(data)[0]


def field(grid, row, column):
    fields = dict(grid.rows)[row]
    return fields[grid.header[1:].index(column)]


def per_seed(records, method, key):
    seeds = sorted({record["run"]["training_seed"] for record in records})
    chosen = [record for record in records if record["run"]["method"] == method]
    return [statistics.fmean(r["metrics"][key] for r in chosen if r["run"]["training_seed"] == seed) for seed in seeds]


def sizes_per_seed(records, method, key):
    """Mean size over the runs of every seed."""
    sized = [{**record, "metrics": {key: abs(record["metrics"].get(key, math.nan))}} for record in records]
    return per_seed(sized, method, key)


def test_intervals_are_those_of_scipy_over_seed_means(plan):
    records, data, table = build(plan, seeds=(1, 2, 3, 4))
    grid, frames = interval_grid(table, data)
    values = per_seed(records, "SSD", "forget/accuracy_gap")
    low, high = stats.t.interval(0.95, 3, statistics.fmean(values), stats.sem(values))
    cell = field(grid, "SSD", "Gap (points): forget")
    assert cell.text == f"{100 * statistics.fmean(values):.2f}"
    assert cell.small == f"[{100 * low:.2f}, {100 * high:.2f}]"
    lines = frames["intervals"]
    line = lines[(lines["method"] == "SSD") & (lines["metric"] == "forget/accuracy_gap")].iloc[0]
    assert line["t_low"] == pytest.approx(low, rel=1e-9)
    assert line["bootstrap_low"] < line["mean"] < line["bootstrap_high"]


def test_no_evaluation_seed_and_no_second_look_moves_a_drawn_interval(plan):
    records, data, table = build(plan, seeds=(1, 2, 3, 4))
    first = study(table, data).frames
    for record in records:
        record["run"]["evaluation_seed"] += 7000  # they drive metrics, and the values are the same
    data = frame(records)
    second = study(tables(data)[0], data).frames
    drawn = {"intervals": ["bootstrap_low", "bootstrap_high"], "ranks": ["low", "high"], "variance": ["low", "high"]}
    for name, columns in drawn.items():
        pd.testing.assert_frame_equal(first[name][columns], second[name][columns], check_exact=True)


def test_the_page_names_the_seed_that_all_drawn_statistics_use(plan):
    records, data, table = build(plan, seeds=(1, 2))
    assert f"use the fixed seed {BOOTSTRAP_SEED}." in page(records, data, [table], [[]])
    drawing = (bootstrap_interval, nested_bootstrap, interval_table, mean_ranks, compare, sign_flip)
    for function in (*drawing, decompose, variance_table):
        assert inspect.signature(function).parameters["seed"].default == BOOTSTRAP_SEED, function
    line = study(table, data).frames["intervals"].iloc[0]
    chosen = data[(data["method"] == line["method"]) & (data["variant"] == line["variant"])]
    by_seed = chosen.groupby("training_seed")[line["metric"]].mean()
    want = bootstrap_interval(by_seed, replicates=2000, seed=BOOTSTRAP_SEED)
    assert (line["bootstrap_low"], line["bootstrap_high"]) == pytest.approx((want.low, want.high), rel=1e-12)


def test_letters_part_what_all_seeds_part_and_few_seeds_part_nothing(plan):
    _, data, table = build(plan, seeds=tuple(range(1, 9)))
    grid, frames = interval_grid(table, data)
    marks = {row.name: field(grid, row.name, "Gap (points): forget").mark for row in table.rows}
    assert marks["Original"] == marks["Retrain (M_r)"] == ""
    assert not set(marks["FT"]) & set(marks["LFSSD"])  # 31 % against 1 % in every seed
    pair = frames["comparison"].query("metric == 'forget/accuracy_gap' and a == 'FineTune' and b == 'LFSSD'").iloc[0]
    assert pair["permutation_p"] == pytest.approx(2 / 2**8)
    assert "share of false discoveries" in grid.about

    _, data, table = build(plan, seeds=(1, 2, 3))
    grid, _ = interval_grid(table, data)
    assert all(not entry.mark for _, entries in grid.rows for entry in entries)
    assert any("below 0.25" in note for note in grid.notes)


def test_a_single_seed_is_labelled_everywhere(plan):
    _, data, table = build(plan, seeds=(1,), targets=("3",))
    found = study(table, data)
    texts = {grid.name: grid.about for grid in found.grids}
    assert set(texts) == {"overview", "intervals", "ranks", "retrained", "variance"}
    assert all("single seed" in text.lower() for text in texts.values()), texts
    assert all(not entry.small.startswith("[") for grid in found.grids for _, row in grid.rows for entry in row)
    assert found.plots == ()
    text = page(plan.records(methods=METHODS, seeds=(1,), targets=("3",)), data, [table], [[]], [found])
    assert text.count("ingle seed") >= 4


def test_ranks_agree_with_scipy(plan):
    records, data, table = build(plan, seeds=(1, 2, 3, 4, 5))
    grid, frames = rank_grid(table, data)
    sizes = [sizes_per_seed(records, name, "forget/accuracy_gap") for name in ("FineTune", "SSD", "LFSSD")]
    ranks = pd.DataFrame(sizes).rank().mean(axis=1).tolist()
    for name, rank in zip(("FT", "SSD", "LFSSD"), ranks, strict=True):
        assert float(field(grid, name, "Gap (points): forget").text) == pytest.approx(rank, abs=0.006)
    arranged = np.array(list(itertools.product(itertools.permutations((1, 2, 3)), repeat=5))).mean(axis=1)
    want = np.mean(arranged.var(axis=1) >= np.var(ranks) - 1e-9)
    assert float(field(grid, "Friedman test: p", "Gap (points): forget").text) == pytest.approx(want, rel=0.06)
    q = stats.studentized_range.ppf(0.95, 3, math.inf) / math.sqrt(2)
    assert float(field(grid, "Critical difference", "MIA: share").text) == pytest.approx(
        q * math.sqrt(12 / 30), abs=0.006
    )
    plot = rank_plot(table, frames["ranks"])
    assert plot is not None
    assert len(plot.data) == 3 * 3


def test_two_methods_on_four_seeds_are_told_apart_by_no_test(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "FineTune", "LFSSD"), seeds=(1, 2, 3, 4))
    data = frame(records)
    table = tables(data)[0]
    grid, frames = rank_grid(table, data)
    assert field(grid, "LFSSD", "Gap (points): forget").text == "1.00"  # in every seed
    assert all(not entry.mark for _, entries in grid.rows for entry in entries)
    assert {entry.text for entry in dict(grid.rows)["Critical difference"]} == {"none"}
    assert field(grid, "Friedman test: p", "Gap (points): forget").text == "0.12"
    assert rank_plot(table, frames["ranks"]) is not None
    assert "the paired test" in interval_grid(table, data)[0].notes[0]


def test_gaps_in_standard_deviations_of_the_retrained_models(plan):
    records, data, table = build(plan, seeds=(1, 2, 3, 4), targets=("3",))
    grid, frames = retrained_grid(table, data)
    gold = per_seed(records, "Retrain", "mia")
    for row, values in (("another M_r: |z|", gold), ("SSD: |z|", per_seed(records, "SSD", "mia"))):
        sizes = []
        for place, value in enumerate(values):
            others = gold[:place] + gold[place + 1 :]
            sizes.append(abs(value - statistics.fmean(others)) / statistics.stdev(others))
        assert field(grid, row, "MIA: share").value == pytest.approx(statistics.median(sizes))
    gaps = frames["gap_z"].query("method == 'SSD'")["mia_gap_z"]
    both = zip(per_seed(records, "SSD", "mia"), gold, strict=True)
    assert gaps.tolist() == pytest.approx([(a - b) / statistics.stdev(gold) for a, b in both])
    assert len(frames["gap_z"]) == len(records)


def test_every_metric_with_a_gap_is_given_in_standard_deviations(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"))
    for place, record in enumerate(records):
        record["metrics"] |= {"forget/sharpness": place**2, "forget/sharpness_gap": 1.0, "forget/width": 2.0}
    data = frame(records)
    grid, frames = retrained_grid(tables(data)[0], data)
    assert {"forget/sharpness", "whole/accuracy", "whole/loss"} <= set(grid.header)
    assert "forget/width" not in grid.header  # nothing says how far it is from M_r
    assert "forget/sharpness_gap_z" in frames["gap_z"]


def test_two_retrained_models_have_a_value_and_no_sizes(plan):
    _, data, table = build(plan, seeds=(1, 2))
    grid, _ = retrained_grid(table, data)
    assert [name for name, _ in grid.rows] == ["M_r: value"]
    assert "three are enough" in grid.notes[0]


def test_a_retrained_model_that_does_not_vary_gives_infinite_gaps(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"))
    for record in records:
        if record["run"]["method"] == "Retrain":
            record["metrics"]["forget/accuracy"] = 0.0
    data = frame(records)
    grid, _ = retrained_grid(tables(data)[0], data)
    assert field(grid, "SSD: |z|", "Accuracy (%): forget").text == "∞"
    assert r"$\infty$" in grid_latex(grid, "", "x")
    assert 'data-value="Infinity"' in grid_html(grid)


def test_sources_of_spread_are_the_mean_squares(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"), seeds=(1, 2, 3, 4), targets=("3",))
    data = frame(records)
    grid, frames = source_grid(tables(data)[0], data)
    found = frames["variance"].query("method == 'SSD' and metric == 'mia_gap' and variance > 0")
    assert found["component"].tolist() == ["training+unlearning+evaluation"]
    want = statistics.variance(per_seed(records, "SSD", "mia_gap"))
    assert found["variance"].iloc[0] == pytest.approx(want, rel=1e-9)
    assert "cannot be told apart" in grid.about
    plot = source_plot(tables(data)[0], frames["variance"])
    assert plot is not None
    assert {row[2] for row in plot.data} == {"forget/accuracy_gap", "retain/accuracy_gap", "mia_gap", "mia_auc_gap"}
    assert not [row for row in plot.data if row[0] == "Retrain"]


def test_frames_of_all_tables_carry_the_table_in_front(plan):
    data = frame(plan.records(methods=("Retrain", "SSD")))
    found = tables(data)
    frames = joined([study(table, data) for table in found], found)
    for name, table in frames.items():
        assert list(table.columns[:4]) == ["dataset", "model", "scenario", "target"], name
    assert set(frames["retrained"]["target"]) == {"3", "7", "0.05"}
    assert set(frames["intervals"]["target"]) == {"", "0.05"}
    assert joined([Study((), ())], found[:1]) == {}


def test_a_table_without_results_has_no_statistics(plan):
    records = [plan.fail(record) for record in plan.records(methods=("Retrain", "SSD"), scenarios=("FullClass",))]
    data = frame(records)
    assert study(tables(data)[0], data) == Study((), ())


def test_everything_that_can_go_wrong_in_a_plan_is_still_printed(plan):
    data = frame(plan.rich())
    for table in tables(data):
        for grid in study(table, data).grids:
            assert "<script>" not in grid_html(grid)
            assert grid_latex(grid, table.title, "x").count(r"\begin{tabular}") >= 1
            lines = [line for line in grid_markdown(grid, table.title).splitlines() if line.startswith("|")]
            assert {line.replace("\\|", "").count("|") for line in lines} <= {len(grid.header) + 1}


def test_a_grid_in_three_formats():
    grid = Grid("g", "A_b", "About.", ("Method", "x"), (("S|SD", (Entry("1.0", "[0, 2]", "ab", True, 1.0),)),), ("n",))
    assert '<sup class="letters">ab</sup>' in grid_html(grid)
    assert r"| S\|SD | **1.0 \[0, 2\]** ab |" in grid_markdown(grid, "")
    assert r"\textbf{1.0}$^{\mathrm{ab}}$ {\scriptsize {[}0, 2{]}}" in grid_latex(grid, "T", "g")
    assert ends(0.0, 1.0, 100, 0) == "[0, 100]"
    assert column_id("x") in button("x", "x")


def test_draws_of_one_seed_show_where_spread_comes_from(plan):
    data = frame(plan.drawn(seeds=(260,), draws=(1, 2, 3, 4)))
    table = tables(data)[0]
    grid, frames = source_grid(table, data)
    assert grid.about.startswith("Random-effects")
    found = frames["variance"].query("method == 'SSD' and metric == 'mia_gap' and variance > 0")
    assert found["component"].tolist() == ["draw"]
    gaps = [record["metrics"]["mia_gap"] for record in plan.drawn(seeds=(260,)) if record["run"]["method"] == "SSD"]
    assert found["variance"].tolist() == pytest.approx([statistics.variance(gaps)])


def test_models_of_different_draws_are_different_in_the_report(plan):
    data = frame(plan.drawn())
    grid, frames = retrained_grid(tables(data)[0], data)
    assert (frames["retrained"]["n"] == 12).all()
    assert (frames["gap_z"].query("method == 'Retrain'").filter(like="_gap_z") == 0).all(axis=None)
    assert "over 12 retrained models" in grid.about
    assert frames["gap_z"]["draw_seed"].nunique() == 4


def test_what_an_evaluation_draws_has_a_component(plan):
    records = []
    for record in plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"), targets=("3",)):
        for extra in range(4):
            twin = copy.deepcopy(record)
            twin["run"]["evaluation_seed"] = 1000 * record["run"]["training_seed"] + extra
            twin["metrics"] |= {"mia_auc": 0.5 + 0.05 * extra**2, "mia_auc_gap": 0.01 * extra**2}
            records.append(twin)
    data = frame(records)
    grid, frames = source_grid(tables(data)[0], data)
    shown = [entries[1].text for name, entries in grid.rows if name == "SSD" and entries[0].text == "mia_auc_gap"]
    assert "evaluation" in shown
    line = frames["variance"].query("method == 'SSD' and metric == 'mia_auc_gap' and component == 'evaluation'").iloc[0]
    assert line["variance"] == pytest.approx(statistics.variance([0.0, 0.01, 0.04, 0.09]), rel=0.4)
    assert line["share"] > 0.9


def test_the_overview_holds_sizes_of_gaps_and_places(plan):
    records, data, table = build(plan, seeds=(1, 2))
    grid, frames = overview_grid(table, data)
    gaps = {
        name: statistics.fmean(sizes_per_seed(records, name, "forget/accuracy_gap"))
        for name in ("FineTune", "SSD", "LFSSD")
    }
    places = dict(zip(gaps, stats.rankdata(list(gaps.values())), strict=True))
    for name, label in zip(gaps, ("FT", "SSD", "LFSSD"), strict=True):
        found = field(grid, label, "Forgetting: mean |gap| (points)")
        assert float(found.text) == pytest.approx(100 * gaps[name], rel=0.01, abs=0.006)
        assert (int(found.small), found.best) == (places[name], places[name] == 1)
    times = {name: statistics.fmean(per_seed(records, name, "time_s")) for name in ("Retrain", "SSD")}
    share = float(field(grid, "SSD", "Cost: time (% of Retrain)").text)
    assert share == pytest.approx(100 * times["SSD"] / times["Retrain"], rel=0.01)
    assert set(frames["overview"]["method"]) == set(gaps)


def test_gaps_of_different_sign_keep_their_size_in_all_statistics(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD", "LFSSD"), seeds=tuple(range(1, 8)))
    for record in records:
        way = 1 if record["run"]["target"] == "3" else -1
        gap = {"SSD": 0.1 * way, "LFSSD": 0.02}.get(record["run"]["method"], 0.0)
        record["metrics"] |= {"forget/accuracy_gap": gap, "mia_gap": gap}
    data = frame(records)
    table = tables(data)[0]
    over, _ = overview_grid(table, data)
    for column in ("Forgetting: mean |gap| (points)", "Privacy: mean |MIA gap| (points)"):
        assert (field(over, "SSD", column).text, field(over, "SSD", column).small) == ("10.0", "2")
        assert (field(over, "LFSSD", column).text, field(over, "LFSSD", column).small) == ("2.00", "1")
    ranks, _ = rank_grid(table, data)
    assert field(ranks, "SSD", "Gap (points): forget").text == "2.00"
    grid, frames = interval_grid(table, data)
    pair = frames["comparison"].query("metric == 'forget/accuracy_gap'").iloc[0]
    assert pair["difference"] == pytest.approx(0.08)
    marks = {name: field(grid, name, "Gap (points): forget").mark for name in ("SSD", "LFSSD")}
    assert marks == {"LFSSD": "a", "SSD": "b"}  # the smaller gaps first, though those of SSD have the mean 0


@pytest.mark.parametrize("nested", [1, 2])
def test_intervals_of_many_seeds_have_their_bootstrap(plan, nested):
    chosen = {"scenarios": ("FullClass",), "methods": ("Retrain", "SSD"), "targets": ("3",)}
    records = [record for draw in range(nested) for record in plan.records(seeds=tuple(range(24)), seed=draw, **chosen)]
    for place, record in enumerate(records):
        record["run"]["unlearning_seed"] += 1000 * (place // (len(records) // nested))
    data = frame(records)
    lines = interval_grid(tables(data)[0], data)[1]["intervals"]
    lines = lines[lines["std"] > 0]
    assert len(lines) > 10
    assert set(lines["n"]) == {24}
    width = (lines["bootstrap_high"] - lines["bootstrap_low"]) / (lines["t_high"] - lines["t_low"])
    assert width.between(0.75, 1.9).all(), width
    assert (lines["bootstrap_low"] < lines["mean"]).all()


def test_a_method_without_a_common_seed_has_no_letter(plan):
    methods = ("Retrain", "SSD", "LFSSD", "FineTune")
    records = plan.records(scenarios=("FullClass",), methods=methods, seeds=tuple(range(1, 9)))
    records = [one for one in records if one["run"]["method"] != "LFSSD" or one["run"]["training_seed"] == 1]
    data = frame(records)
    grid, _ = interval_grid(tables(data)[0], data)
    marks = {name: field(grid, name, "Gap (points): forget").mark for name in ("FT", "SSD", "LFSSD")}
    assert marks == {"SSD": "a", "FT": "b", "LFSSD": ""}
    assert any("LFSSD, with fewer than two training seeds" in note for note in grid.notes)
