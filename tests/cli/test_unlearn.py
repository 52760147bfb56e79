import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from supreme.classifier import Recipe
from supreme.cli.trainer import trainer_arguments
from supreme.datasets import Digits
from supreme.distributed import FSDP2, quiet_trainer
from supreme.methods import SSD, Retrain
from supreme.models.stored import load_model
from supreme.scenarios import FullClass
from supreme.transforms import Augment, Preprocess

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
SMALL = ("--network.width=8", "--training.epochs=1")
MINE = """
from supreme import Phase, UnlearningMethod
from torch.nn import functional
import torch

class Ascent(UnlearningMethod):
    '''Gradient ascent on the forget set.'''

    def __init__(self, original, lr: float = 1e-3, seed: int = 0):
        super().__init__(original, seed)
        self.lr = lr

    @property
    def phases(self):
        return [Phase("forget")]

    def loss(self, batch):
        return -functional.cross_entropy(self.model(batch.image), batch.target, reduction="none")

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=self.lr)
"""


def folder_of(result):
    return re.search(r"M_u is in (.*)", result.out)[1]


def table(result):
    """The printed numbers by row."""
    lines = [line.split() for line in result.out.splitlines() if line.strip().startswith("M_")]
    return {
        words[0]: [float(word) for word in words if re.fullmatch(r"\d+\.\d\d", word)]
        for words in lines
        if "is" not in words
    }


def same(first, second):
    a, b = (load_file(f"{folder}/model.safetensors") for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_nothing_but_a_method(process, supreme, inside):
    """The first command trains M_o and keeps it; the next one, in another process, takes it from there."""
    (inside / "my_pkg.py").write_text(MINE)
    first = process("unlearn", "--method", "my_pkg.Ascent", *SMALL, *QUIET)
    assert first.code == 0, first.err
    assert "none given, so train ResNet18 on Digits, seed 0, 1 epoch" in first.err
    kept = re.search(r"kept in (\S+)", first.err)[1]
    assert not [line for line in first.err.splitlines() if not line.startswith("Original model:")]
    second = supreme("unlearn", "--method", "LFSSD", *SMALL, *QUIET)
    assert second.code == 0
    assert second.err == f"Original model: reusing {kept}\n"
    assert table(first)["M_o"] == table(second)["M_o"]
    names = {path.name for path in (inside / folder_of(second)).iterdir()}
    wanted = {"model.safetensors", "model.json", "config.yaml", "run.json", "splits.json", "class_counts.csv"}
    assert wanted <= names
    record = json.loads((inside / folder_of(second) / "run.json").read_text())
    assert record["status"] == "done"
    assert record["config"]["method"]["class_path"].endswith("LFSSD")
    assert {"time_s", "peak_memory_bytes", "utilisation"} <= set(record["resources"])


def test_the_numbers_are_those_of_the_stored_models(unlearned, fitted, supreme):
    result = supreme("unlearn", "--method=FT", "--method.epochs=1", "--data.forget=3", "--original", fitted, *QUIET)
    digits = Digits()
    for row, folder in (("M_o", fitted), ("M_u", folder_of(result))):
        network, shares = load_model(folder)[0], []
        for images in (digits.test, digits.train):
            with torch.no_grad():
                right = network(Preprocess(digits.mean, digits.std)(images.images)).argmax(dim=1) == images.targets
            forget = images.targets == 3
            shares += [100 * right[forget].double().mean().item(), 100 * right[~forget].double().mean().item()]
        assert table(result)[row][:4] == pytest.approx(shares, abs=0.0051)
    assert same(unlearned, folder_of(result))


def test_an_evaluation_that_fails_leaves_the_model(unlearned, fitted, supreme, inside, monkeypatch):
    """What took hours is on the disk before anything is compared."""

    def fail(*_arguments, **_named):
        raise MemoryError("no memory left")

    monkeypatch.setattr("supreme.cli.unlearn.Evaluation", fail)
    with pytest.raises(RuntimeError) as error:
        supreme("unlearn", "--method=FT", "--method.epochs=1", "--data.forget=3", "--original", fitted, *QUIET)
    folder = next(inside.rglob("model.safetensors")).parent
    assert same(unlearned, folder)
    assert json.loads((folder / "model.json").read_text())["method"]["init_args"]["epochs"] == 1
    shown = folder.relative_to(inside)
    assert str(error.value) == (
        f"M_u is stored in {shown}, but was not compared with M_o, since the evaluation failed with MemoryError: no "
        f"memory left; 'supreme evaluate --unlearned {shown}' does it again."
    )


def test_it_is_what_a_stock_trainer_does(fitted, supreme):
    result = supreme("unlearn", "--method=SSD", "--method.selection_weight=2", "--original", fitted, *QUIET)
    method = SSD(load_model(fitted)[0], selection_weight=2.0)
    quiet_trainer("cpu", max_epochs=1).fit(method, datamodule=FullClass(forget=0))
    stored = load_file(f"{folder_of(result)}/model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in method.model.state_dict().items())


def test_the_original_as_folder_file_or_checkpoint(fitted, supreme):
    ways = (fitted, fitted / "model.safetensors", next(fitted.rglob("*.ckpt")))
    results = [supreme("unlearn", "--method=Original", "--original", way, *QUIET) for way in ways]
    assert [result.code for result in results] == [0, 0, 0]
    assert all(same(fitted, folder_of(result)) for result in results)


def test_retrain_repeats_the_training_of_the_original(fitted, retrained, supreme):
    about = json.loads((fitted / "model.json").read_text())
    made = json.loads((retrained / "model.json").read_text())["method"]["init_args"]
    assert made["epochs"] == about["training"]["epochs"] == 1
    assert made["recipe"]["init_args"]["lr"] == about["training"]["lr"]
    module = Retrain(load_model(fitted)[0], epochs=1)
    quiet_trainer("cpu", max_epochs=1).fit(module, datamodule=FullClass(forget=3, batch_size=32))
    stored = load_file(retrained / "model.safetensors")
    assert all(torch.equal(value, stored[name]) for name, value in module.model.state_dict().items())
    from_checkpoint = supreme(
        *("unlearn", "--method=Retrain", "--original", next(fitted.rglob("*.ckpt"))),
        *("--data.forget=3", "--data.batch_size=32", *QUIET),
    )
    assert same(retrained, folder_of(from_checkpoint))


@pytest.mark.parametrize("given", [True, False])
def test_retrain_repeats_the_augmentation_of_the_original(supreme, inside, given):
    flip, size = "--data.augmentation.flip=true", "--data.batch_size=64"
    words = [flip, *SMALL]
    if given:
        fit = supreme("fit", flip, "--trainer.max_epochs=1", "--network.width=8", size, *QUIET)
        words = ["--original", re.search(r"The model is in (.*)", fit.err)[1]]
    result = supreme("unlearn", "--method=Retrain", *words, size, "--data.forget=3", *QUIET)
    about = json.loads((Path(folder_of(result)) / "model.json").read_text())
    assert about["training"]["augmentation"]["flip"] is True
    recipe = {field.name: about["training"][field.name] for field in fields(Recipe)}
    stored = load_file(Path(folder_of(result)) / "model.safetensors")
    for augment, equal in ((Augment(flip=True), True), (None, False)):
        module = Retrain(load_model(about["original"])[0], epochs=1, recipe=recipe)
        scenario = FullClass(forget=3, batch_size=64, augmentation=augment)
        quiet_trainer("cpu", max_epochs=1).fit(module, datamodule=scenario)
        found = [torch.equal(value, stored[name]) for name, value in module.model.state_dict().items()]
        assert all(found) == equal


def test_a_random_request_has_no_forget_test_set(fitted, supreme):
    words = ("--data=RandomSample", "--data.fraction=0.1", "--original", fitted)
    result = supreme("unlearn", "--method=SSD", *words, *QUIET)
    assert len(table(result)["M_o"]) == 3


@pytest.mark.parametrize(
    ("words", "expected", "said"), [((), 3.5, True), (("--method.selection_weight=7",), 7.0, False)]
)
def test_the_published_setting_is_taken_and_named(fitted, supreme, words, expected, said):
    result = supreme("unlearn", "--method=LFSSD", "--original", fitted, "--data=RandomSample", *words, *QUIET)
    assert ("Preset: LFSSD for RandomSample: selection_weight 3.5" in result.err) == said
    about = json.loads((Path(folder_of(result)) / "model.json").read_text())
    assert about["method"]["init_args"]["selection_weight"] == expected


def test_one_seed_for_all(supreme, inside):
    result = supreme("unlearn", "--method=Original", "--seed_everything=9", *SMALL, *QUIET)
    about = json.loads((inside / folder_of(result) / "model.json").read_text())
    assert about["seed"] == about["method"]["init_args"]["seed"] == 9
    assert "seed 9" in result.err
    assert supreme("unlearn", "--method=Original", "--training.seed=9", *SMALL, *QUIET).err.count("reusing") == 1


def test_help_of_a_method(supreme):
    result = supreme("unlearn", "--method.help", "SSD")
    assert result.code == 0
    assert "alpha > 0" in result.out
    assert "--method.dampening" in result.out
    assert "--method.original" not in result.out


def test_strategies_by_their_short_name():
    given = {"default_root_dir": None, "accelerator": "cpu", "strategy": "fsdp", "fast_dev_run": True, "max_epochs": 1}
    given |= {"precision": "32-true", "plugins": None}
    assert isinstance(trainer_arguments(given, "somewhere", "unlearn")["strategy"], FSDP2)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes(strategy, process, fitted):
    """The shell's way to several devices: Lightning starts this command once more for the second rank."""
    words = ("unlearn", "--method=FT", "--method.epochs=1", "--data.forget=3", "--original", fitted, *QUIET)
    result = process(*words, "--trainer.devices=2", f"--trainer.strategy={strategy}")
    assert result.code == 0, result.err
    assert result.out.count("M_u is in") == 1
    one = process(*words)
    assert table(result)["M_o"] == table(one)["M_o"]
    assert table(result)["M_u"][:4] == pytest.approx(table(one)["M_u"][:4], abs=3.0)
