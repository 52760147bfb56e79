"""Networks of torchvision by name, with and without pretrained weights; the weights are made here."""

import pytest
import torch
import torchvision
from torchvision.models import get_model_weights, list_models

from supreme.components import elsewhere
from supreme.errors import CheckpointError, ConfigError, UnknownNameError
from supreme.models import NetworkSpec
from supreme.models.build import build, reinitialise, restart, same_network
from supreme.models.stored import load_model, save_model
from supreme.models.torchvision_networks import build_torchvision

SMALL = "mobilenet_v3_small"
HEADS = {SMALL: "classifier.3", "squeezenet1_1": "classifier.1", "densenet121": "classifier", "resnet18": "fc"}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Put random weights where torch keeps those that it has fetched; gives them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def make(name):
        torch.manual_seed(1)
        state = getattr(torchvision.models, name)().state_dict()
        torch.save(state, folder / get_model_weights(name)["DEFAULT"].url.rpartition("/")[2])
        return state

    return make


def differing(first, second):
    theirs = second.state_dict()
    return {name for name, value in first.state_dict().items() if not torch.equal(value, theirs[name])}


def test_every_classifier_of_torchvision_has_a_short_name():
    """Read from its files, without importing it."""
    assert set(elsewhere("models")) == set(list_models(module=torchvision.models))
    assert elsewhere("methods") == {}


@pytest.mark.parametrize("name", ["resnet18", "torchvision.models.resnet18", "torchvision.models.resnet.resnet18"])
def test_short_and_dotted_names(name):
    network = build(NetworkSpec(name), 5, seed=0)
    torch.manual_seed(0)
    assert not differing(network, torchvision.models.resnet18(num_classes=5))
    assert not hasattr(network, "input_spec")
    assert same_network(NetworkSpec(name), NetworkSpec("resnet18"))
    assert not differing(reinitialise(network, 3), build(NetworkSpec(name), 5, seed=3))


def test_convolutional_networks_say_that_they_want_channels_last():
    """Every one that says so computes the same from such images; transformers do not say so."""
    wishes = {}
    for name in ("resnet18", "shufflenet_v2_x0_5", "densenet121", SMALL, "vgg11", "vit_b_32"):
        with torch.device("meta"):
            wishes[name] = build_torchvision(getattr(torchvision.models, name), 3, {}).channels_last
    assert wishes == dict.fromkeys(wishes, True) | {"vgg11": False, "vit_b_32": False}
    for name in ("shufflenet_v2_x0_5", SMALL):
        network, images = build(NetworkSpec(name), 3, seed=0).double().eval(), torch.randn(2, 3, 48, 48).double()
        other = network(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(other, network(images), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "pixels"), [("vgg11", 32), ("vgg11_bn", 32), ("convnext_tiny", 32), (SMALL, 8)])
def test_networks_with_and_without_batch_norm_on_small_images(name, pixels):
    network = build(NetworkSpec(name), 3, seed=0)
    network(torch.randn(4, 3, pixels, pixels)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_answer_with_logits(name):
    network = build(NetworkSpec(name, {"aux_logits": True}), 3, seed=0)
    assert network.train()(torch.randn(2, 3, 80, 80)).shape == (2, 3)


@pytest.mark.parametrize(("name", "arguments", "size"), [("vit_b_16", {"image_size": 32}, 32), ("maxvit_t", {}, 224)])
def test_networks_of_one_size_ask_for_it(name, arguments, size):
    with torch.device("meta"):
        assert build(NetworkSpec(name, arguments), 3, seed=0).input_spec == {"size": [size, size]}


@pytest.mark.parametrize("name", sorted(HEADS))
@pytest.mark.parametrize("classes", [3, 1000])
def test_pretrained_weights_and_a_new_head(weights, name, classes):
    trained = weights(name)
    spec = NetworkSpec(name, {"weights": "DEFAULT"})
    first, other = (build(spec, classes, seed) for seed in (0, 1))
    ours = first.state_dict()
    head = {key for key in ours if key.startswith(HEADS[name])}
    assert all(torch.equal(ours[key], value) for key, value in trained.items() if key not in head)
    assert not torch.equal(ours[f"{HEADS[name]}.weight"], trained[f"{HEADS[name]}.weight"])
    assert f"{HEADS[name]}.weight" in differing(first, other) <= head
    transforms = get_model_weights(name)["DEFAULT"].transforms()
    assert first.input_spec == {"size": transforms.crop_size * 2, "mean": transforms.mean, "std": transforms.std}


def test_drawn_anew_restarted_and_stored(weights, tmp_path):
    weights(SMALL)
    network = build(NetworkSpec(SMALL, {"weights": "IMAGENET1K_V1"}), 3, seed=0).eval()
    assert {name for name, value in network.state_dict().items() if value.ndim > 1} <= differing(
        reinitialise(network, 7), network
    )
    assert differing(restart(network, 7), network) == {"classifier.3.weight"}  # torchvision draws no bias
    assert reinitialise(network, 7).input_spec == network.input_spec
    save_model(tmp_path / "stored", network, {})
    next(tmp_path.rglob("*.pth")).unlink()
    loaded, _ = load_model(tmp_path / "stored")
    assert not differing(loaded, network)
    assert (loaded.spec, loaded.input_spec) == (network.spec, network.input_spec)


def test_weights_that_imply_an_argument(weights):
    weights("googlenet")
    network = build(NetworkSpec("googlenet", {"weights": "DEFAULT", "transform_input": False}), 3, seed=0)
    assert network.transform_input
    assert network.aux1 is None


def test_what_cannot_be_built(weights, monkeypatch):
    with pytest.raises(UnknownNameError, match="weights of resnet18 'DEFALT'; did you mean 'DEFAULT'"):
        build(NetworkSpec("resnet18", {"weights": "DEFALT"}), 3, seed=0)

    def unreachable(*_arguments, **_named):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(no route to host\).*hub/checkpoints"):
        build(NetworkSpec("resnet18", {"weights": "DEFAULT"}), 3, seed=0)
    weights(SMALL)
    with pytest.raises(ConfigError, match=r"do not fit .*width_mult"):
        build(NetworkSpec(SMALL, {"weights": "DEFAULT", "width_mult": 0.5}), 3, seed=0)
    with pytest.raises(UnknownNameError, match="'resnet50'"):
        build(NetworkSpec("resnet5O"), 3, seed=0)
