"""Somebody else's package: a method, a metric and a network of its own go all the way to the final table."""

import csv
import importlib
import json
import sys

import pytest
import torch

from supreme.__main__ import main
from supreme.components import listing, resolve
from supreme.errors import UnknownNameError
from supreme.report import write_report
from supreme.testing import check_method, check_metric

SOURCE = '''
"""Components that live outside the toolkit."""

import torch
from torch import nn
from torch.nn import functional

from supreme import Phase, UnlearningMethod
from supreme.metrics import SampleMean


class Ascent(UnlearningMethod):
    """Gradient ascent on the forget set."""

    needs = ("forget",)

    @property
    def phases(self):
        return [Phase("forget", mode="eval")]

    def loss(self, batch):
        return -functional.cross_entropy(self.model(batch.image), batch.target, reduction="none")

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.001)


class Confidence(SampleMean):
    """Mean probability of the predicted class."""

    key = "confidence"
    inputs = ("unlearned",)

    def update(self, unlearned):
        self._add(self._wide(unlearned).softmax(dim=-1).amax(dim=-1))


def Small(num_classes):
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, num_classes))
'''

PLAN = """
name: downstream
output: results
datasets: [Digits]
models: [elsewhere.parts.Small]
training: {epochs: 2, lr: 0.05, batch_size: 128}
scenarios: [{class_path: FullClass, targets: [3]}]
methods: [elsewhere.parts.Ascent, {class_path: FineTune, init_args: {epochs: 1}}]
metrics: {add: [elsewhere.parts.Confidence]}
seeds: {training: [1]}
trainer: {accelerator: cpu}
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The module of an installed package that this repository knows nothing of."""
    folder = tmp_path / "site" / "elsewhere"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""A package."""\n')
    (folder / "parts.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("elsewhere.parts")
    for name in [name for name in sys.modules if name.split(".")[0] == "elsewhere"]:
        del sys.modules[name]


@pytest.fixture
def installed(elsewhere, tmp_path):
    """What pip writes beside a package that announces a plug-in."""
    info = tmp_path / "site" / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[supreme.plugins]\nelsewhere = elsewhere\n")
    return elsewhere


@pytest.mark.distributed
def test_its_components_keep_the_contracts(elsewhere):
    check_method(elsewhere.Ascent, processes=2)
    check_metric(elsewhere.Confidence, processes=2)


def test_its_method_and_metric_are_in_the_table(elsewhere, tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text(PLAN)
    assert main(["run", "plan.yaml", "--workers", "1"]) == 0
    assert "Ascent" in capsys.readouterr().out

    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "records").glob("*.json")]
    assert {record["run"]["method"] for record in records} == {"Original", "Retrain", "Ascent", "FineTune"}
    assert {record["status"] for record in records} == {"done"}

    files = {path.name: path for path in write_report(tmp_path / "results")}
    rows = list(csv.DictReader(files["runs.csv"].open()))
    columns = {name for name in rows[0] if "confidence" in name}
    values = {f"{place}/confidence" for place in ("whole", "retain", "forget")}
    assert columns == values | {f"{name}_gap" for name in values}
    own = next(row for row in rows if row["method"] == "Ascent")
    assert all(0.1 <= float(own[name]) <= 1 for name in values)

    cells = list(csv.DictReader(files["tables.csv"].open()))
    shown = {cell["metric"] for cell in cells if cell["method"] == "Ascent" and cell["mean"]}
    assert shown >= columns | {"forget/accuracy", "layerwise_distance", "time_s"}


def test_its_metric_is_computed_by_definition(elsewhere):
    logits = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    metric = elsewhere.Confidence()
    metric.update(logits)
    assert float(metric.compute()) == pytest.approx((0.5 + 1 / (1 + 2.718281828459045**-1)) / 2, abs=1e-12)


def test_its_short_names_are_known_once_it_announces_them(installed, capsys):
    assert resolve("methods", "Ascent") == "elsewhere.parts.Ascent"
    assert resolve("metrics", "Confidence") == "elsewhere.parts.Confidence"
    assert "elsewhere" in {component.plugin for component in listing("models")}
    assert main(["list", "methods"]) == 0
    shown = capsys.readouterr().out
    assert "Ascent" in shown
    assert "Gradient ascent on the forget set." in shown


def test_without_an_announcement_the_dotted_path_is_needed(elsewhere):
    with pytest.raises(UnknownNameError, match="supreme list methods"):
        resolve("methods", "Ascent")
