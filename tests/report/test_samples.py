import numpy as np
import pytest

from supreme.report import frame, tables, write_report
from supreme.report.outputs import read_outputs
from supreme.report.samples import sample_plots

METHODS = ("Original", "Retrain", "SSD")


@pytest.fixture
def drawn(plan, write_records, tmp_path):
    records = plan.records(methods=METHODS, scenarios=("FullClass",), seeds=(1, 2))
    folder = tmp_path / "out"
    plan.outputs(folder, records)
    data = frame(records)
    return records, folder, sample_plots(tables(data)[0], data, records, folder)


def rows(plot):
    return [dict(zip(plot.header, row, strict=True)) for row in plot.data]


def outputs_of(records, folder, method, target="3", seed=1):
    for record in records:
        run = record["run"]
        if (run["method"], run["target"], run["training_seed"]) == (method, target, seed):
            return read_outputs(folder, record)
    raise LookupError


def test_four_plots_with_their_numbers(drawn):
    records, folder, plots = drawn
    found = {plot.name: plot for plot in plots}
    assert list(found) == ["loss", "entropy", "confusion", "roc"]
    for name in ("loss", "entropy"):
        for method in METHODS:
            one = outputs_of(records, folder, method)
            for part in ("forget", "retain", "test"):
                bars = [row for row in rows(found[name]) if (row["method"], row["set"]) == (method, part)]
                values = getattr(one, name)[one.sets[part]]
                assert sum(row["count"] for row in bars) == len(values) == 30
                assert sum(row["share"] for row in bars) == pytest.approx(1)
                above = sum(row["count"] for row in bars if row["low"] >= bars[15]["low"])
                assert above == int((values >= bars[15]["low"]).sum())
    shares = {(row["method"], row["predicted"]): row["share"] for row in rows(found["confusion"])}
    one = outputs_of(records, folder, "SSD")
    forget = one.log_p[one.part == 3].argmax(axis=1)
    assert shares["SSD", 1] == pytest.approx(np.mean(forget == 1))
    assert shares["Original", 0] > 0.9 > 0.1 > shares["SSD", 0]


def test_the_attack_curve_is_a_mean_over_targets_and_seeds(drawn):
    records, folder, plots = drawn
    curve = [row for row in rows(plots[-1]) if row["method"] == "SSD"]
    assert {row["n"] for row in curve} == {4}
    point = next(row for row in curve if row["false_positive_rate"] == pytest.approx(0.1))
    rates = []
    for target in ("3", "7"):
        for seed in (1, 2):
            one = outputs_of(records, folder, "SSD", target, seed)
            others = np.sort(one.loss[one.part == 1])  # the forgotten class' own test samples
            rates.append(np.mean(one.loss[one.part == 3] < others[3]))  # 3 of 30 false alarms are allowed
    assert point["true_positive_rate_mean"] == pytest.approx(np.mean(rates), abs=1e-12)
    assert point["true_positive_rate_std"] == pytest.approx(np.std(rates, ddof=1), abs=1e-12)


def test_without_outputs_there_are_no_such_plots(plan, tmp_path):
    records = plan.records(methods=METHODS, scenarios=("FullClass",), seeds=(1,))
    data = frame(records)
    assert sample_plots(tables(data)[0], data, records, tmp_path) == []
    failed = [plan.fail(record) for record in records]
    assert sample_plots(tables(data)[0], frame(failed), failed, tmp_path) == []


def test_the_report_holds_them(plan, write_records):
    records = plan.records(methods=METHODS, scenarios=("RandomSample",), seeds=(1,))
    folder = write_records(records)
    plan.outputs(folder, records)
    write_records(records)
    names = {file.name for file in write_report(folder)}
    stem = "digits-resnet18-randomsample-0.05"
    assert {f"{stem}-{name}.{kind}" for name in ("loss", "confusion", "roc") for kind in ("svg", "png", "csv")} <= names
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Loss-threshold membership attack" in page
    assert "not the trained attack behind the MIA columns" in page
    assert "mathdefault" not in page


def test_histograms_are_of_one_draw_of_the_samples_to_forget(plan, tmp_path):
    """The first that M_o and M_r both have, for every model."""
    records = plan.drawn(seeds=(1,), draws=(5, 6), methods=METHODS)
    for record in records:
        plan.outputs(tmp_path, [record], seed=record["run"]["draw_seed"], noise=int(record["key"], 16))
    left = [r for r in records if (r["run"]["method"], r["run"]["draw_seed"]) != ("Original", 5)]
    data = frame(left)
    histogram = next(plot for plot in sample_plots(tables(data)[0], data, left, tmp_path) if plot.name == "loss")
    for method in METHODS:
        one = next(r for r in left if (r["run"]["method"], r["run"]["draw_seed"]) == (method, 6))
        loss = read_outputs(tmp_path, one).loss
        bars = [row for row in rows(histogram) if (row["method"], row["set"]) == (method, "forget")]
        values = loss[read_outputs(tmp_path, one).sets["forget"]]
        for bar in bars[1:-1]:
            assert bar["count"] == ((values >= bar["low"]) & (values < bar["high"])).sum()
