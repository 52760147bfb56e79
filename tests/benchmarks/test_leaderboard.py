"""The committed leaderboard is what the committed records make."""

from pathlib import Path

import pandas as pd
import pytest

from supreme.report import leaders, write_grids

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


def test_so_are_the_numbers_and_every_row_names_its_plan_and_seeds(made):
    data, committed = (pd.read_csv(folder / "leaderboard.csv", dtype={"target": str}) for folder in (made, RESULTS))
    pd.testing.assert_frame_equal(data, committed, check_exact=False, rtol=1e-9)
    assert len(data) > 0
    assert data["plan_hash"].str.fullmatch("[0-9a-f]{16}").all()
    assert (data["seeds"].str.split().str.len() > 1).all()
    assert (data["gap_size_n"] > 1).all()
