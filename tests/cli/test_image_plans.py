"""The shipped plans for folders of images, on real photographs, through the command line; skipped without them."""

import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SUPREME_TEST_DATA") or ROOT.parent / "shared" / "data")
FOLDERS = {"orl_faces": "orl_faces", "cifar10_images": "cifar10-small"}
ACCURACY = {"orl_faces": 0.85, "cifar10_images": 0.45}


@pytest.fixture(params=FOLDERS)
def plan(request, inside):
    """The plan's name and content, with the path of the images."""
    path = DATA / FOLDERS[request.param]
    if not path.is_dir():
        pytest.skip(f"no images at {path}")
    content = yaml.safe_load((ROOT / "configs" / "plans" / f"{request.param}.yaml").read_text())
    content["datasets"][0]["init_args"]["path"] = str(path)
    return request.param, content


def ran(content, process, inside, **options):
    (inside / "plan.yaml").write_text(yaml.safe_dump(content))
    result = process("run", "plan.yaml", "--output", "results", **options)
    assert result.code == 0, result.err
    runs = pd.read_csv(inside / "results" / "report" / "runs.csv")
    assert set(runs["status"]) == {"done"}
    return result, runs


def test_a_reduced_plan_ends_in_a_table(plan, process, inside):
    _, content = plan
    content["models"][0]["init_args"]["width"] = 8
    content["training"]["epochs"] = 1
    content["datasets"][0]["init_args"]["size"] = 16
    content["scenarios"] = content["scenarios"][:1]
    content["methods"] = ["SSD", "LFSSD"]
    result, runs = ran(content, process, inside)
    assert len(runs) == 4
    assert "FullClass" in result.out
    again = process("run", "plan.yaml", "--output", "results")
    assert "Nothing to do" in again.err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_original_model_is_good(plan, process, inside):
    name, content = plan
    _, runs = ran(content, process, inside, timeout=1700)
    original = runs[(runs["method"] == "Original") & (runs["scenario"] == "FullClass")]
    assert float(original["whole/accuracy"].mean()) >= ACCURACY[name]
    retrained = runs[(runs["method"] == "Retrain") & (runs["scenario"] == "FullClass")]
    assert float(retrained["forget/accuracy"].max()) == 0.0
