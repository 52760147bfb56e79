"""Networks by any name through the real command line: components, torchvision, HuggingFace folders, functions."""

import json

import pytest
import yaml

from supreme.cli.words import checkpoints_written_out, component_of, write_out
from supreme.errors import ConfigError
from supreme.models.stored import load_model

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
TRIAL = (*QUIET, "--trainer.fast_dev_run=true")
TINY = (
    *("--network=ViT", "--network.pretrained=false", "--network.image_size=8", "--network.patch_size=4"),
    *("--network.hidden_size=8", "--network.layers=1", "--network.heads=2"),
)
NETS = (
    "from torch import nn\n"
    "def flat(num_classes, hidden=4):\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(192, hidden), nn.Linear(hidden, num_classes))\n"
)


@pytest.fixture(scope="module")
def stored_vit(tmp_path_factory):
    """Folder of a tiny ViT as transformers stores it."""
    import transformers
    from transformers import ViTConfig, ViTForImageClassification

    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("hub") / "my_vit"
    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTForImageClassification(ViTConfig(**sizes, intermediate_size=16)).save_pretrained(folder)
    return folder


@pytest.fixture
def named(inside, stored_vit, monkeypatch):
    """One name of each kind, in a folder where all of them work; transformers may not ask the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.syspath_prepend(str(inside))
    (inside / "my_nets.py").write_text(NETS)
    (inside / "my_vit").symlink_to(stored_vit)
    return {
        "torchvision": "mobilenet_v3_small",
        "dotted": "torchvision.models.mobilenet_v3_small",
        "folder": "my_vit",
        "path": str(stored_vit),
        "function": "my_nets.flat",
    }


@pytest.mark.parametrize("kind", ["torchvision", "dotted", "folder", "path", "function"])
@pytest.mark.parametrize("where", ["option", "file"])
def test_fit(kind, where, named, supreme, inside):
    words = ("--network", named[kind])
    if where == "file":
        (inside / "mine.yaml").write_text(yaml.safe_dump({"network": {"class_path": named[kind]}}))
        words = ("--config", "mine.yaml")
    result = supreme("fit", *words, *TRIAL)
    assert result.code == 0, result.err


def test_arguments_of_a_network_that_a_file_names_shortly(named, supreme, inside):
    (inside / "mine.yaml").write_text("network: my_vit\ndata: {init_args: {batch_size: 16}}\n")
    result = supreme("fit", "--config=mine.yaml", "--network.normalisation=data", "--print_config")
    config = yaml.safe_load(result.out)
    assert config["network"]["init_args"]["checkpoint"] == "my_vit"
    assert config["network"]["init_args"]["normalisation"] == "data"
    assert config["data"]["init_args"]["batch_size"] == 16


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("resnet5O", ("'resnet5O'", "'resnet50'")),
        ("ResNet81", ("'ResNet81'", "'ResNet18'")),
        ("vit_b16", ("'vit_b16'", "'vit_b_16'")),
        ("zzzzzz", ("known: HuggingFace, ResNet18, ViT",)),
        ("./nowhere", ("There is no folder './nowhere'",)),
        ("torchvision.models.resnet5O", ("'resnet50'",)),
    ],
)
def test_names_that_mean_nothing(name, texts, supreme, refused, monkeypatch):
    def forbidden(*_arguments, **_named):
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    refused(supreme("fit", "--network", name, *TRIAL), *texts)


def test_a_hub_that_cannot_be_reached(supreme, inside, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = supreme("fit", "--network=some/network-nobody-has", *TRIAL)
    assert result.code == 2
    assert "some/network-nobody-has" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_unlearn_and_evaluate_with_a_vision_transformer(supreme, inside):
    """What the network asks for is stored with M_u and holds in evaluation; a second request reuses M_o."""
    words = ("--network.normalisation=imagenet", "--training.epochs=1", "--data.forget=3")
    assert supreme("unlearn", "--method=LFSSD", *TINY, *words, *QUIET).code == 0
    folder = next((inside / "runs/unlearn/LFSSD").rglob("model.json")).parent
    network, about = load_model(folder)
    assert network.input_spec == {"size": [8, 8], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    original = about["original"]
    again = supreme("unlearn", "--method=Retrain", "--original", original, "--data.forget=3", *QUIET)
    assert again.code == 0, again.err
    retrained = next((inside / "runs/unlearn/Retrain").rglob("model.json")).parent
    assert load_model(retrained)[0].input_spec == network.input_spec
    scores = supreme("evaluate", "--unlearned", folder, "--retrained", retrained, "--original", original, *QUIET)
    assert scores.code == 0, scores.err
    values = json.loads((folder / "scores.json").read_text())["metrics"]
    assert values["forget/accuracy"] == pytest.approx(about["accuracy"]["forget_test"], abs=1e-6)
    assert 0 <= values["forget/zrf"] <= 1


def test_a_plan_takes_every_name(named, supreme, inside):
    plan = {
        "datasets": [{"class_path": "Digits", "init_args": {"test_fraction": 0.9}}],
        "models": [named["torchvision"], named["folder"], named["function"]],
        "training": {"optimizer": "adamw", "lr": 0.001, "epochs": 1, "batch_size": 64},
        "scenarios": [{"class_path": "FullClass", "targets": [0]}],
        "methods": ["SSD"],
        "metrics": ["Accuracy"],
        "trainer": {"accelerator": "cpu"},
    }
    (inside / "mine.yaml").write_text(yaml.safe_dump(plan))
    result = supreme("run", "mine.yaml", "--workers=1")
    assert result.code == 0, result.err
    records = [json.loads(file.read_text()) for file in (inside / "runs/mine/records").glob("*.json")]
    assert {record["run"]["model"] for record in records} == {"mobilenet_v3_small", "my_vit", "flat"}
    assert {record["status"] for record in records} == {"done"}


# --- recipes


def recipe_of(supreme, *words):
    result = supreme(*words, "--print_config")
    assert result.code == 0, result.err
    config = yaml.safe_load(result.out)
    return config["model"]["init_args"]["recipe"], config["trainer"]["max_epochs"]


@pytest.mark.parametrize("command", ["fit", "unlearn"])
def test_a_named_network_brings_its_recipe(command, supreme, inside):
    method = ("--method=SSD",) if command == "unlearn" else ()
    recipe, epochs = recipe_of(supreme, command, *method, "--network=ResNet18", "--data.dataset=CIFAR20")
    assert (recipe["milestones"], epochs) == ([15, 30, 35], 40)
    recipe, epochs = recipe_of(supreme, command, *method, "--network=ViT", "--model.recipe.lr=1e-4")
    assert (recipe["optimizer"], recipe["lr"], recipe["weight_decay"], epochs) == ("adamw", 1e-4, 0.01, 8)
    files = ("--config=configs/model/resnet18_small.yaml", "--network=ViT")
    assert recipe_of(supreme, command, *method, *files)[0]["lr"] == 0.002
    plain = recipe_of(supreme, command, *method, "--network=mobilenet_v3_small")
    assert plain == recipe_of(supreme, command, *method)


def test_the_recipe_is_named(supreme, inside):
    assert "Recipe: configs/recipe/ViT.yaml" in supreme("fit", *TINY, *TRIAL).err
    assert "Recipe" not in supreme("fit", "--network=ResNet18", "--network.width=8", *TRIAL).err


# --- words


def test_words_of_a_checkpoint(named, inside):
    assert checkpoints_written_out(["--network=my_vit", "--network.normalisation", "data"]) == [
        *("--network=supreme.models.hugging_face.HuggingFace", "--network.checkpoint=my_vit"),
        *("--network.normalisation", "data"),
    ]
    assert write_out(["--network", "resnet50"]) == ["--network", "torchvision.models.resnet50"]
    with pytest.raises(ConfigError, match="no folder"):
        checkpoints_written_out(["--network", "./none"])


def test_which_component_is_named(inside):
    (inside / "a.yaml").write_text("network: ViT\ndata: {init_args: {dataset: {class_path: CIFAR20}}}\n")
    (inside / "b.yaml").write_text("network: {class_path: ResNet18}\n")
    files = ["--config=a.yaml", "--config=b.yaml"]
    assert component_of(files, "network") == "ResNet18"
    assert component_of(files, "data.dataset") == "CIFAR20"
    assert component_of([*files, "--network=resnet50"], "network") == "resnet50"
    assert component_of(["--data.batch_size=3"], "data.dataset") is None
