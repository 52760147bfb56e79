import csv
import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file

from supreme.classifier import ImageClassifier
from supreme.datasets import Digits
from supreme.models.build import NetworkSpec, build
from supreme.models.stored import load_model
from supreme.transforms import Preprocess

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def accuracy(network, images):
    """Share of correct predictions on a split of the digits, without any of our loaders."""
    digits = Digits()
    with torch.no_grad():
        logits = network.eval()(Preprocess(digits.mean, digits.std)(images.images))
    return (logits.argmax(dim=1) == images.targets).double().mean().item()


def test_what_is_written(fitted):
    names = {path.name for path in fitted.iterdir()}
    assert {"model.safetensors", "model.json", "config.yaml", "run.json", "metrics.csv", "checkpoints"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    about = json.loads((fitted / "model.json").read_text())
    assert about["network"] == {"class_path": "supreme.models.resnet.ResNet18", "init_args": {"width": 8}}
    assert about["num_classes"] == 10
    assert about["training"]["epochs"] == 1
    assert about["training"]["batch_size"] == 32
    assert about["fingerprint"] == Digits().fingerprint
    record = json.loads((fitted / "run.json").read_text())
    assert record["status"] == "done"
    assert record["resources"]["time_s"] > 0
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    assert config["data"]["init_args"]["batch_size"] == 32
    rows = list(csv.DictReader((fitted / "metrics.csv").open()))
    logged = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert logged[-1] == pytest.approx(accuracy(load_model(fitted)[0], Digits().test), abs=1e-6)


def test_a_checkpoint_loads_without_arguments(fitted):
    checkpoint = next(fitted.rglob("*.ckpt"))
    torch.load(checkpoint, weights_only=True)
    restored = ImageClassifier.load_from_checkpoint(checkpoint)
    stored = load_file(fitted / "model.safetensors")
    assert restored.model.stem.out_channels == 8
    assert all(torch.equal(value.cpu(), stored[name]) for name, value in restored.model.state_dict().items())


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_a_checkpoint_brings_its_network(command, fitted, supreme):
    checkpoint = next(fitted.rglob("*.ckpt"))
    result = supreme(command, "--ckpt_path", checkpoint, *QUIET)
    assert result.code == 0
    if command == "validate":
        expected = accuracy(load_model(fitted)[0], Digits().test)
        shown = re.search(r"val/accuracy\D*(0\.\d+)", result.out)
        assert shown
        assert float(shown.group(1)) == pytest.approx(expected, abs=1e-6)


def test_the_seed_is_the_training_seed(supreme, inside):
    words = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--network.width=8", "--model.recipe.lr=1e-9")
    assert supreme("fit", "--seed_everything=7", *words, *QUIET).code == 0
    stored = load_file(next(inside.rglob("model.safetensors")))
    fresh = build(NetworkSpec("ResNet18", {"width": 8}), 10, seed=7).state_dict()
    assert torch.allclose(stored["head.weight"], fresh["head.weight"], atol=1e-6)


def test_any_network_and_folder_of_images(supreme, inside, pictures):
    (inside / "nets.py").write_text(
        "from torch import nn\n"
        "def flat(num_classes: int, hidden: int = 4) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, hidden), nn.Linear(hidden, num_classes))\n"
    )
    result = supreme(
        "fit",
        *("--network", "nets.flat", "--network.hidden=3", "--trainer.max_epochs=1", "--trainer.logger=CSVLogger"),
        *("--trainer.logger.save_dir=logs", "--trainer.callbacks+=RunRecord", "--trainer.callbacks.folder=there"),
        *("--data.dataset", "ImageFolder", "--data.dataset.path", pictures("mine"), "--data.dataset.size=8", *QUIET),
    )
    assert result.code == 0, result.err
    about = json.loads(next(inside.glob("logs/**/model.json")).read_text())
    assert about["network"] == {"class_path": "nets.flat", "init_args": {"hidden": 3}}
    assert about["classes"] == ["cat", "dog"]
    assert [path.parent.name for path in inside.rglob("run.json")] == ["there"]


def test_without_logger_everything_is_in_the_root_folder(supreme, inside):
    words = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--network.width=8", "--trainer.logger=false")
    for _ in range(2):  # a second time it replaces the first
        assert supreme("fit", *words, "--trainer.default_root_dir=here", *QUIET).code == 0
    assert {"model.safetensors", "config.yaml", "run.json"} <= {path.name for path in (inside / "here").iterdir()}


def test_a_trial_run_writes_nothing(supreme, inside):
    assert supreme("fit", "--trainer.fast_dev_run=true", "--network.width=8", *QUIET).code == 0
    assert list(inside.iterdir()) == []


def test_weights_and_biases_without_an_account(supreme, inside, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("--trainer.logger=WandbLogger", "--trainer.logger.offline=true", "--trainer.logger.save_dir=wb")
    limits = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--network.width=8")
    assert supreme("fit", *words, *limits, *QUIET).code == 0
    assert list((inside / "wb").rglob("offline-run-*"))


@pytest.mark.parametrize("command", ["fit", "unlearn"])
def test_a_printed_configuration_is_complete(command, supreme, inside):
    words = ("--data.batch_size=16", "--network.width=8", "--seed_everything=3")
    method = ("--method=FT", "--method.epochs=1") if command == "unlearn" else ()
    printed = supreme(command, *method, *words, "--print_config")
    assert printed.code == 0
    (inside / "all.yaml").write_text(printed.out)
    again = supreme(command, "--config=all.yaml", "--print_config")
    assert yaml.safe_load(again.out) == yaml.safe_load(printed.out)
    assert supreme(command, "--config=all.yaml", "--trainer.fast_dev_run=true", *QUIET).code == 0


def test_later_files_win_and_words_win_over_files(supreme, inside):
    (inside / "a.yaml").write_text("data: {init_args: {batch_size: 1, evaluation_batch_size: 2}}\n")
    (inside / "b.yaml").write_text("data: {init_args: {batch_size: 3}}\nseed_everything: 4\n")
    printed = supreme("fit", "-c", "a.yaml", "-c", "b.yaml", "--seed_everything=5", "--print_config")
    config = yaml.safe_load(printed.out)
    assert config["data"]["init_args"] == {
        "batch_size": 3,
        "evaluation_batch_size": 2,
        "augmentation": None,
        "resident": False,
        "dataset": None,
    }
    assert config["seed_everything"] == 5
