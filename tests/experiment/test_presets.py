"""Presets: the published settings, where they hold, and what wins over them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from supreme.components import listing
from supreme.errors import ConfigError
from supreme.experiment.plan import Plan, load_plan
from supreme.experiment.presets import preset, presets

GOLDEN = Path(__file__).parents[1] / "golden" / "hyperparameters" / "expected.json"
NAMES = {"ssd": "SSD", "lfssd": "LFSSD", "ssd_det": "SSDDet", "lfssd_det": "LFSSDDet"}
TEN_CLASSES = ("CIFAR10", "Digits", "FashionMNIST", "MNIST")
OWN = {"SSDDet": 5.0, "LFSSDDet": 3.0}  # alpha for full classes of these, where the published 10 selects nothing
DATASETS = {"Cifar10": "CIFAR10", "Cifar20": "CIFAR20", "Cifar100": "CIFAR100"}
SCENARIOS = {"fullclass": "FullClass", "subclass": "SubClass", "random_": "RandomSample"}
DEFAULTS = {"selection_weight": 10.0, "dampening": 1.0}


def published() -> list[dict[str, object]]:
    cases: list[dict[str, object]] = json.loads(GOLDEN.read_text())["ssd_family"]
    own = ("Cifar10", "fullclass", ("ssd_det", "lfssd_det"))
    places = ((case, (case["dataset"], case["scenario"]), case["method"]) for case in cases if case["method"] in NAMES)
    return [case for case, place, method in places if place != own[:2] or method not in own[2]]


@pytest.mark.parametrize("case", published(), ids=lambda c: "-".join(map(str, list(c.values())[:4])))
def test_the_published_settings_hold(case: dict[str, object]) -> None:
    place = (
        DATASETS.get(str(case["dataset"]), str(case["dataset"])),
        str(case["model"]),
        SCENARIOS[str(case["scenario"])],
    )
    found = preset(NAMES[str(case["method"])], *place)
    settings = {**DEFAULTS, **(found.init_args if found else {})}
    assert settings == {"selection_weight": case["alpha"], "dampening": case["lambda"]}


@pytest.mark.parametrize("method", sorted(OWN))
@pytest.mark.parametrize("dataset", TEN_CLASSES)
def test_one_of_ten_classes_has_an_alpha_that_selects_something(method: str, dataset: str) -> None:
    found = preset(method, dataset, "ResNet18", "FullClass")
    assert found is not None
    assert found.init_args == {"selection_weight": OWN[method]}
    assert preset(method, dataset, "ResNet18", "RandomSample") != found


def test_the_names_of_the_files_say_what_they_are_for() -> None:
    methods = {component.name: component for component in listing("methods")}
    classes = {c.name for kind in ("datasets", "models", "scenarios") for c in listing(kind)}
    assert presets()
    for one in presets():
        assert set(one.conditions) <= classes
        assert one.init_args.keys() <= set(methods[one.method].arguments or ())
        assert one.name.split(".")[0].replace("_", "") == one.method.lower()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Plan]:
    def load(**changes: object) -> Plan:
        content = {
            "name": "p",
            "datasets": ["Digits"],
            "models": ["ResNet18"],
            "scenarios": [
                {"class_path": "FullClass", "targets": [3]},
                {"class_path": "RandomSample", "targets": [0.1]},
            ],
            "methods": ["SSD", "LFSSD"],
            **changes,
        }
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
        return load_plan(tmp_path / "p.yaml")

    return load


def chosen(plan: Plan) -> dict[tuple[str, str], object]:
    return {(run.scenario, run.method): run.config["method"]["init_args"] for run in plan.runs()}


def test_a_plan_takes_them_place_by_place(make: Callable[..., Plan]) -> None:
    plan = make()
    settings = chosen(plan)
    assert settings[("RandomSample", "LFSSD")] == {"selection_weight": 3.5}
    assert settings[("FullClass", "LFSSD")] == settings[("RandomSample", "SSD")] == {}
    assert [one.name for one in plan.used_presets()] == ["lfssd.RandomSample"]
    assert "selection_weight 3.5 (configs/method/lfssd.RandomSample.yaml)" in plan.used_presets()[0].label


def test_what_the_plan_says_wins(make: Callable[..., Plan]) -> None:
    said = make(methods=[{"class_path": "LFSSD", "init_args": {"selection_weight": 7.0}}])
    assert chosen(said)[("RandomSample", "LFSSD")] == {"selection_weight": 7.0}
    assert said.used_presets() == []
    without = make(presets=False)
    assert chosen(without)[("RandomSample", "LFSSD")] == {}
    assert without.used_presets() == []
    with pytest.raises(ConfigError, match="true or false under 'presets', got 'no way'"):
        make(presets="no way")


def test_a_setting_counts_whether_it_comes_from_a_preset_or_from_the_plan(make: Callable[..., Plan]) -> None:
    spelt = make(methods=["SSD", {"class_path": "LFSSD", "init_args": {"selection_weight": 3.5}}])
    keys = [
        {run.stage.key for run in plan.runs() if (run.scenario, run.method) == ("RandomSample", "LFSSD")}
        for plan in (make(), spelt)
    ]
    assert keys[0] == keys[1]
