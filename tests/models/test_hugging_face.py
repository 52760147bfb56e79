"""Any HuggingFace classifier: the head is new, everything else is the checkpoint's."""

import pytest
import torch

from supreme.errors import CheckpointError, ConfigError
from supreme.models import HuggingFace, NetworkSpec
from supreme.models.build import build, reinitialise, restart, same_network
from supreme.models.names import HUGGING_FACE, checkpoint_of
from supreme.models.stored import load_model, save_model

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """Folder of a network with BatchNorm and without a fixed image size, for four classes."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    folder = tmp_path_factory.mktemp("resnet")
    fields = {name: value for name, value in RESNET.items() if name != "model_type"}
    torch.manual_seed(11)  # no seed of a test: its head would be the checkpoint's
    network = ResNetForImageClassification(ResNetConfig(**fields, num_labels=4))
    network(IMAGES)  # moves the running statistics
    network.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 32}, image_mean=[0.1] * 3, image_std=[0.2] * 3).save_pretrained(
        folder
    )
    return folder


def differing(first, second):
    theirs = second.state_dict()
    return {name for name, value in first.state_dict().items() if not torch.equal(value, theirs[name])}


@pytest.mark.parametrize("classes", [3, 4])
def test_all_but_the_head_is_the_checkpoints(resnet, classes):
    """Also for as many classes as the checkpoint has."""
    from transformers import AutoModelForImageClassification

    first, other = (build(NetworkSpec(str(resnet)), classes, seed) for seed in (0, 1))
    head = {name for name in first.state_dict() if "classifier" in name}
    assert differing(first, other) == head
    assert len(head) == 2
    theirs = AutoModelForImageClassification.from_pretrained(resnet)
    ours = first.network.state_dict()
    equal = {name for name, value in theirs.state_dict().items() if torch.equal(value, ours[name])}
    assert equal == {name for name in ours if "classifier" not in name}
    assert first(IMAGES).shape == (4, classes)
    assert first.input_spec == {"size": [32, 32], "mean": [0.1] * 3, "std": [0.2] * 3}
    assert type(first) is HuggingFace


def test_names_of_one_network_are_the_same_network(resnet):
    spec = NetworkSpec(str(resnet), {"normalisation": "imagenet"})
    assert spec.class_path == HUGGING_FACE
    assert same_network(spec, NetworkSpec("HuggingFace", {"checkpoint": str(resnet), "normalisation": "imagenet"}))
    assert not same_network(spec, NetworkSpec(str(resnet)))


def test_drawn_anew_restarted_and_stored(resnet, tmp_path):
    network = build(NetworkSpec(str(resnet)), 3, seed=0).eval()
    fresh = reinitialise(network, seed=7)
    assert {name for name, value in network.state_dict().items() if value.ndim > 1} <= differing(fresh, network)
    assert fresh.input_spec == network.input_spec
    assert differing(restart(network, seed=7), network) == {n for n in network.state_dict() if "classifier" in n}
    save_model(tmp_path, network, {})
    loaded, about = load_model(tmp_path)
    assert about["architecture"]["config"]["model_type"] == "resnet"
    assert not differing(loaded, network)
    assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert loaded.input_spec == network.input_spec
    del network.spec
    again = reinitialise(network, seed=7)
    assert {name for name, value in network.state_dict().items() if value.ndim > 1} <= differing(again, network)


def test_from_a_configuration_alone():
    network = build(NetworkSpec("HuggingFace", {"pretrained": False, "config": RESNET}), 5, seed=0)
    assert network(IMAGES).shape == (4, 5)
    assert network.input_spec == {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"config": RESNET}, "config for pretrained=False only"),
        ({"pretrained": False, "config": {"hidden_sizes": [8]}}, "with its model_type"),
        ({"pretrained": False, "config": {"model_type": "no such kind"}}, "with its model_type"),
        ({"pretrained": False, "config": {"model_type": "bert"}}, "classifies images, got a 'bert'"),
    ],
)
def test_what_cannot_be_built(arguments, text):
    with pytest.raises((ConfigError, CheckpointError), match=text):
        HuggingFace(3, **arguments)


def test_a_damaged_checkpoint(resnet, tmp_path):
    (tmp_path / "config.json").write_bytes((resnet / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be used"):
        HuggingFace(3, str(tmp_path))


def test_what_a_name_means(resnet, tmp_path, monkeypatch):
    monkeypatch.chdir(resnet.parent)
    assert checkpoint_of(resnet.name) == resnet.name
    assert checkpoint_of(f"./{resnet.name}") == resnet.name
    assert checkpoint_of("google/vit-base-patch16-224") == "google/vit-base-patch16-224"
    for name in ("ResNet18", "resnet50", "my_pkg.Net", "torchvision.models.resnet18", "nothing"):
        assert checkpoint_of(name) is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ResNet18").mkdir()
    (tmp_path / "ResNet18" / "config.json").write_text("{}")
    assert checkpoint_of("ResNet18") is None  # the component
    assert checkpoint_of("./ResNet18") == "ResNet18"
    (tmp_path / "a").mkdir()
    for name, text in {"./a": "holds no config.json", "./b": "no folder", "/no/such/place": "no folder"}.items():
        with pytest.raises(ConfigError, match=text):
            checkpoint_of(name)
    with pytest.raises(ConfigError, match="leave the argument 'checkpoint' out"):
        NetworkSpec("./ResNet18", {"checkpoint": "x"})
