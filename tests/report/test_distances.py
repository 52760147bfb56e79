import itertools
import math
import statistics

import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from supreme.errors import DataError
from supreme.functional.divergence import activation_distance, agreement, js_divergence
from supreme.metrics import LayerwiseDistance
from supreme.report import frame, tables, write_report
from supreme.report.distances import distance_grid
from supreme.report.weights import weight_distances

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


def stored(folder, records, width=3):
    """A network in the place of every M_r, BatchNorm with statistics of its own."""
    networks = {}
    for seed, record in enumerate(records):
        record["stages"]["retrain"] = f"weights{seed}"
        torch.manual_seed(seed)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, width, 1), torch.nn.BatchNorm2d(width))
        network[1].running_mean.fill_(float(seed))
        place = folder / "stages" / "unlearn" / f"weights{seed}"
        place.mkdir(parents=True)
        save_file(network.state_dict(), place / "model.safetensors")
        networks[record["run"]["training_seed"]] = network
    return networks


def layerwise(a, b, **arguments):
    metric = LayerwiseDistance(**arguments)
    metric.update(a, b)
    return float(metric.compute())


@pytest.mark.parametrize("exclude", [(), "1."])
def test_retrained_models_have_the_layerwise_distance_of_the_metric(plan, tmp_path, exclude):
    records = plan.records(scenarios=("FullClass",), methods=METHODS, targets=("3",))
    networks = stored(tmp_path, [record for record in records if record["run"]["method"] == "Retrain"])
    for record in records:
        named = {"class_path": "supreme.metrics.LayerwiseDistance", "init_args": {"exclude": exclude}}
        record["config"]["metrics"] = {"named": [named], "added": []}
    _, (grid, found) = build(plan, tmp_path, records)
    lines = found[found["metric"] == "layerwise_distance"]
    assert set(lines["method"]) == {"Retrain"}
    assert len(lines) == len(networks) == 3
    for line in lines.to_dict("records"):
        ours = networks[line["training_seed"]]
        want = [layerwise(ours, other, exclude=exclude) for other in networks.values() if other is not ours]
        assert line["value"] == pytest.approx(statistics.fmean(want), rel=1e-9)
    column = grid.header[1:].index("Layer-wise distance")
    assert [row[1][column].text == "-" for row in grid.rows] == [row[0] != "another M_r" for row in grid.rows]


def test_weights_that_are_gone_unknown_to_numpy_or_of_another_network(plan, tmp_path):
    records = plan.records(scenarios=("FullClass",), methods=METHODS, targets=("3",))
    gold = [record for record in records if record["run"]["method"] == "Retrain"]
    stored(tmp_path, gold)
    files = [tmp_path / "stages" / "unlearn" / f"weights{seed}" / "model.safetensors" for seed in range(3)]
    files[2].unlink()
    _, (_, found) = build(plan, tmp_path, records)
    assert found.loc[found["metric"] == "layerwise_distance", "others"].tolist() == [1, 1]
    save_file({"0.weight": torch.zeros(3, dtype=torch.bfloat16)}, files[0])
    assert all(math.isnan(value) for value in weight_distances(files[0], files[1:2]))
    save_file({"0.weight": torch.zeros(3, 3, 1, 1), "2.weight": torch.zeros(1)}, files[0])
    with pytest.raises(DataError, match=r"cannot be compared .*2\.weight"):
        weight_distances(files[0], files[1:2])
    save_file({"0.weight": torch.zeros(4)}, files[0])
    with pytest.raises(DataError, match="cannot be compared"):
        weight_distances(files[0], files[1:2])


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
