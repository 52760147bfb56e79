"""The committed leaderboard is what the committed records make."""

from pathlib import Path

import pandas as pd
import pytest

from supreme.experiment.plan import load_plan
from supreme.experiment.stage import digest
from supreme.report import leaders, write_grids
from supreme.report.records import every_record

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/records"))
REMEDY = "run 'supreme report --leaderboard benchmarks/results/*/ --output benchmarks/results'"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    grids, data = leaders(FOLDERS)
    folder = tmp_path_factory.mktemp("board")
    write_grids(folder, "leaderboard", "Leaderboard", grids, data)
    return folder


@pytest.mark.parametrize("kind", ["md", "tex"])
def test_every_table_is_that_of_the_records(made, kind):
    texts = [(folder / f"leaderboard.{kind}").read_text(encoding="utf-8") for folder in (made, RESULTS)]
    assert texts[0] == texts[1], REMEDY


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_record_is_of_a_run_of_the_plan_beside_it(folder):
    plans = [load_plan(file) for file in sorted((folder / "plans").glob("*.yaml"))]
    asked = {(plan.name, plan.hash): {run.key: run.identity for run in plan.runs()} for plan in plans}
    for record in every_record(folder):
        assert asked[record["plan"], record["plan_hash"]][record["key"]] == record["run"]
        settings = {name: value for name, value in record["config"].items() if name != "seeds"}
        assert record["config_hash"] == digest(settings)
        seeds = {f"{name}_seed": value for name, value in record["config"]["seeds"].items()}
        assert seeds.items() <= record["run"].items()
        assert record["status"] == "failed" or record["git_commit"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_command_that_made_them_lies_beside_them(folder):
    script = (folder / "run.sh").read_text(encoding="utf-8")
    done = [record for record in every_record(folder) if record["status"] == "done"]
    commits = {record["git_commit"].removesuffix("-dirty") for record in done}
    assert all(f"git checkout {commit}" in script for commit in commits)
    for name in {record["plan"] for record in every_record(folder)}:
        assert f"supreme run benchmarks/plans/{name}.yaml" in script


def test_so_are_the_numbers_and_every_row_names_its_plan_and_seeds(made):
    data, committed = (pd.read_csv(folder / "leaderboard.csv", dtype={"target": str}) for folder in (made, RESULTS))
    pd.testing.assert_frame_equal(data, committed, check_exact=False, rtol=1e-9)
    assert len(data) > 0
    assert data["plan_hash"].str.fullmatch("[0-9a-f]{16}").all()
    assert (data["seeds"].str.split().str.len() > 1).all()
    assert (data["gap_size_n"] > 1).all()
