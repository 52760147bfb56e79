"""Every file in configs/ runs, or at least parses where it needs a download or an accelerator."""

from pathlib import Path

import pytest
import torch
import yaml

from supreme.components import describe
from supreme.experiment.plan import load_plan
from supreme.models.build import NetworkSpec, build

CONFIGS = Path(__file__).parents[2] / "configs"
QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.fast_dev_run=true")
OFFICIAL = {
    *("cifar10", "cifar20", "cifar100", "mnist", "fashion_mnist"),
    *("caltech101", "pins", "pins_published", "utkface"),
}
# What takes the place of a network's weights that would have to be fetched.
DRAWN = {
    "model/vit.yaml": (
        *("--network.pretrained=false", "--network.image_size=8", "--network.patch_size=4"),
        *("--network.hidden_size=8", "--network.layers=1", "--network.heads=2"),
    ),
    "model/torchvision.yaml": ("--network.weights=null",),
}
PARSED = {*OFFICIAL, "sub_class", "gpu", "ddp", "fsdp"}


def fragments(*groups):
    return sorted(path.relative_to(CONFIGS).as_posix() for group in groups for path in (CONFIGS / group).glob("*.yaml"))


def test_every_group_is_there():
    groups = {path.name: path for path in CONFIGS.iterdir() if path.is_dir() and path.name != "plans"}
    assert set(groups) >= {"model", "recipe", "dataset", "scenario", "method", "trainer"}
    lines = {path: len(path.read_text().splitlines()) for group in groups.values() for path in group.glob("*.yaml")}
    assert max(lines.values()) <= 15, lines
    assert all(path.read_text().startswith("# ") for path in lines)


@pytest.mark.parametrize("name", fragments("model", "recipe", "dataset", "trainer"))
def test_fit(name, supreme, pictures):
    assert supreme("fit", *words(name, pictures)).code == 0


@pytest.mark.parametrize("name", fragments("model", "recipe", "dataset", "scenario", "method", "trainer"))
def test_unlearn(name, supreme, pictures):
    method = () if name.startswith("method/") else ("--method=SSD",)
    assert supreme("unlearn", *method, *words(name, pictures)).code == 0


def words(name, pictures):
    folder = ("--data.dataset.path", pictures("images", count=12)) if "image_folder" in name else ()
    width = DRAWN.get(name, ()) if name.startswith("model/") else ("--network.width=8",)
    mode = ("--print_config",) if Path(name).stem in PARSED else QUIET
    return ("--config", f"configs/{name}", *width, *folder, *mode)


@pytest.mark.parametrize("name", [f"dataset/{name}.yaml" for name in sorted(OFFICIAL)])
def test_a_dataset_with_official_files(name, supreme, inside, official_files, monkeypatch):
    official_files.fill(inside / "data", monkeypatch)
    words = ("--config", f"configs/{name}", "--network.width=8", *QUIET)
    assert supreme("fit", *words).code == 0
    assert supreme("unlearn", "--method=SSD", *words).code == 0


def test_the_sub_class_fragment_on_cifar20(supreme, inside, official_files, monkeypatch):
    official_files.fill(inside / "data", monkeypatch)
    names = ("dataset/cifar20", "scenario/sub_class", "method/ssd")
    files = [word for name in names for word in ("--config", f"configs/{name}.yaml")]
    assert supreme("unlearn", *files, "--network.width=8", *QUIET).code == 0


def test_the_real_vision_transformer_is_parsed_and_built_without_its_weights(supreme):
    """Nothing is fetched for the architecture and the input of the default checkpoint."""
    config = yaml.safe_load(supreme("fit", "--config=configs/model/vit.yaml", "--print_config").out)
    spec = NetworkSpec(**config["network"])
    assert spec.init_args["checkpoint"] == "google/vit-base-patch16-224"
    assert spec.init_args["pretrained"] is True
    with torch.device("meta"):
        network = build(NetworkSpec(spec.class_path, {**spec.init_args, "pretrained": False}), 105, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 85_879_401
    assert network.input_spec == {"size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}


def test_fragments_add_up(supreme):
    names = ("dataset/cifar20", "scenario/sub_class", "model/resnet18", "method/lfssd", "trainer/gpu")
    files = [word for name in names for word in ("--config", f"configs/{name}.yaml")]
    config = yaml.safe_load(supreme("unlearn", *files, "--print_config").out)
    assert config["data"]["class_path"].endswith("SubClass")
    assert config["data"]["init_args"]["forget"] == "rocket"
    assert config["data"]["init_args"]["dataset"]["class_path"].endswith("CIFAR20")
    assert config["model"]["init_args"]["recipe"]["optimizer"] == "sgd"
    assert config["trainer"]["accelerator"] == "gpu"


@pytest.mark.parametrize("name", fragments("method"))
def test_a_method_fragment_is_named_after_its_method(name):
    content = yaml.safe_load((CONFIGS / name).read_text())["method"]
    component = describe("methods", content["class_path"])
    assert Path(name).stem.split(".")[0] == component.class_path.split(".")[-2]


@pytest.mark.parametrize(
    "path", sorted({*CONFIGS.glob("*.yaml"), *CONFIGS.glob("plans/*.yaml")}), ids=lambda path: path.stem
)
def test_plans_load(path):
    assert load_plan(path).runs()
