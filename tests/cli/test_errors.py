"""Bad input through the real command line: one sentence, exit code 2, nothing written."""

import json
import shutil

import pytest

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ((), ("Missing --method", "supreme list methods")),
        (("--method=SDD",), ("'SDD'", "'SSD'")),
        (("--method=SSD", "--method.selecton_weight=1"), ("'selecton_weight'", "'selection_weight'")),
        (("--method=SSD", "--method.selection_weight=abc"), ("float", "--method.selection_weight", "'abc'")),
        (("--method=SSD", "--method.selection_weight=-1"), ("selection_weight > 0", "-1")),
        (("--method=torch.nn.Linear",), ("UnlearningMethod", "torch.nn.Linear")),
        (("--method=SSD", "--metod.x=1"), ("'--metod.x'", "'--method'")),
        (("--method=SSD", "--trainer.max_epoch=1"), ("'--trainer.max_epoch'", "'--trainer.max_epochs'")),
        (("--method=SSD", "--trainer.max_epochs=x"), ("an int", "'x'")),
        (("--method=SSD", "--trainer.max_steps=2"), ("max_steps",)),
        (("--method=SSD", "--trainer.strategy=fsdpp"), ("'fsdpp'", "'fsdp'")),
        (("--method=SSD", "--trainer.accelerator=cup"), ("'cup'", "'cpu'")),
        (("--method=SSD", "--trainer.callbacks+=RunRecrd"), ("'RunRecrd'", "'RunRecord'")),
        (("--method=SSD", "--trainer.logger=CSVLoger"), ("'CSVLoger'", "'CSVLogger'")),
        (("--method=SSD", "--data=FullClas"), ("'FullClas'", "'FullClass'")),
        (("--method=SSD", "--data.forgt=1"), ("'forgt'", "'forget'")),
        (("--method=SSD", "--data.forget=eleven"), ("Unknown class 'eleven'",)),
        (("--method=SSD", "--data.forget=11"), ("0 to 9", "11")),
        (("--method=SSD", "--data.batch_size=0"), ("batch sizes >= 1", "0")),
        (("--method=SSD", "--data=RandomSample", "--data.fraction=0"), ("inside (0, 1)", "0.0")),
        (("--method=SSD", "--data=RandomSample", "--data.fraction=1"), ("inside (0, 1)", "1.0")),
        (("--method=UNSIR", "--data=RandomSample"), ("UNSIR needs a class",)),
        (("--method=SSD", "--data=SubClass"), ("fine labels",)),
        (("--method=SSD", "--data=WholeDataset"), ("nothing to forget",)),
        (("--method=SSD", "--data.dataset=Digit"), ("'Digit'", "'Digits'")),
        (("--method=SSD", "--data.dataset=ImageFolder"), ("Missing --data.dataset.path",)),
        (("--method=SSD", "--network=ResNet81"), ("'ResNet81'", "'ResNet18'")),
        (("--method=SSD", "--network.widht=8"), ("'widht'", "'width'")),
        (("--method=SSD", "--network.width=2"), ("width >= 8",)),
        (("--method=SSD", "--training.epochs=0"), ("epochs", ">= 1")),
        (("--method=SSD", "--model.recipe.momentm=0.1"), ("'momentm'", "'momentum'")),
        (("--method=SSD", "stray"), ("'stray'",)),
    ],
    ids=lambda value: " ".join(value)[-45:] or "nothing",
)
def test_words(words, texts, supreme, refused):
    refused(supreme("unlearn", *QUIET, *words), *texts)


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("unlearn", "--method=SDD"), ("'SSD'",)),
        (("fit", "--network=ResNet81"), ("'ResNet18'",)),
        (("evaluate", "--data.dataset=Digit"), ("'Digits'",)),
        (("test", "--model.seed=1"), ("--seed_everything",)),
        (("validate", "--config=none.yaml"), ("none.yaml",)),
        (("predict", "--data=FullClas"), ("'FullClass'",)),
        (("list", "method_"), ("'methods'",)),
        (("report", "nowhere"), ("nowhere",)),
        (("status", "nowhere"), ("nowhere",)),
    ],
    ids=lambda value: value[0],
)
def test_every_command_in_a_process_of_its_own(words, texts, process, refused):
    refused(process(*words), *texts)


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("method: {class_path: SDD}", ("'SDD'", "'SSD'")),
        ("method: {class_path: SSD, init_args: {selecton_weight: 2}}", ("'selecton_weight'", "'selection_weight'")),
        ("method: SSD\ntrainer: {max_epoch: 2}", ("'trainer.max_epoch'", "'trainer.max_epochs'")),
        ("methd: SSD", ("'methd'", "'method'")),
        ("method: SSD\ndata: {class_path: FullClas}", ("'FullClas'", "'FullClass'")),
        ("method: SSD\ndata: {init_args: {dataset: {class_path: Digit}}}", ("'Digit'", "'Digits'")),
        ("method: [SSD", ("not valid YAML",)),
        ("method: {class_path: SSD, init_args: {seed: 3}}", ("--seed_everything",)),
    ],
)
def test_configuration_files(text, texts, supreme, inside):
    (inside / "mine.yaml").write_text(text)
    method = () if "method" in text else ("--method=SSD",)
    result = supreme("unlearn", "--config=mine.yaml", *method, *QUIET)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert all(word in result.err for word in texts), result.err
    assert [path.name for path in inside.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs(epochs, supreme, refused):
    refused(supreme("fit", f"--trainer.max_epochs={epochs}", *QUIET), "max_epochs >= 1", f"got {epochs}")


@pytest.mark.parametrize("command", ["unlearn", "fit"])
def test_folders_of_images(command, supreme, refused, inside, pictures):
    method = ("--method=SSD",) if command == "unlearn" else ("--trainer.max_epochs=1",)
    (inside / "empty").mkdir()
    pictures("one", classes=("cat",))
    (pictures("bad") / "dog" / "3.png").write_bytes(b"no image")
    where = (command, *method, *QUIET, "--data.dataset=ImageFolder", "--data.dataset.path")
    for name, texts in {
        "empty": ("empty",),
        "one": ("at least two class folders", "got 1"),
        "bad": ("bad/dog/3.png",),
        "none": ("none",),
    }.items():
        result = supreme(*where, name)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
        assert all(word in result.err for word in texts), result.err
    assert not (inside / "runs").exists()


def test_stored_models(fitted, supreme, inside, pictures):
    (inside / "bad.ckpt").write_bytes(b"garbage" * 100)
    shutil.copytree(fitted, inside / "bad")
    (inside / "bad" / "model.safetensors").write_bytes(b"xx")
    two = ("--data.dataset=ImageFolder", "--data.dataset.path", pictures("two"))
    checkpoint = next(fitted.rglob("*.ckpt"))
    for words, text in (
        (("unlearn", "--method=SSD", "--original=none"), "none"),
        (("unlearn", "--method=SSD", "--original=bad.ckpt"), "bad.ckpt"),
        (("unlearn", "--method=SSD", "--original=bad"), "'bad' cannot be read"),
        (("unlearn", "--method=SSD", "--original", fitted, "--network.width=16"), "{'width': 8}"),
        (("unlearn", "--method=SSD", "--original", fitted, *two), "10 classes"),
        (("unlearn", "--method=SSD", "--original", checkpoint, *two), "10 classes"),
        (("evaluate", "--unlearned", fitted, "--data=FullClass", *two), "10 classes"),
        (("test", "--ckpt_path=bad.ckpt"), "bad.ckpt"),
        (("test", "--ckpt_path=none.ckpt"), "none.ckpt"),
        (("test", "--ckpt_path", checkpoint, "--network=ResNet18", "--network.width=16"), "{'width': 8}"),
    ):
        result = supreme(*words, *QUIET)
        assert result.code == 2, words
        assert len(result.err.splitlines()) == 1
        assert text in result.err, result.err
    assert not (inside / "runs").exists()
    result = supreme("test", "--ckpt_path", checkpoint, *two, *QUIET)
    assert result.code == 2
    assert "2 classes" in result.err


def test_a_network_that_says_the_same_in_other_words_is_no_conflict(fitted, supreme):
    words = ("--network=supreme.models.resnet.ResNet18", "--network.width=8")
    assert supreme("unlearn", "--method=SSD", "--original", fitted, *words, *QUIET).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("unlearn", "--method=SSD", "--output=file/here"),
        ("fit", "--trainer.default_root_dir=file/here"),
    ],
    ids=lambda value: value[0],
)
def test_output_below_a_file(words, supreme, inside):
    (inside / "file").write_text("")
    result = supreme(*words, *QUIET)
    assert result.code == 2
    assert "is a file" in result.err
    assert [path.name for path in inside.iterdir()] == ["file"]


def test_how_a_foreign_original_was_trained_must_be_said(fitted, supreme, inside, refused):
    shutil.copytree(fitted, inside / "foreign")
    about = json.loads((inside / "foreign" / "model.json").read_text())
    del about["training"]
    (inside / "foreign" / "model.json").write_text(json.dumps(about))
    result = supreme("unlearn", "--method=Retrain", "--original=foreign", *QUIET)
    assert result.code == 2
    assert "--method.epochs" in result.err
