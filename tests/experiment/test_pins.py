"""Results belong to the images that they were made from."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from supreme.errors import DataError
from supreme.experiment.pins import pin, recall
from supreme.experiment.plan import Plan, load_plan
from supreme.experiment.scheduler import run_plan
from supreme.experiment.status import status
from supreme.experiment.store import Store

PLAN = {
    "name": "folder",
    "datasets": [{"class_path": "ImageFolder", "init_args": {"path": "images", "size": 8}}, "Digits"],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "training": {"epochs": 1, "lr": 0.01},
    "scenarios": [{"class_path": "FullClass", "targets": [1]}],
    "methods": ["Original"],
    "seeds": [5],
    "trainer": {"accelerator": "cpu"},
}


def paint(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPREME_DATA", str(tmp_path / "data"))
    for number in range(20):
        paint(tmp_path / "images" / "ab"[number % 2] / f"{number}.png", number)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "datasets": PLAN["datasets"][:1]}))
    return load_plan("plan.yaml")


def test_a_changed_image_makes_results_stale(plan: Plan) -> None:
    first = pin(plan)
    assert pin(first) == first
    assert run_plan(first).done == 2
    assert run_plan(pin(plan)).reused == 2
    paint(Path("images/a/0.png"), 99)
    second = pin(plan)
    assert second.fingerprints != first.fingerprints
    assert run_plan(second).done == 2


def test_images_that_change_under_a_plan_are_noticed(plan: Plan) -> None:
    paint(Path("images/b/1.png"), 98)
    pinned = pin(plan)
    paint(Path("images/b/1.png"), 99)
    summary = run_plan(pinned)
    assert len(summary.failed) == 2
    assert "have changed since the plan was started" in summary.failed[0].reason


def test_who_looks_at_results_needs_no_images(plan: Plan, tmp_path: Path) -> None:
    run_plan(pin(plan))
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert len(status(plan.output, plan).done) == len(status(plan.output).done) == 2
    assert recall(plan, Store(plan.output)).fingerprints == pin(load_plan("runs/folder/plans/folder.yaml")).fingerprints
    with pytest.raises(DataError, match="nothing is there"):
        pin(plan)


def test_what_never_changes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "datasets": ["Digits", "CIFAR10"]}))
    plan = load_plan("plan.yaml")
    assert pin(plan) is plan
