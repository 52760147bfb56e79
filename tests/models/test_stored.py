"""Stored models: what comes back, and what cannot."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from supreme.classifier import ImageClassifier
from supreme.datasets import Digits
from supreme.errors import CheckpointError, OutputError
from supreme.models.build import NetworkSpec, build
from supreme.models.stored import load_model, save_model
from supreme.scenarios import WholeDataset

SMALL = NetworkSpec("ResNet18", {"width": 8})


@pytest.fixture
def network():
    made = build(SMALL, 4, seed=3)
    with torch.no_grad():
        made(torch.randn(8, 3, 8, 8))  # moves the running statistics
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("by_file", [True, False])
def test_round_trip(network, tmp_path, same_weights, dtype, by_file):
    network = network.to(dtype)
    path = save_model(tmp_path / "a" / "b", network, {"classes": list("abcd"), "seed": 3})
    loaded, about = load_model(path if by_file else path.parent)
    assert same_weights(loaded, network)
    assert next(loaded.parameters()).dtype == dtype
    assert not loaded.training
    assert (loaded.spec, loaded.num_classes) == (SMALL, 4)
    assert about["classes"] == list("abcd")
    assert about["network"] == {"class_path": "ResNet18", "init_args": {"width": 8}}


def test_a_given_state_is_stored_in_place_of_the_networks_own(network, tmp_path):
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    loaded, _ = load_model(save_model(tmp_path, network, {}, state))
    assert all((value == 0).all() for value in loaded.state_dict().values())


def test_the_wished_input_comes_back(network, tmp_path):
    network.input_spec = {"size": (8, 8), "mean": (0.5,), "std": (0.25,)}
    loaded, _ = load_model(save_model(tmp_path, network, {}))
    assert loaded.input_spec == {"size": [8, 8], "mean": [0.5], "std": [0.25]}


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, num_classes):
        super().__init__()
        self.first, self.second = nn.Linear(num_classes, num_classes), nn.Linear(num_classes, num_classes)
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.second(self.first(images))


def test_weights_that_share_memory(tmp_path):
    network = Tied(3)
    stored = load_file(save_model(tmp_path, network, {}))
    assert torch.equal(stored["first.weight"], stored["second.weight"])


def test_a_network_of_the_callers_own_is_weights_only(network, tmp_path, same_weights):
    own = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    path = save_model(tmp_path / "own", own, {})
    assert json.loads((tmp_path / "own" / "model.json").read_text())["network"] is None
    with pytest.raises(CheckpointError, match="weights only; say which network"):
        load_model(path)
    del network.spec, network.num_classes
    path = save_model(tmp_path / "plain", network, {})
    with pytest.raises(CheckpointError, match="say which number of classes"):
        load_model(path, SMALL)
    assert same_weights(load_model(path, SMALL, num_classes=4)[0], network)


def test_another_network_than_expected(network, tmp_path):
    path = save_model(tmp_path, network, {})
    assert load_model(path, SMALL, num_classes=4)
    with pytest.raises(CheckpointError, match=r"holds ResNet18 with \{'width': 8\}"):
        load_model(path, NetworkSpec("ResNet18", {"width": 16}))
    with pytest.raises(CheckpointError, match="for 4 classes, but 5 were asked for"):
        load_model(path, num_classes=5)


def test_wrong_classes_in_the_description(network, tmp_path):
    save_model(tmp_path, network, {"num_classes": 7})
    with pytest.raises(CheckpointError, match=r"'head.weight' has shape \(4, 64\) in the file and \(7, 64\)"):
        load_model(tmp_path)


def test_missing_and_surplus_weights(network, tmp_path):
    path = save_model(tmp_path, network, {})
    state = load_file(path)
    removed = {name: value for name, value in state.items() if name != "head.bias"}
    save_file(removed, path)
    with pytest.raises(CheckpointError, match=r"'head\.bias' has shape None in the file"):
        load_model(path)
    save_file({**state, "more": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="'more' has shape"):
        load_model(path)


def test_damaged_files(network, tmp_path):
    path = save_model(tmp_path, network, {})
    content = path.read_bytes()
    for damaged in (b"", content[:7], content[: len(content) // 2], b"x" * 200):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_model(tmp_path)
    path.write_bytes(content)
    (tmp_path / "model.json").write_text('{"network": ')
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(CheckpointError, match="found none"):
        load_model(tmp_path)


def test_nothing_there(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "folder", tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match="found none"):
            load_model(path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_model(tmp_path / "last.ckpt")


def test_a_folder_that_cannot_be_written(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write the model"):
        save_model(tmp_path / "file", network, {})


@pytest.mark.parametrize("given", ["spec", "network"])
def test_checkpoints_of_a_classifier(fit, tmp_path, same_weights, given):
    classifier = ImageClassifier(SMALL if given == "spec" else build(SMALL, 10, seed=1))
    data = WholeDataset(Digits(test_fraction=0.95), batch_size=45)
    fit(classifier, data, enable_checkpointing=True, default_root_dir=tmp_path, limit_val_batches=0)
    path = next(tmp_path.rglob("*.ckpt"))
    loaded, about = load_model(path)
    assert same_weights(loaded, classifier.model)
    assert about["num_classes"] == 10


def test_checkpoints_that_are_none(tmp_path):
    path = tmp_path / "x.ckpt"
    for write in (
        lambda: path.write_bytes(b"junk"),
        lambda: torch.save({"state": 1}, path),
        lambda: torch.save([], path),
    ):
        write()
        with pytest.raises(CheckpointError, match="cannot be read as one of an ImageClassifier"):
            load_model(path)
