import itertools
import statistics

import pytest
import torch
from safetensors.numpy import load_file

from supreme.functional.divergence import activation_distance, agreement, js_divergence
from supreme.report import frame, tables, write_report
from supreme.report.distances import distance_grid

METHODS = ("Original", "Retrain", "SSD")
PUBLISHED = {"activation_distance": activation_distance, "js_divergence": js_divergence, "completeness": agreement}


def logits_of(folder, record, part):
    stored = load_file(folder / "stages" / "evaluate" / record["key"] / "outputs.safetensors")
    return torch.tensor(stored["logits"][stored["part"] == part])


def build(plan, folder, records):
    for record in records:  # one set of samples per target, logits of their own for every model
        plan.outputs(folder, [record], seed=0, noise=int(record["key"], 16))
    data = frame(records)
    return data, distance_grid(tables(data)[0], data, records, folder)


def by_hand(folder, records, method, metric, part):
    """Mean distance from the M_r of the other seeds, for every target and seed."""
    chosen = [record for record in records if record["run"]["method"] == method]
    gold = [record for record in records if record["run"]["method"] == "Retrain"]
    values = []
    for one in chosen:
        run = one["run"]
        others = [
            float(PUBLISHED[metric](logits_of(folder, one, part), logits_of(folder, other, part)).double().mean())
            for other in gold
            if other["run"]["target"] == run["target"] and other["run"]["training_seed"] != run["training_seed"]
        ]
        assert len(others) == 2
        values.append(statistics.fmean(others))
    return values


@pytest.mark.parametrize("metric", PUBLISHED)
def test_distances_are_those_of_the_metrics_from_the_other_retrained_models(plan, tmp_path, metric):
    records = plan.records(scenarios=("FullClass",), methods=METHODS)
    _, (grid, found) = build(plan, tmp_path, records)
    titles = {"activation_distance": "Activation distance", "js_divergence": "JS divergence"}
    for (name, method), (part, code) in itertools.product(
        (("another M_r", "Retrain"), ("SSD", "SSD")), (("forget", 1), ("retain", 0))
    ):
        want = by_hand(tmp_path, records, method, metric, code)
        got = found[(found["method"] == method) & (found["metric"] == f"{part}/{metric}")]["value"]
        assert got.tolist() == pytest.approx(want, abs=1e-6)
        entry = dict(grid.rows)[name][grid.header[1:].index(f"{titles.get(metric, 'Completeness')}: {part}")]
        assert entry.text == f"{statistics.median(want):.3f}"
        assert entry.small == f"[{min(want):.3f}, {max(want):.3f}]"


def test_retrained_models_of_different_draws_are_not_compared(plan, tmp_path):
    records = plan.drawn(seeds=(1, 2), draws=(5, 6), methods=METHODS)
    _, (_, found) = build(plan, tmp_path, records)
    assert set(found["others"]) == {1}  # the same draw of the other seed
    assert found.groupby("draw_seed")["value"].size().tolist() == [36, 36]  # 3 methods, 2 seeds, 3 metrics, 2 sets
    assert set(found["metric"].str.partition("/")[0]) == {"forget", "retain"}
    own = plan.drawn(seeds=(1,), draws=(5, 6), methods=METHODS)
    assert build(plan, tmp_path / "one", own)[1] is None


def test_the_report_has_them_where_outputs_were_kept(plan, write_records):
    records = plan.records(scenarios=("FullClass",), methods=METHODS, seeds=(1, 2), targets=("3",))
    folder = write_records(records)
    assert not any(file.name == "retrained_distances.csv" for file in write_report(folder))
    build(plan, folder, records)
    write_records(records)
    assert folder / "report" / "statistics" / "retrained_distances.csv" in write_report(folder)
    text = (folder / "report" / "statistics.md").read_text(encoding="utf-8")
    assert "| another M\\_r | " in text
    assert "Distances from other retrained models" in text
