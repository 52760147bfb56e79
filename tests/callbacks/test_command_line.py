import json
import sys

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

import supreme.callbacks
from supreme.callbacks import ElapsedTime, PeakMemory, RunRecord, Utilisation

QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_steps=2",
]


class Data(BoringDataModule):
    def export(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "splits.json").write_text("{}")


def command_line(*words):
    return LightningCLI(BoringModel, Data, args=["fit", *QUIET, *words], save_config_kwargs={"overwrite": True})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["supreme"])


def found(trainer, kind):
    return next(callback for callback in trainer.callbacks if isinstance(callback, kind))


def test_added_on_the_command_line(tmp_path):
    trainer = command_line(
        "--trainer.callbacks+=supreme.callbacks.ElapsedTime",
        "--trainer.callbacks.include_data=false",
        "--trainer.callbacks+=supreme.callbacks.PeakMemory",
        "--trainer.callbacks+=supreme.callbacks.Utilisation",
        "--trainer.callbacks.interval_s=0.5",
        "--trainer.callbacks+=supreme.callbacks.ExportSplits",
        "--trainer.callbacks.folder=splits",
        "--trainer.callbacks+=supreme.callbacks.RunRecord",
        "--trainer.callbacks.folder=record",
    ).trainer
    assert found(trainer, ElapsedTime).time_s > 0
    assert found(trainer, ElapsedTime).include_data is False
    assert found(trainer, PeakMemory).peak_memory_bytes >= 0
    assert found(trainer, Utilisation).interval_s == 0.5
    assert (tmp_path / "splits" / "splits.json").exists()
    record = json.loads((tmp_path / "record" / "run.json").read_text())
    assert record["resources"]["time_s"] == found(trainer, ElapsedTime).time_s
    assert record["config"]["trainer"]["max_steps"] == 2


def test_from_a_file(tmp_path):
    callbacks = [
        {"class_path": "supreme.callbacks.ElapsedTime"},
        {"class_path": "supreme.callbacks.RunRecord", "init_args": {"folder": "record"}},
    ]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    trainer = command_line("--config", "run.yaml").trainer
    assert found(trainer, ElapsedTime).time_s > 0
    assert found(trainer, RunRecord).record["status"] == "done"


@pytest.mark.parametrize("name", supreme.callbacks.__all__)
def test_public_names_lead_somewhere(name):
    assert getattr(supreme.callbacks, name).__doc__
