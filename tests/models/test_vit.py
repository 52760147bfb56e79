"""ViT against the published parameter counts; drawn, pretrained from a folder, stored, drawn anew, and distributed."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.func import functional_call, grad, vmap

from supreme.batch import Batch, Step
from supreme.datasets import Digits
from supreme.errors import CheckpointError, ConfigError
from supreme.methods import Retrain
from supreme.models import NetworkSpec, ViT
from supreme.models.build import build, reinitialise, restart
from supreme.models.stored import load_model, save_model
from supreme.scenarios import FullClass
from supreme.testing.processes import in_processes

EXPECTED = json.loads((Path(__file__).parents[1] / "golden" / "vit" / "expected.json").read_text())
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def differing(first, second):
    """Names of the weights that differ."""
    theirs = second.state_dict()
    return {name for name, value in first.state_dict().items() if not torch.equal(value, theirs[name])}


@pytest.fixture(scope="module")
def whole():
    """The real architecture, without memory for its weights; nothing is fetched."""
    with torch.device("meta"):
        return {classes: ViT(classes, pretrained=False) for classes in (10, 20, 100, 105)}


@pytest.mark.parametrize("classes", [10, 20, 100, 105])
def test_parameter_counts(whole, classes):
    """The published network has a pooler that nothing uses; ours is the same without it."""
    expected = EXPECTED[str(classes)]
    count = sum(parameter.numel() for parameter in whole[classes].parameters())
    assert count == expected["parameter_count"] - expected["pooler"]
    assert count == {10: 85_806_346, 20: 85_814_036, 100: 85_875_556, 105: 85_879_401}[classes]
    assert sum(parameter.numel() for parameter in whole[classes].head.parameters()) == expected["head"]


def test_shapes(whole):
    shapes = Counter(str(list(parameter.shape)) for parameter in whole[10].parameters())
    published = Counter(EXPECTED["shape_histogram_10_classes"])
    assert published - shapes == {"[768, 768]": 1, "[768]": 1}  # the pooler
    assert not shapes - published


def test_what_the_real_one_asks_for(whole):
    """The processor of google/vit-base-patch16-224 normalises by 0.5; as published by ImageNet's statistics."""
    assert whole[10].input_spec == {"size": [224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    with torch.device("meta"):
        published = ViT(10, pretrained=False, normalisation="imagenet", shorter_side=256).input_spec
    assert published == {
        "size": [224, 224],
        "shorter_side": 256,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


def test_the_head_reads_the_class_token_after_the_last_norm(tiny_sizes):
    """By hand: attention and feed-forward blocks in float64."""
    network = build(NetworkSpec("ViT", tiny_sizes), 3, seed=1).double().eval()
    weights = network.state_dict()
    with torch.no_grad():  # zeros and ones tell nothing
        for name, value in weights.items():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))

    def of(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, x):
        return nn.functional.layer_norm(x, (8,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)

    names = {".".join(name.split(".")[:-1]) for name in weights}
    patch = next(name for name in names if name.endswith("projection"))
    images = IMAGES.double()
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    x = patches @ weights[f"{patch}.weight"].flatten(1).T + weights[f"{patch}.bias"]
    x = torch.cat([weights["backbone.embeddings.cls_token"].expand(4, -1, -1), x], dim=1)
    x = x + weights["backbone.embeddings.position_embeddings"]
    for layer in range(2):
        own = sorted(name for name in names if f".{layer}." in name)
        found = {
            key: next(name for name in own if any(part in name for part in parts))
            for key, parts in {
                "before": ["layernorm_before"], "after": ["layernorm_after"], "query": ["q_proj", "query"],
                "key": ["k_proj", "key"], "value": ["v_proj", "value"], "out": ["o_proj", "attention.output"],
                "wide": ["fc1", "intermediate"], "narrow": ["fc2", f"{layer}.output"],
            }.items()
        }  # fmt: skip
        y = norm(found["before"], x)
        query, key, value = (
            of(found[name], y).unflatten(2, (2, 4)).transpose(1, 2) for name in ("query", "key", "value")
        )
        attention = (query @ key.transpose(2, 3) / 2).softmax(-1) @ value
        x = x + of(found["out"], attention.transpose(1, 2).flatten(2))
        x = x + of(found["narrow"], nn.functional.gelu(of(found["wide"], norm(found["after"], x))))
    expected = of("head", norm("backbone.layernorm", x)[:, 0])
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-12)


def test_pretrained_from_a_folder(checkpoint):
    """All weights but the head are the stored ones; the head comes from the seed."""
    first, other = (build(NetworkSpec("ViT", {"checkpoint": str(checkpoint)}), 3, seed) for seed in (0, 1))
    stored = load_file(checkpoint / "model.safetensors")
    ours = [value for name, value in sorted(first.state_dict().items()) if name.startswith("backbone.")]
    assert len(ours) == len(stored) - 2
    theirs = [value.flatten().tolist() for name, value in stored.items() if not name.startswith("classifier")]
    assert all(value.flatten().tolist() in theirs for value in ours)
    assert differing(first, other) == {"head.weight", "head.bias"}
    assert first.input_spec["mean"] == [0.1, 0.2, 0.3]
    assert first.input_spec["size"] == [8, 8]


def test_logits_are_those_of_transformers(checkpoint):
    from transformers import ViTForImageClassification

    theirs = ViTForImageClassification.from_pretrained(checkpoint).eval()
    ours = build(NetworkSpec("ViT", {"checkpoint": str(checkpoint)}), 7, seed=0).eval()
    ours.head.load_state_dict(theirs.classifier.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), theirs(IMAGES).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("checkpoint", {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}),
        ("imagenet", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
        ("data", {}),
    ],
)
def test_normalisation(checkpoint, normalisation, expected):
    network = ViT(3, str(checkpoint), normalisation=normalisation)
    assert network.input_spec == {"size": [8, 8], **expected}


def test_without_a_processor_and_with_another_size(checkpoint, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    assert ViT(3, str(tmp_path)).input_spec == {"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3}
    wider = ViT(3, str(tmp_path), pretrained=False, hidden_size=16, image_size=12)
    assert wider.head.in_features == 16
    assert wider.input_spec["size"] == [12, 12]


def test_drawn_anew_it_keeps_nothing_of_the_checkpoint(checkpoint):
    """Unlike the published incompetent teacher, which is :func:`restart`: the pretrained backbone with a new head."""
    spec = NetworkSpec("ViT", {"checkpoint": str(checkpoint)})
    network = build(spec, 3, seed=0)
    for parameter in network.parameters():
        parameter.data.fill_(7.0)
    fresh, again = reinitialise(network, seed=5), reinitialise(network, seed=5)
    assert differing(fresh, network) == set(network.state_dict())
    assert not differing(fresh, again)
    matrices = {name for name, value in fresh.state_dict().items() if value.ndim > 1}
    assert matrices <= differing(fresh, build(spec, 3, seed=5))
    assert (fresh.spec, fresh.input_spec) == (network.spec, network.input_spec)
    assert not differing(restart(network, seed=5), build(spec, 3, seed=5))
    assert all(bool((parameter == 7.0).all()) for parameter in network.parameters())


def test_a_retrained_model_starts_where_the_original_did(checkpoint, fit, same_weights):
    """At the pretrained weights, with a head from its own seed: the only step of this fit has learning rate 0."""
    spec = NetworkSpec("ViT", {"checkpoint": str(checkpoint)})
    original = build(spec, 10, seed=0)
    for parameter in original.parameters():
        parameter.data.add_(1.0)
    scenario = FullClass(Digits(test_fraction=0.95), 1, batch_size=1000)
    method = fit(Retrain(original, epochs=1, seed=4), scenario)
    assert same_weights(method.model, build(spec, 10, seed=4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_weight_has_an_owner_that_draws_it(tiny_sizes, dtype):
    network = build(NetworkSpec("ViT", tiny_sizes), 3, seed=0).to(dtype)
    del network.spec
    fresh = reinitialise(network, seed=5)
    assert all(bool(value.isfinite().all()) and value.dtype == dtype for value in fresh.state_dict().values())
    assert {name for name, value in network.state_dict().items() if value.ndim > 1} <= differing(fresh, network)


def test_stored_models_need_no_checkpoint(checkpoint, tmp_path):
    folder = tmp_path / "moved"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    network = build(NetworkSpec("ViT", {"checkpoint": str(folder), "shorter_side": 9}), 3, seed=0).eval()
    save_model(tmp_path / "stored", network, {})
    for file in folder.iterdir():
        file.unlink()
    loaded, _ = load_model(tmp_path / "stored")
    assert not differing(loaded, network)
    assert (loaded.spec, loaded.input_spec, loaded.architecture) == (
        network.spec,
        network.input_spec,
        network.architecture,
    )
    assert torch.equal(loaded(IMAGES), network(IMAGES))
    assert differing(reinitialise(loaded, 1), loaded)
    with pytest.raises(CheckpointError, match="moved"):
        restart(loaded, 1)
    save_model(tmp_path / "again", loaded, {})
    assert not differing(load_model(tmp_path / "again")[0], network)


def test_the_scenario_serves_what_the_network_asks_for(checkpoint):
    """From 8 x 8 grey digits to 8 x 8 colours, normalised by the processor, also in evaluation and for teachers."""
    network = build(NetworkSpec("ViT", {"checkpoint": str(checkpoint)}), 10, seed=0)
    dataset = Digits()
    scenario = FullClass(dataset, 1)
    rows = torch.tensor([3, 5])
    batch = Batch(
        dataset.train.images[rows], dataset.train.targets[rows], rows, torch.ones(2), rows < 0,
        Step(0, 0, 0, 2, False, False, 1.0, False),
    )  # fmt: skip
    pixels = dataset.train.images[rows].float() / 255
    mean, std = (torch.tensor(network.input_spec[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    for module in (network, copy.deepcopy(network), reinitialise(network, 0)):
        served = scenario._transform(batch, 0, module.input_spec)
        torch.testing.assert_close(served, (pixels - mean) / std, rtol=0, atol=1e-6)


def test_gradients_of_single_samples(tiny_sizes):
    """torch.func works through the backbone: the mean of per-sample gradients is the gradient of the mean."""
    network = build(NetworkSpec("ViT", tiny_sizes), 3, seed=0).double().eval()
    images, labels = IMAGES.double(), torch.tensor([0, 1, 2, 0])
    weights = {name: value.detach() for name, value in network.named_parameters()}

    def loss(weights, image, label):
        return nn.functional.cross_entropy(functional_call(network, weights, (image[None],)), label[None])

    each = vmap(grad(loss), (None, 0, 0))(weights, images, labels)
    nn.functional.cross_entropy(network(images), labels).backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(each[name].mean(0), parameter.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"layers": 1}, "Leave num_hidden_layers out"),
        ({"config": {"hidden_size": 8}}, "Leave config out"),
        ({"pretrained": False, "hidden_size": 7}, "12 heads divide"),
        ({"pretrained": False, "image_size": 30}, "patches of 16 pixels divide"),
        ({"pretrained": False, "normalisation": "none"}, "checkpoint, imagenet, data"),
        ({"num_classes": 0}, "num_classes >= 1"),
    ],
)
def test_arguments_that_do_not_go_together(arguments, text):
    with pytest.raises(ConfigError, match=text):
        ViT(**arguments)


def test_checkpoints_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="cannot be used"):
        ViT(3, str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(CheckpointError, match=r"Expected a ViT in the checkpoint .* got 'resnet'"):
        ViT(3, str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="some/network-nobody-has"):
        ViT(3, "some/network-nobody-has")


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_what_one_gives(transformer_work, strategy):
    ranks = in_processes(2, transformer_work.all_unlearned, strategy, 2)
    before = transformer_work.original().state_dict()
    for method in transformer_work.FITS:
        alone = transformer_work.unlearned(method)
        assert any(not torch.equal(alone[name], value) for name, value in before.items())
        for rank in ranks:
            assert rank[method].keys() == alone.keys()
            for name, value in alone.items():
                torch.testing.assert_close(rank[method][name], value, rtol=0, atol=1e-12, msg=f"{method} {name}")
