import json
import math
import statistics

import pytest
from scipy import stats

from supreme.errors import DataError, UnknownNameError
from supreme.report import seed_grids, write_grids
from supreme.report.grid import grid_markdown

METRIC = "forget/accuracy_gap"
METHODS = ("Original", "Retrain", "FineTune", "SSD")
SECONDS = {"train": 4000.0, "importances": 50.0, "retrain": 300.0, "unlearn": 20.0, "outputs": 5.0, "evaluate": 8.0}


def study(plan, training=4, unlearning=2):
    """Records of a nested study of one target, with the seeds of a plan."""
    records = plan.records(
        seeds=range(1, training * unlearning + 1), targets=("3",), methods=METHODS, scenarios=("FullClass",)
    )
    for record in records:
        number = record["run"]["training_seed"] - 1
        t = 260 + number // unlearning
        u = 1000 * t + number % unlearning if unlearning > 1 else t
        record["run"] |= {"training_seed": t, "unlearning_seed": u, "evaluation_seed": u if u == t else 1000 * u}
        record["key"] = f"{record['run']['method']}{u}".lower()
        effect = 0.02 * math.sin(7 * t) + 0.03 * math.cos(5 * u)
        record["metrics"][METRIC] = 0.0 if record["run"]["method"] == "Retrain" else effect
        record["metrics"]["time_s"] = {"Original": None, "Retrain": 600.0}.get(record["run"]["method"], 30.0)
    return records


def write_stages(root, records):
    """The stages of those records: their seconds, and what an evaluation reads."""

    def write(folder, key, seconds, inputs=None):
        place = root / "stages" / folder / key
        place.mkdir(parents=True, exist_ok=True)
        name = "dropped.json" if folder == "train" else "stage.json"
        (place / name).write_text(json.dumps({"seconds": seconds, "inputs": inputs or {}}))

    for record in records:
        run = record["run"]
        t, u, method = run["training_seed"], run["unlearning_seed"], run["method"]
        keys = {"train": f"o{t}", "retrain": f"r{u}", "evaluate": record["key"]}
        keys["unlearn"] = {"Original": keys["train"], "Retrain": keys["retrain"]}.get(method, f"u{record['key']}")
        if method == "SSD":
            keys["importances"] = f"i{t}"
            write("importances", keys["importances"], SECONDS["importances"])
        record["stages"] = keys
        outputs = {"original_outputs": f"oo{t}", "retrained_outputs": f"or{u}"}
        for key in outputs.values():
            write("outputs", key, SECONDS["outputs"])
        write("train", keys["train"], SECONDS["train"])
        write("unlearn", keys["retrain"], SECONDS["retrain"])
        if keys["unlearn"].startswith("u"):
            write("unlearn", keys["unlearn"], SECONDS["unlearn"])
        write("evaluate", record["key"], SECONDS["evaluate"], outputs)


def values(records, method):
    """Values of a method by training seed, and by unlearning seed inside."""
    found = {}
    for record in records:
        if record["run"]["method"] == method:
            found.setdefault(record["run"]["training_seed"], []).append(record["metrics"][METRIC])
    return list(found.values())


def cheapest(of_training, of_unlearning, costs, wanted):
    """By trying all: cost of a training seed with J unlearning seeds, the half-width of Student's interval."""
    found = []
    for i in range(2, 200):
        quantile = stats.t.ppf(0.975, i - 1)
        widths = {j: quantile * math.sqrt((of_training + of_unlearning / j) / i) for j in range(1, 60)}
        found += [(i * (costs[0] + j * (costs[1] + costs[2])), i, j) for j, width in widths.items() if width <= wanted]
    return min(found)


def test_the_cheapest_seeds_of_a_study_by_its_spread_and_the_seconds_of_its_stages(plan, write_records, tmp_path):
    records = study(plan)
    folder = write_records(records)
    write_stages(folder, records)
    folder = write_records(records)
    (grid,), found = seed_grids(folder, 0.012, [METRIC])
    costs = (4000 + 50 + 5, 300 + 5 + 2 * 20, 4 * 8)  # two methods, four evaluations; M_o is shared
    groups = values(records, "SSD")
    inside = statistics.fmean(statistics.variance(group) for group in groups)
    between = statistics.variance([statistics.fmean(group) for group in groups]) - inside / 2
    assert between > 0
    cost, i, j = cheapest(between, inside, costs, 0.012)
    line = found[found["method"] == "SSD"].iloc[0]
    assert (line["training"], line["unlearning"], line["evaluation"]) == (i, j, 1)
    assert j > 1
    assert line["hours"] == pytest.approx(cost / 3600)
    assert (line["cost_training_s"], line["cost_unlearning_s"], line["cost_evaluation_s"]) == costs
    means = [statistics.fmean(group) for group in groups]
    assert line["half_width_now"] == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(means))
    assert [name for name, _ in grid.rows] == ["FT", "SSD"]
    assert dict(grid.rows)["SSD"][1].text == str(i)
    assert "from the seconds of the stages" in grid.notes[0]
    assert not any("Matched" in note for note in grid.notes)


def test_records_alone_give_their_times_and_no_more_evaluation_seeds(plan, write_records):
    (grid,), found = seed_grids(write_records(study(plan, 5, 1)), 0.01, [METRIC])
    assert found["cost_training_s"].tolist() == [600.0] * 2
    assert found["cost_unlearning_s"].tolist() == [600.0 + 2 * 30.0] * 2
    assert (found["evaluation"] == 1).all()
    assert "time_s of the records" in grid.notes[0]
    assert any(note.startswith("Matched seeds") for note in grid.notes)


def test_a_single_seed_gives_a_sentence_and_no_number(plan, write_records):
    (grid,), found = seed_grids(write_records(study(plan, 1, 1)), 0.01, [METRIC])
    assert found[["training", "unlearning", "evaluation", "hours"]].isna().all(axis=None)
    assert all(field.text == "-" for _, fields in grid.rows for field in fields[1:])
    assert any(note.startswith("All rows: single seed") and "two or more" in note for note in grid.notes)


def test_what_cannot_be_planned_is_said_by_row(plan, write_records):
    records = study(plan, 4, 1)
    for record in records:
        if record["run"]["method"] == "SSD":
            record["metrics"][METRIC] = 0.25
    (grid,), found = seed_grids(write_records(records), 0.01, [METRIC])
    assert found.loc[found["method"] == "SSD", "training"].item() == 2
    assert any(note.startswith(f"SSD ({METRIC}): the values do not change") for note in grid.notes)
    (grid,), _ = seed_grids(write_records(records), 1e-9, [METRIC])
    assert any(note.startswith(f"FT ({METRIC})") and "can reach" in note for note in grid.notes)
    alone = [record for record in records if record["run"]["method"] != "Retrain"]
    (grid,), found = seed_grids(write_records(alone, "alone"), 0.01, [METRIC])
    assert found["hours"].isna().all()
    assert "run Retrain in the plan" in grid.notes[-1]


def test_metrics_are_those_of_the_records(plan, write_records):
    folder = write_records(plan.records(seeds=(1, 2, 3)))
    grids, found = seed_grids(folder, 0.05)
    assert len(grids) == 2
    assert set(found["metric"]) == {"forget/accuracy_gap", "retain/accuracy_gap", "mia_gap"}
    assert set(seed_grids(folder, 5.0, ["time_s"])[1]["metric"]) == {"time_s"}
    with pytest.raises(UnknownNameError, match="did you mean 'mia_gap'"):
        seed_grids(folder, 0.05, ["mia_gaps"])
    bare = plan.records(seeds=(1,), methods=("SSD",), scenarios=("FullClass",))
    for record in bare:
        record["metrics"] = {"time_s": 1.0}
    with pytest.raises(DataError, match="mia_gap"):
        seed_grids(write_records(bare, "bare"), 0.05)


def test_the_plan_is_written_as_the_other_tables_are(plan, write_records, tmp_path):
    grids, found = seed_grids(write_records(study(plan)), 0.02, [METRIC])
    names = {path.name for path in write_grids(tmp_path / "to", "seeds", "Seeds", grids, found)}
    assert names == {"seeds.html", "seeds.md", "seeds.tex", "seeds.csv"}
    assert grid_markdown(grids[0], "") in (tmp_path / "to" / "seeds.md").read_text()
    assert (
        (tmp_path / "to" / "seeds.csv").read_text().splitlines()[0].startswith("dataset,model,scenario,target,method")
    )
