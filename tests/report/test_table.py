import copy
import math

import pytest

from supreme.experiment.bootstrap import interval_table
from supreme.report import frame, tables
from supreme.report.columns import COLUMNS

SHOWN = [column.key for column in COLUMNS]


def values_by_seed(records, key, **run):
    """Metric values of the runs that match, by seed triple."""
    found = {}
    for record in records:
        if record["status"] == "done" and all(record["run"][name] == value for name, value in run.items()):
            seeds = tuple(record["run"][f"{stage}_seed"] for stage in ("training", "unlearning", "evaluation"))
            if key in record["metrics"]:
                found.setdefault(seeds, []).append(record["metrics"][key])
    return found


def by_hand(records, key, **run):
    """Mean over targets, then mean and sample standard deviation over seeds, in plain Python."""
    means = [sum(values) / len(values) for values in values_by_seed(records, key, **run).values()]
    if not means:
        return None, None, 0
    mean = sum(means) / len(means)
    std = math.sqrt(sum((value - mean) ** 2 for value in means) / (len(means) - 1)) if len(means) > 1 else None
    return mean, std, len(means)


def find(found, scenario="FullClass", dataset="Digits", target=None):
    for table in found:
        if (table.dataset, table.scenario, table.target) == (dataset, scenario, target):
            return table
    raise AssertionError([table.title for table in found])


def row_of(table, method, variant=""):
    return next(row for row in table.rows if (row.method, row.variant) == (method, variant))


def test_every_cell_equals_an_independent_computation(plan):
    records = plan.rich()
    found = tables(frame(records))
    assert len(found) == 3
    checked = 0
    for table in found:
        for row in table.rows:
            run = {"dataset": table.dataset, "scenario": table.scenario, "method": row.method, "variant": row.variant}
            for key, cell in row.cells.items():
                mean, std, n = by_hand(records, key, **run)
                assert cell.n == n
                if n:
                    assert cell.mean == pytest.approx(mean, rel=1e-12, abs=1e-15)
                    assert cell.std == (None if std is None else pytest.approx(std, rel=1e-9, abs=1e-15))
                    checked += 1
                else:
                    assert cell.text == "-"
    assert checked > 700


def test_targets_are_averaged_before_the_spread_is_taken(plan):
    records = plan.records(methods=("SSD",), scenarios=("FullClass",), seeds=(1, 2))
    for record, value in zip(records, (0.0, 0.1, 1.0, 0.9), strict=True):
        record["metrics"] = {"forget/accuracy": value}
    cell = tables(frame(records))[0].rows[0].cells["forget/accuracy"]
    assert cell.label == "50.00 ± 0.00"
    assert cell.n == 2


def test_rows_stand_in_the_order_of_the_paper(plan):
    records = plan.rich()
    names = [row.name for row in find(tables(frame(records[::-1]))).rows]
    paper = ["Original", "Retrain (M_r)", "FT", "BadT", "UNSIR", "RL", "SSD"]
    assert names == [*paper, "SSD (dampening=2)", "SSD (dampening=10)", "LFSSD", "NegGrad"]


def test_columns_are_the_known_ones_then_the_unknown_ones(plan):
    records = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))
    for record in records:
        record["metrics"] |= {"zeta": 1.0, "Beta/x": 2.0, "forget/alpha": 3.0}
    table = tables(frame(records))[0]
    assert [column.key for column in table.columns] == [*SHOWN, "Beta/x", "forget/alpha", "zeta"]
    hidden = {column.key for column in table.hidden}
    assert {"whole/accuracy", "forget/loss", "mia_auc", "utilisation", "forget/zrf_gap"} <= hidden
    assert not hidden & {column.key for column in table.columns}


def test_a_column_that_nobody_measured_is_left_out(plan):
    records = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))
    for record in records:
        del record["metrics"]["layerwise_distance"]
    assert "layerwise_distance" not in [column.key for column in tables(frame(records))[0].columns]


def best_by_hand(table, key, score):
    """Methods with the best printed value."""
    scored = {}
    for row in table.rows:
        cell = row.cells[key]
        if row.method not in ("Original", "Retrain") and cell.n:
            scored[row.name] = score(row)
    return {name for name, value in scored.items() if value == min(scored.values())}


def low(key):
    return lambda row: float(row.cells[key].text)


def high(key):
    return lambda row: -float(row.cells[key].text)


def near(key):
    return lambda row: abs(float(row.cells[key].text))


def test_best_values_follow_the_rules(plan):
    table = find(tables(frame(plan.rich())))
    rules = {column.key: low(column.key) for column in COLUMNS if column.best == "low"}
    rules |= {key: near(key) for key in ("forget/accuracy_gap", "retain/accuracy_gap", "mia_gap")}
    rules |= {key: high(key) for key in ("forget/completeness", "retain/completeness", "speedup")}
    rules["mia"] = lambda row: abs(round(row.cells["mia_gap"].mean, 3))
    rules["forget/zrf"] = lambda row: abs(round(row.cells["forget/zrf_gap"].mean, 3))
    for key, score in rules.items():
        got = {row.name for row in table.rows if row.cells[key].best}
        assert got == best_by_hand(table, key, score), key
        assert got, key
    for key in ("forget/accuracy", "retain/accuracy", "forget/sharpness"):
        assert not any(row.cells[key].best for row in table.rows)


def test_ties_after_rounding_are_all_best_and_references_never(plan):
    records = plan.records(methods=("Original", "Retrain", "SSD", "LFSSD", "JIT"), seeds=(1,), targets=("3",))
    records = [record for record in records if record["run"]["scenario"] == "FullClass"]
    gaps = {"Original": 0.0, "Retrain": 0.0, "SSD": 0.010004, "LFSSD": -0.009996, "JIT": 0.0101}
    for record in records:
        record["metrics"]["forget/accuracy_gap"] = gaps[record["run"]["method"]]
    table = tables(frame(records))[0]
    assert [row.name for row in table.rows if row.cells["forget/accuracy_gap"].best] == ["SSD", "LFSSD"]


def test_zrf_without_its_gap_has_no_best(plan):
    records = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))
    for record in records:
        del record["metrics"]["forget/zrf_gap"]
    assert not any(row.cells["forget/zrf"].best for row in tables(frame(records))[0].rows)


def test_failed_runs_are_counted_explained_and_never_averaged(plan):
    records = plan.rich()
    table = find(tables(frame(records)))
    partly, wholly = row_of(table, "LFSSD"), row_of(table, "NegGrad")
    assert (partly.count, wholly.count, row_of(table, "SSD").count) == ("5/6", "0/6", "")
    assert "ValueError" in table.footnotes[partly.note - 1]
    assert "target 7 seed 261" in table.footnotes[partly.note - 1]
    assert "out of memory" in table.footnotes[wholly.note - 1]
    assert all(cell.text == "-" for cell in wholly.cells.values())
    seeds = values_by_seed(records, "mia", scenario="FullClass", method="LFSSD")
    assert [len(values) for values in seeds.values()] == [2, 1, 2]


def test_partial_metrics_of_a_failed_run_do_not_count(plan):
    records = plan.records(methods=("Retrain", "SSD"), scenarios=("FullClass",))
    plan.fail(records[-1])["metrics"] = {"forget/accuracy": 1.0, "half_done": 1.0}
    table = tables(frame(records))[0]
    assert row_of(table, "SSD").cells["forget/accuracy"].n == 3
    assert len(row_of(table, "SSD").cells["forget/accuracy"].points) == 3
    assert "half_done" not in [column.key for column in table.columns]


def test_a_missing_record_is_shown(plan):
    records = plan.records(methods=("Retrain", "SSD"), scenarios=("FullClass",))[:-1]
    table = tables(frame(records))[0]
    assert row_of(table, "SSD").count == "5/6"
    assert "no record (target 7 seed 262)" in table.footnotes[0]


def test_a_table_of_failures_only_still_shows(plan):
    records = [plan.fail(record) for record in plan.records(methods=("SSD",), seeds=(1,), scenarios=("FullClass",))]
    table = tables(frame(records))[0]
    assert [column.key for column in table.columns] == SHOWN[:4]
    assert table.rows[0].count == "0/2"


def test_every_draw_of_every_seed_counts(plan):
    records = plan.drawn()
    table = tables(frame(records))[0]
    assert [(row.done, row.total, row.count) for row in table.rows] == [(12, 12, "")] * 4
    assert table.footnotes == ()
    assert "3 training seeds, each one's value being the mean over its draws of the samples to forget" in table.caption
    assert "(12 in all: 260 draw 1, 260 draw 2, 260 draw 3, 260 draw 4, 261 draw 1" in table.caption
    cell = row_of(table, "SSD").cells["mia"]
    assert (cell.mean, cell.std, cell.n) == pytest.approx(by_hand(records, "mia", method="SSD"))


def test_failed_and_missing_draws_are_counted_and_named(plan):
    records = plan.drawn()
    for record in [one for one in records if one["run"]["method"] == "LFSSD" and one["run"]["draw_seed"] > 1]:
        plan.fail(record)
    gone = next(one for one in records if one["run"]["method"] == "SSD" and one["run"]["draw_seed"] == 3)
    table = tables(frame([record for record in records if record is not gone]))[0]
    assert row_of(table, "LFSSD").count == "3/12"
    assert row_of(table, "SSD").count == "11/12"
    assert "no record (target 0.05 seed 260 draw 3)" in table.footnotes[0]
    assert table.footnotes[1].startswith("LFSSD: 3 of 12 runs succeeded; the others: ValueError")
    assert "target 0.05 seed 260 draw 2" in table.footnotes[1]
    assert table.footnotes[1].endswith("Its values are means over those 3 (3 seeds, 1 draw).")


def test_a_caption_names_draws_that_have_seeds_of_their_own(plan):
    one = tables(frame(plan.drawn(seeds=(7,))))[0].caption
    assert "4 draws of the samples to forget (7 draw 1, 7 draw 2, 7 draw 3, 7 draw 4) of a single training seed" in one
    assert "single seed (7 draw 3)" in tables(frame(plan.drawn(seeds=(7,), draws=(3,))))[0].caption
    assert "single seed (7)" in tables(frame(plan.drawn(seeds=(7,), draws=(7,))))[0].caption
    both = plan.drawn(seeds=(7,), draws=(1, 2))
    for record in plan.drawn(seeds=(7,), draws=(1, 2)):
        record["run"] |= {"evaluation_seed": 7001}
        both.append(record)
    assert "4 seeds and draws of the samples to forget (" in tables(frame(both))[0].caption


def test_unsir_is_not_applicable_to_random_samples(plan):
    found = tables(frame(plan.records()))
    random = find(found, "RandomSample", target="0.05")
    assert "UNSIR" not in [row.name for row in random.rows]
    assert any("Not applicable: UNSIR" in note for note in random.notes)
    assert not any("UNSIR" in note for note in find(found).notes)


def test_a_record_that_says_not_applicable_becomes_a_note(plan):
    records = plan.records(methods=("Retrain", "UNSIR"), scenarios=("FullClass",))
    for record in records:
        if record["run"]["method"] == "UNSIR":
            record |= {"status": "not_applicable", "metrics": {}}
            record["error"] = {"type": "NotApplicableError", "message": "UNSIR needs a class", "traceback": ""}
    table = tables(frame(records))[0]
    assert [row.method for row in table.rows] == ["Retrain"]
    assert table.notes == ("Not applicable: UNSIR (UNSIR needs a class).",)
    only = tables(frame([record for record in records if record["run"]["method"] == "UNSIR"]))[0]
    assert only.rows == ()
    assert "No run" in only.caption


def test_a_single_seed_has_no_spread_and_says_so(plan):
    table = tables(frame(plan.records(seeds=(7,), scenarios=("FullClass",))))[0]
    assert "single seed (7)" in table.caption
    one = tables(frame(plan.records(seeds=(7,), targets=("3",), scenarios=("FullClass",))))[0]
    assert one.caption.endswith("forget target 3.")
    assert all(cell.std is None and "±" not in cell.label for row in table.rows for cell in row.cells.values())


def test_the_caption_names_seeds_and_targets(plan):
    caption = find(tables(frame(plan.records()))).caption
    assert "3 seeds (260, 261, 262)" in caption
    assert "2 forget targets (3, 7)" in caption


def test_unmatched_seeds_are_named_in_full(plan):
    records = plan.records(seeds=(7,), targets=("3",), scenarios=("FullClass",))
    twins = copy.deepcopy(records)
    for record in records:
        record["run"] |= {"unlearning_seed": 7000, "evaluation_seed": 7000000}
    for record in twins:
        record["run"] |= {"unlearning_seed": 7001, "evaluation_seed": 7001000}
    table = tables(frame([*records, *twins]))[0]
    assert "2 seeds (7/7000/7000000, 7/7001/7001000) of a single training seed" in table.caption
    cell = table.rows[0].cells["mia"]
    assert cell.n == 1
    assert cell.std is None
    assert len(cell.points) == 2


def test_spread_is_over_training_seeds_when_others_are_nested_in_them(plan):
    records = plan.records(targets=("3", "7"), scenarios=("FullClass",), methods=("Retrain", "SSD"), seeds=(1, 2, 3))
    runs = []
    for record in records:
        for j, k in ((0, 0), (0, 1), (1, 0))[: 1 + record["run"]["training_seed"]]:
            twin = copy.deepcopy(record)
            unlearning = 1000 * record["run"]["training_seed"] + j
            twin["run"] |= {"unlearning_seed": unlearning, "evaluation_seed": 1000 * unlearning + k}
            twin["metrics"]["mia"] += 0.1 * j + 0.03 * k
            runs.append(twin)
    data = frame(runs)
    table = tables(data)[0]
    want = interval_table(data, ["mia", "forget/accuracy_gap"], replicates=0)
    for row in table.rows:
        for key in ("mia", "forget/accuracy_gap"):
            line = want[(want["method"] == row.method) & (want["metric"] == key)].iloc[0]
            cell = row.cells[key]
            assert (cell.n, line["n"]) == (3, 3)
            assert cell.mean == pytest.approx(line["mean"], abs=1e-15)
            assert cell.std == pytest.approx(line["std"], abs=1e-15)
    assert "3 training seeds" in table.caption
    assert "8 in all" in table.caption


def test_one_table_per_target_on_request(plan):
    records = plan.records()
    found = tables(frame(records), per_target=True)
    assert [(table.scenario, table.target) for table in found] == [
        ("FullClass", "3"),
        ("FullClass", "7"),
        ("RandomSample", "0.05"),
    ]
    cell = row_of(found[1], "SSD").cells["mia"]
    mean, std, n = by_hand(records, "mia", scenario="FullClass", target="7", method="SSD")
    assert (cell.mean, cell.std, cell.n) == (pytest.approx(mean), pytest.approx(std), n)


def test_fractions_of_random_sample_are_never_averaged(plan):
    records = plan.records(scenarios=("RandomSample",))
    other = copy.deepcopy(records)
    for record in other:
        record["run"]["target"] = "0.5"
    found = tables(frame([*records, *other]))
    assert [table.target for table in found] == ["0.05", "0.5"]


def test_shared_devices_are_noted(plan):
    table = find(tables(frame(plan.rich())))
    assert any(note.startswith("Contended: 20 of 59 runs") for note in table.notes)
    assert not any("Contended" in note for note in find(tables(frame(plan.records()))).notes)


def test_different_hardware_is_noted(plan):
    records = plan.records(scenarios=("FullClass",))
    records[0]["hardware"]["cpu"] = "Another CPU"
    assert any("Another CPU" in note for note in tables(frame(records))[0].notes)


def test_a_mean_over_different_configurations_or_versions_is_noted(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"))
    assert not any("Mixed" in note for note in tables(frame(records))[0].notes)
    other = next(one for one in records if one["run"]["method"] == "SSD" and one["run"]["target"] == "7")
    usual, other["config_hash"] = other["config_hash"], "deadbeef"
    late = records[0]
    late["versions"] = {**late["versions"], "torch": "2.16.0"}
    notes = tables(frame(records))[0].notes
    assert f"Mixed configurations in one mean: SSD on target 7 (deadbeef in 1, {usual} in 2)." in notes
    mixed = "Retrain (M_r) on target 3 (torch 2.16.0 in 1, torch 2.15.0 in 2)"
    assert f"Mixed versions of the software in one mean: {mixed}." in notes
    plan.fail(other)
    assert not any("Mixed configurations" in note for note in tables(frame(records))[0].notes)


def test_targets_may_have_configurations_of_their_own(plan):
    records = plan.records(scenarios=("FullClass",), methods=("Retrain", "SSD"))
    for record in records:
        record["config_hash"] = f"{record['run']['method']} {record['run']['target']}"
    assert tables(frame(records))[0].notes == ()


def test_an_older_record_of_a_run_is_left_out_and_noted(plan):
    records = plan.records(methods=("SSD",), seeds=(1,), targets=("3",), scenarios=("FullClass",))
    newer = copy.deepcopy(records[0]) | {"key": "newer", "finished": "2027-01-01"}
    newer["metrics"]["mia"] = 0.625
    table = tables(frame([newer, *records]))[0]
    assert table.rows[0].cells["mia"].points == {(1, 1, 1): 0.625}
    assert any("Left out: 1 older record" in note for note in table.notes)


def test_infinite_values_are_printed_and_never_best(plan):
    records = plan.records(methods=("SSD", "LFSSD"), seeds=(1, 2), targets=("3",), scenarios=("FullClass",))
    for record in records:
        if record["run"]["method"] == "SSD":
            record["metrics"]["layerwise_distance"] = math.inf
    table = tables(frame(records))[0]
    cell = row_of(table, "SSD").cells["layerwise_distance"]
    assert (cell.label, cell.best) == ("inf", False)
    assert row_of(table, "LFSSD").cells["layerwise_distance"].best


def test_a_selection_of_rows_can_be_tabled(plan):
    data = frame(plan.rich())
    found = tables(data[(data["scenario"] == "RandomSample") & (data["training_seed"] != 262)])
    assert len(found) == 1
    assert "2 seeds (260, 261)" in found[0].caption


def test_no_runs_give_no_tables():
    assert tables(frame([])) == []
