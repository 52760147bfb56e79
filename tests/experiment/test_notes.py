"""What a reader has to know of the images reaches the records and the tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supreme.experiment.plan import load_plan
from supreme.experiment.scheduler import run_plan
from supreme.report.records import frame, read_records
from supreme.report.table import tables

PLAN = """
name: faces
datasets: [{class_path: PinsFaceRecognition, init_args: {path: people, size: 8, holdout: HOLDOUT}}]
models: [{class_path: ResNet18, init_args: {width: 8}}]
training: {epochs: 1, lr: 0.01}
scenarios: [{class_path: FullClass, targets: [bill_gates]}]
methods: [Original]
seeds: [5]
trainer: {accelerator: cpu}
"""


@pytest.mark.parametrize("holdout", [0, 0.2])
def test_records_on_training_images_are_marked(holdout: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPREME_DATA", str(tmp_path / "data"))
    for number in range(10):
        file = tmp_path / "people" / f"pins_{('Alex Lawther', 'Bill Gates')[number % 2]}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(file)
    (tmp_path / "plan.yaml").write_text(PLAN.replace("HOLDOUT", str(holdout)))
    plan = load_plan("plan.yaml")
    assert run_plan(plan).done == 2
    for file in (plan.output / "records").glob("*.json"):
        record = json.loads(file.read_text())
        marked = any(note.startswith("The test images are the training images") for note in record["notes"])
        assert marked == (holdout == 0)
        assert record["notes"][-1].startswith("These are 2 people with 10 images")
        assert record["config"]["dataset"]["init_args"]["holdout"] == holdout
    shown = [note for table in tables(frame(read_records(plan.output))) for note in table.notes]
    assert any("PinsFaceRecognition: The test images are the training" in note for note in shown) == (holdout == 0)
