"""Records of runs that the plans of the folder no longer ask for are left out, and the tables say so."""

import pytest
import yaml

from supreme.errors import DataError
from supreme.experiment.plan import load_plan
from supreme.report import frame, read_records, tables
from supreme.report.records import every_record

PLAN = {
    "name": "small",
    "datasets": ["Digits"],
    "models": ["ResNet18"],
    "scenarios": [{"class_path": "FullClass", "targets": [3, 7]}],
    "methods": ["FineTune", "SSD"],
    "seeds": [1, 2],
}


@pytest.fixture
def kept(tmp_path):
    """Keep a plan beside its results, as a start does; gives the plan."""

    def keep(**changes):
        content = {**PLAN, **changes}
        file = tmp_path / "out" / "plans" / f"{content['name']}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_plan(file)

    return keep


@pytest.fixture
def recorded(plan, write_records):
    """Write the records that a plan makes of some of its runs; gives the folder."""

    def write(made, chosen=lambda run: True, **fields):
        like = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))[0]
        origin = {"plan": made.name, "plan_hash": made.hash, **fields}
        return write_records(
            {**like, **origin, "key": run.key, "run": run.identity, "config_hash": run.config_hash}
            for run in made.runs()
            if chosen(run)
        )

    return write


def shown(folder):
    """(method, target, training seed) of what is read, and the notes of the tables."""
    records = read_records(folder)
    runs = {(one["run"]["method"], one["run"]["target"], one["run"]["training_seed"]) for one in records}
    assert len(runs) == len(records)
    return runs, [note for table in tables(frame(records)) for note in table.notes]


def names(plan):
    return {(run.method, run.target, run.training_seed) for run in plan.runs()}


@pytest.mark.parametrize(
    ("changes", "count", "words"),
    [
        ({"methods": ["FineTune"]}, 4, ("SSD FullClass 3 seed 1", "SSD FullClass 7 seed 2")),
        (
            {"scenarios": [{"class_path": "FullClass", "targets": [3]}]},
            8,
            ("FineTune FullClass 7 seed 1", "Original FullClass 7 seed 2"),
        ),
        ({"seeds": [2]}, 8, ("FineTune FullClass 3 seed 1", "Original FullClass 7 seed 1")),
    ],
)
@pytest.mark.parametrize("again", [True, False])
def test_runs_that_left_the_plan_are_left_out_with_a_note(kept, recorded, changes, count, words, again):
    folder = recorded(kept())
    assert shown(folder) == (names(load_plan(folder / "plans" / "small.yaml")), [])
    now = kept(**changes)
    if again:  # all that is asked for was published again, as after a whole run
        recorded(now)
    runs, (note,) = shown(folder)
    assert runs == names(now)
    assert f"{count} record(s)" in note
    assert all(word in note for word in words)
    assert len(every_record(folder)) == 16


def test_other_settings_outside_a_selection_are_left_out(kept, recorded):
    folder = recorded(kept())
    slower = kept(methods=["FineTune", {"class_path": "SSD", "init_args": {"dampening": 2.0}}])
    recorded(slower, lambda run: run.method == "SSD" and run.training_seed == 1)
    runs, (note,) = shown(folder)
    assert runs == {name for name in names(slower) if name[0] != "SSD" or name[2] == 1}
    assert "2 record(s)" in note


def test_a_longer_plan_keeps_what_it_shares_with_the_one_before(kept, recorded):
    folder = recorded(kept())
    longer = kept(seeds=[1, 2, 3])
    recorded(longer, lambda run: run.training_seed == 3)
    assert shown(folder) == (names(longer), [])


def test_records_without_a_hash_are_judged_by_their_run(kept, recorded):
    folder = recorded(kept(), plan_hash=None)
    kept(methods=["FineTune"])
    runs, notes = shown(folder)
    assert {method for method, _, _ in runs} == {"Original", "Retrain", "FineTune"}
    assert len(notes) == 1


def test_a_run_of_any_plan_of_the_folder_stays(kept, recorded):
    both = kept()
    folder = recorded(both)
    kept(methods=["FineTune"])
    kept(name="other", methods=["SSD"])
    assert shown(folder) == (names(both), [])


@pytest.mark.parametrize("broken", ["methods: [NoSuchMethod]", "a: [", ""])
def test_without_a_readable_plan_everything_stays(kept, recorded, broken):
    made = kept()
    folder = recorded(made)
    kept(methods=["FineTune"])
    if broken:
        (folder / "plans" / "other.yaml").write_text(broken, encoding="utf-8")
    else:
        (folder / "plans" / "small.yaml").unlink()
    assert shown(folder) == (names(made), [])


def test_a_folder_with_records_of_other_plans_alone_is_refused(kept, recorded):
    folder = recorded(kept())
    kept(datasets=["MNIST"])
    with pytest.raises(DataError, match="got 16 of runs that none of them asks for now") as caught:
        read_records(folder / "records")
    assert "\n" not in str(caught.value)
