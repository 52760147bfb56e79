"""Evaluation: stored values through ``supreme.evaluate``, a model against itself, gaps, kept outputs."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset

from supreme.api import evaluate
from supreme.batch import PARTS
from supreme.datasets import Digits
from supreme.distributed import hushed, quiet_trainer
from supreme.errors import CheckpointError, DataError
from supreme.evaluation import Evaluation, Outputs
from supreme.metrics import MIA, Accuracy, ActivationDistance, JSDivergence, LayerwiseDistance
from supreme.scenarios import FullClass, GivenSets, RandomSample

NAMES = ("unlearned", "retrained", "original", "incompetent_teacher")


@pytest.fixture(scope="module")
def stored(tasks):
    """The networks, sets, logits and values of the metrics case."""
    folder = tasks.GOLDEN / "metrics"
    meta, data = json.loads((folder / "meta.json").read_text()), np.load(folder / "data.npz")
    networks = {}
    for name in NAMES:
        networks[name] = tasks.sequential(meta["model"])
        networks[name].load_state_dict(load_file(folder / f"{name}.safetensors"))
    sets = {}
    for split in ("train", "test"):
        images, labels = (torch.tensor(data[f"{kind}_{split}"]) for kind in ("images", "labels"))
        forget = torch.tensor(data[f"forget_mask_{split}"])
        sets[f"forget_{split}"] = TensorDataset(images[forget], labels[forget])
        sets[f"retain_{split}"] = TensorDataset(images[~forget], labels[~forget])
    expected = json.loads((folder / "expected.json").read_text())
    logits = load_file(folder / "logits.safetensors")
    return SimpleNamespace(networks=networks, sets=sets, expected=expected, logits=logits)


def scores_of(stored, **changes):
    given = {
        "retrained": stored.networks["retrained"],
        "original": stored.networks["original"],
        "incompetent": stored.networks["incompetent_teacher"],
        **stored.sets,
        "batch_size": 8,
        "accelerator": "cpu",
        **changes,
    }
    return evaluate(given.pop("unlearned", stored.networks["unlearned"]), **given)


def probabilities(stored, name, place):
    return torch.softmax(stored.logits[f"{name}.{place}"].double(), dim=1)


def by_definition(stored):
    """Every value once more, from the stored logits, with numpy and scikit-learn alone."""
    from sklearn.linear_model import LogisticRegression

    def divergence(p, q):
        m = (p + q) / 2
        kl = [(x * (x.log2() - m.log2())).sum(1) for x in (p, q)]
        return ((kl[0] + kl[1]) / 2).mean().item()

    found = {}
    for place in ("whole", "retain", "forget"):
        names = {name: probabilities(stored, name, f"test_{place}") for name in NAMES}
        split = [stored.sets[f"{part}_test"].tensors[1] for part in ("retain", "forget")]
        if place == "whole":
            u, r = (torch.cat([probabilities(stored, n, f"test_{k}") for k in ("retain", "forget")]) for n in NAMES[:2])
            target = torch.cat(split)
        else:
            u, r, target = names["unlearned"], names["retrained"], split[place == "forget"]
        accuracies = [(p.argmax(1) == target).double().mean().item() for p in (u, r)]
        found[f"{place}/accuracy"], found[f"{place}/accuracy_gap"] = accuracies[0], accuracies[0] - accuracies[1]
        losses = [-p[torch.arange(len(target)), target].log().mean().item() for p in (u, r)]
        found[f"{place}/loss"], found[f"{place}/loss_gap"] = losses[0], losses[0] - losses[1]
        found[f"{place}/activation_distance"] = (u - r).square().sum(1).sqrt().mean().item()
        found[f"{place}/js_divergence"] = divergence(u, r)
        found[f"{place}/completeness"] = (u.argmax(1) == r.argmax(1)).double().mean().item()
    for name, key in (("unlearned", "zrf"), ("original", "zrf_original"), ("retrained", "zrf_retrained")):
        p = probabilities(stored, name, "test_forget")
        found[f"forget/{key}"] = 1 - divergence(p, probabilities(stored, "incompetent_teacher", "test_forget"))
    found["forget/zrf_gap"] = found["forget/zrf"] - found["forget/zrf_retrained"]
    pairs = zip(stored.networks["unlearned"].parameters(), stored.networks["retrained"].parameters(), strict=True)
    found["layerwise_distance"] = sum((a - b).double().square().sum().item() for a, b in pairs) ** 0.5

    def attack(name):
        def entropy(place):
            p = probabilities(stored, name, place)
            return -(p * p.log()).sum(1).numpy()[:, None]

        member, other = entropy("train_retain"), np.concatenate([entropy("test_retain"), entropy("test_forget")])
        model = LogisticRegression(C=2.0, class_weight="balanced", max_iter=1000, tol=1e-10)
        model.fit(np.concatenate([member, other]), np.r_[np.ones(len(member)), np.zeros(len(other))])
        return model.predict(entropy("train_forget")).mean()

    found["mia"] = attack("unlearned")
    found["mia_gap"] = found["mia"] - attack("retrained")
    return found


def test_every_value_by_definition(stored):
    expected, found = by_definition(stored), scores_of(stored)
    assert set(found) == {*expected, "mia_auc"}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=2e-6), key


def test_stored_definitions(stored):
    """The stored file has both what the published code gives and the definition, which is ours."""
    found, values = scores_of(stored), stored.expected
    for place in ("whole", "retain", "forget"):
        expected = {
            "accuracy": values[f"accuracy_test_{place}"]["value_by_definition"] / 100,
            "loss": values[f"loss_test_{place}"]["value_by_definition"],
            "completeness": values[f"completeness_test_{place}"]["value_by_definition"] / 100,
            "activation_distance": values[f"activation_distance_test_{place}"]["value_by_definition"],
            "js_divergence": values[f"jsdiv_test_{place}"]["value_by_definition_bits"],
        }
        for key, value in expected.items():
            assert found[f"{place}/{key}"] == pytest.approx(value, abs=1e-5), key
    for key, name in (("zrf", "final"), ("zrf_original", "initial")):
        value = values[f"zrf_{name}_test_forget"]["value_by_definition_bits"]
        assert found[f"forget/{key}"] == pytest.approx(value, abs=1e-5)
    assert found["mia"] == pytest.approx(values["membership_inference_attack"]["value_reference"], abs=1e-9)
    assert found["layerwise_distance"] == pytest.approx(values["layerwise_distance"]["value_reference"], rel=1e-5)


def test_a_model_against_itself(stored):
    network = stored.networks["unlearned"]
    found = scores_of(stored, retrained=copy.deepcopy(network))
    assert scores_of(stored, retrained=network) == found
    for place in ("whole", "retain", "forget"):
        assert found[f"{place}/activation_distance"] == 0.0
        assert found[f"{place}/js_divergence"] == 0.0
        assert found[f"{place}/completeness"] == 1.0
    assert found["layerwise_distance"] == 0.0
    gaps = {key: value for key, value in found.items() if key.endswith("_gap")}
    assert len(gaps) == 8
    assert set(gaps.values()) == {0.0}


def test_batch_size_has_no_effect(stored):
    first, second = scores_of(stored, batch_size=7), scores_of(stored, batch_size=64)
    assert first == pytest.approx(second, rel=1e-6, abs=1e-7)


def test_networks_are_left_as_they_are(stored):
    before = {name: copy.deepcopy(network.train()) for name, network in stored.networks.items()}
    state = torch.get_rng_state()
    scores_of(stored)
    assert torch.equal(torch.get_rng_state(), state)
    for name, network in stored.networks.items():
        assert network.training
        assert all(p.requires_grad for p in network.parameters())
        assert all(torch.equal(v, network.state_dict()[k]) for k, v in before[name].state_dict().items())
        network.eval()


def test_gaps_need_the_retrained_model_alone(stored):
    """A metric that never looks at M_r has a gap all the same."""
    found = scores_of(stored, metrics=["Accuracy", MIA(seed=3)])
    for key in ("whole/accuracy", "retain/accuracy", "forget/accuracy", "mia"):
        other = scores_of(
            stored, unlearned=stored.networks["retrained"], retrained=None, metrics=["Accuracy", MIA(seed=3)]
        )
        assert found[f"{key}_gap"] == found[key] - other[key]
        assert f"{key}_gap" not in other


def test_the_seed_drives_the_folds_of_the_attack_alone(stored):
    first, same, other = (scores_of(stored, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert {key for key in first if first[key] != other[key]} == {"mia_auc"}


def test_without_other_models(stored):
    found = scores_of(stored, retrained=None, original=None)
    assert set(found) == {
        *(f"{place}/{key}" for place in ("whole", "retain", "forget") for key in ("accuracy", "loss")),
        *("forget/zrf", "mia", "mia_auc"),
    }


def test_a_drawn_teacher_is_that_of_bad_teacher(stored):
    from supreme.models.build import reinitialise
    from supreme.seeding import derive

    sets = stored.sets
    request = GivenSets(sets["forget_train"], sets["retain_train"], 4).request.fingerprint
    teacher = reinitialise(stored.networks["unlearned"], derive(request, "incompetent teacher"))
    drawn, given = scores_of(stored, incompetent=None), scores_of(stored, incompetent=teacher)
    assert drawn["forget/zrf"] == given["forget/zrf"]


def test_a_network_that_cannot_be_drawn_anew_has_no_zrf(stored):
    network = copy.deepcopy(stored.networks["unlearned"])
    network.register_parameter("spare", nn.Parameter(torch.ones(1)))
    found = scores_of(stored, unlearned=network, retrained=None, original=None, incompetent=None)
    assert "forget/zrf" not in found
    assert "mia" in found


def test_weights_alone(stored):
    found = scores_of(stored, metrics=["LayerwiseDistance"])
    assert found == {"layerwise_distance": pytest.approx(by_definition(stored)["layerwise_distance"], rel=1e-6)}


def test_random_requests_test_on_the_forget_set_itself(stored):
    """Without D'_f: D'_f = D_f, and D'_r = whole = D'."""
    found = scores_of(stored, forget_test=None)
    swapped = scores_of(stored, forget_test=stored.sets["forget_train"])
    for key in ("accuracy", "loss", "activation_distance", "completeness"):
        assert found[f"forget/{key}"] == pytest.approx(swapped[f"forget/{key}"], rel=1e-9)
        assert found[f"whole/{key}"] == found[f"retain/{key}"]
        assert found[f"retain/{key}"] == pytest.approx(swapped[f"retain/{key}"], rel=1e-9)


def test_double_precision(stored):
    found = scores_of(stored, precision="64-true")
    assert found == pytest.approx(scores_of(stored), rel=1e-4, abs=1e-5)


def run(scenario, *networks, **settings):
    evaluation = Evaluation(*map(copy.deepcopy, networks), **settings)
    with hushed():
        quiet_trainer("cpu").test(evaluation, datamodule=scenario, verbose=False)
    return evaluation


@pytest.fixture
def networks(tiny):
    return {name: tiny.network(seed=k, classes=10) for k, name in enumerate(NAMES)}


@pytest.mark.parametrize("make", [lambda: FullClass(Digits(), 3), lambda: RandomSample(Digits(), 0.2)])
def test_kept_outputs_give_equal_scores(networks, make, tmp_path):
    scenario = make()
    random = scenario.random
    u, r, o, i = networks.values()
    fresh = run(scenario, u, r, o, i, random=random)
    kept = {}
    for name, network in (("retrained", r), ("original", o), ("incompetent", i)):
        outputs = run(scenario, network, metrics=[], parts=PARTS, random=random).outputs["unlearned"]
        outputs.save(tmp_path / name)
        kept[name] = Outputs.load(tmp_path / name)
    counted = Counting(r)
    again = Evaluation(copy.deepcopy(u), counted, outputs=kept, random=random)
    with hushed():
        quiet_trainer("cpu").test(again, datamodule=scenario, verbose=False)
    assert again.scores == fresh.scores
    assert counted.calls == 0
    assert again.scores.keys() >= {"forget/zrf", "forget/zrf_original", "mia_gap", "layerwise_distance"}


class Counting(nn.Module):
    """A network that counts its forward passes, under the parameter names of the network inside."""

    def __init__(self, network):
        super().__init__()
        self.calls = 0
        for name, child in network.named_children():
            self.add_module(name, child)

    def forward(self, images):
        self.calls += 1
        for child in self.children():
            images = child(images)
        return images


def test_every_image_is_forwarded_once_by_the_models_that_need_it(networks):
    scenario = FullClass(Digits(), 3, evaluation_batch_size=100)
    counted = [Counting(network) for network in networks.values()]
    evaluation = Evaluation(*counted)
    with hushed():
        quiet_trainer("cpu").test(evaluation, datamodule=scenario, verbose=False)
    sizes = {name: -(-len(index) // 100) for name, index in scenario.indices().items()}
    assert counted[0].calls == counted[1].calls == sum(sizes.values())
    assert counted[2].calls == counted[3].calls == sizes["forget_test"]


class Operations(TorchDispatchMode):
    """Names of the tensor operations inside; calling it wraps a function."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __call__(self, function):
        def watched():
            with self:
                function()

        return watched

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select", "index"}


def test_a_step_keeps_logits_and_asks_the_device_nothing(networks):
    evaluation = Evaluation(*networks.values())
    for batch in FullClass(Digits(), 3, evaluation_batch_size=200).evaluation_loader(PARTS):
        batch = batch._replace(image=batch.image.expand(-1, 3, -1, -1).float())
        with Operations() as operations, torch.inference_mode():
            evaluation.test_step(batch, 0)
        assert not WAITING & set(operations.names)
        forward = len(networks["unlearned"]) * sum(batch.place in parts for parts in evaluation._needed.values())
        assert len(operations.names) <= 4 * forward + 10


def test_work_of_the_metrics_does_not_grow_with_the_number_of_batches(networks):
    counts = []
    for rows in (30, 300):
        evaluation = Evaluation(*map(copy.deepcopy, networks.values()))
        scenario = FullClass(Digits(), 3, evaluation_batch_size=rows)
        found = Operations()
        evaluation.on_test_epoch_end = found(evaluation.on_test_epoch_end)
        with hushed():
            quiet_trainer("cpu").test(evaluation, datamodule=scenario, verbose=False)
        counts.append(len(found.names))
    assert counts[0] == counts[1]


def test_means_of_batch_means_see_the_batches_that_were_served(networks):
    scenario = FullClass(Digits(), 3, evaluation_batch_size=50)
    found = run(scenario, networks["unlearned"], metrics=[Accuracy("batch_mean"), Accuracy()])
    outputs = found.outputs["unlearned"]
    right = outputs.logits.argmax(dim=1) == outputs.target
    means = {}
    for name, code in (("retain", PARTS.index("retain_test")), ("forget", PARTS.index("forget_test"))):
        means[name] = [piece.double().mean() for piece in right[outputs.part == code].split(50)]
        assert found.scores[f"{name}/accuracy_batch_mean"] == pytest.approx(float(sum(means[name])) / len(means[name]))
    both = [*means["retain"], *means["forget"]]
    assert found.scores["whole/accuracy_batch_mean"] == pytest.approx(float(sum(both)) / len(both))
    assert found.scores["whole/accuracy"] == pytest.approx(right[outputs.part < 2].double().mean().item(), rel=1e-12)


def test_given_outputs_are_passed_on_as_they_are(networks):
    scenario, (u, r, *_) = FullClass(Digits(), 3), networks.values()
    given = run(scenario, r, metrics=[], parts=PARTS).outputs["unlearned"]
    assert run(scenario, u, outputs={"retrained": given}).outputs["retrained"] is given


def test_images_are_made_ready_only_where_a_network_sees_them(networks, monkeypatch):
    calls, made_ready = [], FullClass._transform
    monkeypatch.setattr(FullClass, "_transform", lambda self, *given: calls.append(1) or made_ready(self, *given))
    whole = run(FullClass(Digits(), 3), *networks.values())
    assert len(calls) > 2
    calls.clear()
    u, r, *_ = networks.values()
    again = run(FullClass(Digits(), 3), u, r, outputs=whole.outputs)
    assert not calls
    assert again.scores == whole.scores
    run(FullClass(Digits(), 3), u, r, outputs={name: whole.outputs[name] for name in ("retrained", "original")})
    assert len(calls) > 2


def test_outputs_are_complete_ordered_and_right(networks):
    scenario = FullClass(Digits(), 3, evaluation_batch_size=50)
    network = networks["unlearned"].double()
    outputs = run(scenario, network, metrics=[], parts=PARTS).outputs["unlearned"]
    expected = sorted((PARTS.index(name), k) for name, index in scenario.indices().items() for k in index.tolist())
    assert list(zip(outputs.part.tolist(), outputs.index.tolist(), strict=True)) == expected
    train = outputs.part >= 2
    assert torch.equal(outputs.target[train], scenario.dataset.train.targets[outputs.index[train]])
    assert torch.equal(outputs.target[~train], scenario.dataset.test.targets[outputs.index[~train]])
    rows = outputs.index[train][:20]
    images = (scenario.dataset.train.images[rows].float() / 255 - scenario.dataset.mean[0]) / scenario.dataset.std[0]
    with torch.no_grad():
        logits = network.eval()(images.expand(-1, 3, -1, -1).double())
    torch.testing.assert_close(outputs.logits[train][:20], logits, rtol=1e-12, atol=1e-12)


def test_missing_and_damaged_outputs(networks, tmp_path):
    scenario = FullClass(Digits(), 3)
    u, r, *_ = networks.values()
    part = run(scenario, r, metrics=[], parts=["retain_test"]).outputs["unlearned"]
    with pytest.raises(CheckpointError, match="some are missing"):
        run(scenario, u, outputs={"retrained": part})
    (tmp_path / "x").write_bytes(b"12345678901")
    for path in (tmp_path / "x", tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            Outputs.load(path)


def test_train_mode_and_frozen_networks_make_no_difference(networks):
    scenario = FullClass(Digits(), 3)
    u, r, *_ = networks.values()
    metrics = [Accuracy(), ActivationDistance(), JSDivergence(), LayerwiseDistance()]
    first = run(scenario, u.train(), r.train(), metrics=metrics).scores
    assert run(scenario, u.eval(), r.eval().requires_grad_(False), metrics=metrics).scores == first


def test_a_diverged_network_is_reported(networks):
    u, *_ = networks.values()
    with torch.no_grad():
        u[0].weight.fill_(torch.nan)
    with pytest.raises(DataError, match="NaN"):
        run(FullClass(Digits(), 3), u)
