"""Recipes against the published schedules; which one a plan takes for a network on a dataset."""

import json
from pathlib import Path

import pytest
import yaml

from supreme.classifier import Recipe
from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan import load_plan
from supreme.experiment.recipes import read_recipe, recipe_for, training

GOLDEN = Path(__file__).parents[1] / "golden" / "hyperparameters" / "expected.json"
PUBLISHED = json.loads(GOLDEN.read_text())["training"]
NAMES = {"Cifar10": "CIFAR10", "Cifar20": "CIFAR20", "Cifar100": "CIFAR100"}
PLAN = {
    "datasets": ["Digits"],
    "models": ["ResNet18"],
    "scenarios": [{"class_path": "FullClass", "targets": [0]}],
    "methods": ["SSD"],
}


@pytest.fixture
def plan(tmp_path):
    """Load a plan: the smallest one, with some keys replaced."""

    def load(**changes):
        file = tmp_path / "plan.yaml"
        file.write_text(yaml.safe_dump({**PLAN, **changes}))
        return load_plan(file)

    return load


def trained(plan):
    """Training of every network on every dataset, as it stands in the stages of M_o and of M_r."""
    found = {}
    for run in plan.runs():
        for stage in run.stages():
            if stage.kind == "train" or (stage.kind == "unlearn" and not stage.inputs):
                found.setdefault((run.model, run.dataset), []).append(stage.config["training"])
        assert run.config["training"] == found[run.model, run.dataset][0]
    assert all(all(one == several[0] for one in several) and len(several) > 1 for several in found.values())
    return {place: several[0] for place, several in found.items()}


@pytest.mark.parametrize("dataset", sorted(PUBLISHED["schedules"]))
def test_published_schedules(dataset):
    name, expected = NAMES.get(dataset, dataset), PUBLISHED["schedules"][dataset]
    resnet, vit = read_recipe(recipe_for("ResNet18", name)), read_recipe(recipe_for("ViT", name))
    assert (resnet["epochs"], resnet["milestones"]) == tuple(expected["ResNet18"].values())
    assert vit["epochs"] == expected["ViT"]["epochs"]
    assert resnet["batch_size"] == vit["batch_size"] == 64
    fields = ("optimizer", "lr", "momentum", "weight_decay", "schedule", "gamma", "warmup_epochs")
    assert tuple(resnet[field] for field in fields) == ("sgd", 0.1, 0.9, 5e-4, "multistep", 0.2, 1)
    fields = ("optimizer", "lr", "weight_decay", "schedule", "warmup_epochs")
    assert tuple(vit[field] for field in fields) == ("adamw", 5e-5, 0.01, "cosine", 1)


@pytest.mark.parametrize(
    ("network", "dataset", "expected"),
    [
        ("ViT", "CIFAR20", "ViT.CIFAR20"),
        ("supreme.models.vit.ViT", "supreme.datasets.cifar.CIFAR20", "ViT.CIFAR20"),
        ("ViT", "Digits", "ViT"),
        ("HuggingFace", "CIFAR10", "HuggingFace"),
        ("ResNet18", "CIFAR10", "ResNet18.CIFAR10"),
        ("ResNet18", "Digits", None),
        ("torchvision.models.resnet50", "CIFAR10", None),
        ("torchvision.models.resnet18", "CIFAR10", None),
    ],
)
def test_which_recipe_a_network_has(network, dataset, expected):
    assert recipe_for(network, dataset) == expected


def test_a_plan_without_training_takes_the_recipe_of_each_pair(plan):
    both = plan(datasets=["CIFAR10", "CIFAR100"], models=["ResNet18", "ViT"])
    found = trained(both)
    assert found["ResNet18", "CIFAR100"]["milestones"] == [60, 120, 160]
    assert found["ResNet18", "CIFAR10"]["epochs"] == 20
    assert found["ViT", "CIFAR10"]["optimizer"] == "adamw"
    assert both.used_recipes() == {
        "ResNet18 on CIFAR10": "ResNet18.CIFAR10",
        "ResNet18 on CIFAR100": "ResNet18.CIFAR100",
        "ViT on CIFAR10": "ViT.CIFAR10",
        "ViT on CIFAR100": "ViT.CIFAR100",
    }
    assert trained(plan()) == {("ResNet18", "Digits"): {}}  # no recipe: the classifier's own defaults
    assert plan().used_recipes() == {}


def test_a_plan_that_says_something_is_taken_at_its_word(plan):
    said = plan(datasets=["CIFAR10"], training={"lr": 0.5, "epochs": 3})
    assert trained(said) == {("ResNet18", "CIFAR10"): {"lr": 0.5, "epochs": 3}}
    assert said.used_recipes() == {}
    named = plan(training="recipe/ResNet18.CIFAR20")
    assert trained(named)["ResNet18", "Digits"] == read_recipe("ResNet18.CIFAR20")
    changed = plan(training={"recipe": "ResNet18.CIFAR20", "epochs": 2})
    assert trained(changed)["ResNet18", "Digits"] == {**read_recipe("ResNet18.CIFAR20"), "epochs": 2}


def test_a_network_may_have_a_training_of_its_own(plan):
    models = ["ResNet18", {"class_path": "ViT", "training": {"recipe": "ViT", "epochs": 2}}]
    found = trained(plan(models=models, training={"lr": 0.2}))
    assert found["ResNet18", "Digits"] == {"lr": 0.2}
    assert found["ViT", "Digits"] == {**read_recipe("ViT"), "epochs": 2}


def test_recipes_have_stages_of_their_own(plan):
    runs = [plan(training=value).runs()[0] for value in ("ViT", {"recipe": "ViT"}, {"recipe": "ViT", "lr": 0.1})]
    assert runs[0].stage.key == runs[1].stage.key != runs[2].stage.key


def test_a_file_of_ones_own(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = {"model": {"init_args": {"recipe": {"lr": 0.3}}}, "trainer": {"max_epochs": 4}}
    Path("mine.yaml").write_text(yaml.safe_dump(mine))
    assert training("mine.yaml") == {"lr": 0.3, "epochs": 4}
    Path("bad.yaml").write_text("trainer: {max_epochs: 3}")
    with pytest.raises(ConfigError, match=r"model.init_args.recipe and trainer.max_epochs in the recipe 'bad.yaml'"):
        training("bad.yaml")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ViT.CIFAR30", "Unknown recipe 'ViT.CIFAR30'; did you mean 'ViT.CIFAR"),
        ({"recipe": 3}, "the name of a recipe in training, got 3"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"recipe": "ViT", "epochs": 0}, "whole number >= 1 in training.epochs"),
        ([1], "Expected a mapping"),
    ],
)
def test_what_cannot_be_used(value, text, plan):
    with pytest.raises((ConfigError, UnknownNameError), match=text):
        plan(training=value)
    with pytest.raises((ConfigError, UnknownNameError)):
        plan(models=[{"class_path": "ResNet18", "training": value}])


def test_every_recipe_is_one_that_trains():
    for file in sorted((Path(__file__).parents[2] / "configs" / "recipe").glob("*.yaml")):
        fields = read_recipe(file.stem)
        epochs = fields.pop("epochs")
        assert fields.pop("batch_size") == 64
        recipe = Recipe(**fields)
        rates = [recipe.rate(step, 3, epochs) for step in range(3 * epochs)]
        assert rates[0] == 0
        assert max(rates) == pytest.approx(recipe.lr)
        assert 0 < rates[-1] < 0.05 * recipe.lr
