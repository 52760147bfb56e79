import copy
import math
import statistics

import pytest
from scipy import stats

from supreme.errors import DataError
from supreme.report import beside_grids, read_results, side_by_side, write_grids, write_report

METHODS = ("Original", "Retrain", "FineTune", "SSD")


@pytest.fixture
def two(plan, write_records):
    first = plan.records(methods=METHODS, seed=0, seeds=(1, 2, 3, 4))
    second = plan.records(methods=METHODS, seed=5, seeds=(1, 2, 3))
    return first, second, write_records(first, "a"), write_records(second, "b")


def line_of(found, **names):
    for name, value in names.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def per_seed(records, method, key, scenario="FullClass"):
    chosen = [r for r in records if (r["run"]["method"], r["run"]["scenario"]) == (method, scenario)]
    seeds = sorted({r["run"]["training_seed"] for r in chosen})
    return [statistics.fmean(r["metrics"][key] for r in chosen if r["run"]["training_seed"] == s) for s in seeds]


def test_two_folders_with_welchs_interval(two):
    first, second, a, b = two
    found = side_by_side(read_results(a), read_results(b))
    line = line_of(found, method="SSD", scenario="FullClass", metric="mia")
    one, other = per_seed(first, "SSD", "mia"), per_seed(second, "SSD", "mia")
    assert line["difference"] == pytest.approx(statistics.fmean(other) - statistics.fmean(one))
    interval = stats.ttest_ind(other, one, equal_var=False).confidence_interval()
    assert (line["low"], line["high"]) == pytest.approx((interval.low, interval.high))
    assert (line["n_a"], line["n_b"]) == (4, 3)


def test_a_set_beside_itself_differs_by_nothing(two):
    _, _, a, _ = two
    found = side_by_side(read_results(a), read_results(a))
    assert (found["difference"] == 0).all()
    assert len(found) == len(read_results(a))
    for grid in beside_grids(found, ("a", "a")):
        assert not any(entry.mark for _, entries in grid.rows for entry in entries)


def test_the_table_of_a_report_reads_as_its_folder(two, tmp_path):
    _, _, a, _ = two
    write_report(a)
    direct, through = read_results(a), read_results(a / "report" / "tables.csv")
    found = side_by_side(direct, through)
    assert len(found) == len(direct) == len(through)
    assert (found["difference"] == 0).all()


def test_a_published_table_in_its_own_names_and_units(two, tmp_path):
    first, _, a, _ = two
    file = tmp_path / "published.csv"
    file.write_text(
        "model,scenario,method,quantity,mean,std\n"
        "ResNet18,Full-class,FT,forget_accuracy_gap_pp,29.22,5.21\n"
        "ResNet18,Random,SSD,mia,0.06,0.18\n"
        "ViT,Random,SSD,mia,0.1,0.2\n",
        encoding="utf-8",
    )
    found = side_by_side(read_results(a), read_results(file))
    assert len(found) == 2
    line = line_of(found, method="FineTune", metric="forget/accuracy_gap")
    assert line["mean_b"] == pytest.approx(0.2922)
    assert line["std_b"] == pytest.approx(0.0521)
    assert line["mean_a"] == pytest.approx(statistics.fmean(per_seed(first, "FineTune", "forget/accuracy_gap")))
    assert math.isnan(line["low"])
    assert line["dataset"] == "Digits"
    assert line_of(found, metric="mia")["target"] == "0.05"
    grid = beside_grids(found, ("runs", "paper"))[0]
    assert grid.rows[0][1][0].text.endswith("| 29.22")
    assert "orientation" in grid.notes[0]


def test_what_leaves_zero_out_is_marked(plan, write_records):
    first = plan.records(methods=("Retrain", "SSD"), scenarios=("FullClass",), targets=("3",))
    second = copy.deepcopy(first)
    for record in second:
        if record["run"]["method"] == "SSD":
            record["metrics"]["mia"] += 5.0
    a, b = write_records(first, "a"), write_records(second, "b")
    grid = beside_grids(side_by_side(read_results(a), read_results(b)), ("a", "b"))[0]
    fields = dict(grid.rows)["SSD"]
    marks = {title: field.mark for title, field in zip(grid.header[1:], fields, strict=True)}
    assert {title for title, mark in marks.items() if mark} == {"MIA: share"}
    small = fields[grid.header.index("MIA: share") - 1].small
    assert small.startswith("+5.000 [")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_a_table_of_another_form_is_refused(tmp_path, text):
    file = tmp_path / "x.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.csv"):
        read_results(file)


def test_nothing_in_common_is_an_error(two, tmp_path):
    _, _, a, _ = two
    file = tmp_path / "x.csv"
    file.write_text("model,scenario,method,quantity,mean,std\nViT,Random,SSD,mia,0.1,0.2\n", encoding="utf-8")
    with pytest.raises(DataError, match="share no method"):
        side_by_side(read_results(a), read_results(file))


def test_four_files(two, tmp_path):
    _, _, a, b = two
    found = side_by_side(read_results(a), read_results(b))
    files = write_grids(tmp_path / "c", "compare", "Two sets", beside_grids(found, ("a", "b")), found)
    assert [file.name for file in files] == ["compare.html", "compare.md", "compare.tex", "compare.csv"]
    assert files[0].read_text(encoding="utf-8").count("<table") == 2
    assert files[2].read_text(encoding="utf-8").count(r"\begin{tabular}") >= 2
