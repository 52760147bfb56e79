"""supreme.unlearn as a function: names, mistakes, and what is left untouched. (Results: tests/methods.)"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

import supreme
from supreme.api import check_arguments, count_classes, make_method, make_metric, unlearn
from supreme.batch import Phase
from supreme.errors import ConfigError, DataError, NotApplicableError, UnknownNameError
from supreme.methods import SSD, FineTune, RandomLabels, UnlearningMethod
from supreme.metrics import MIA, Accuracy


@pytest.fixture
def run(tiny):
    """``run(method, **arguments)`` on the tiny task."""
    forget, retain = tiny.sets()

    def call(method, network=None, **arguments):
        given = {"forget": forget, "retain": retain, "batch_size": 8, "accelerator": "cpu", **arguments}
        return unlearn(tiny.network() if network is None else network, method, **given)

    return call


def test_name_alias_path_class_and_instance_are_the_same(tiny, run, same_weights):
    by_name = run("FineTune", epochs=1, seed=3).model
    for method in ("FT", "supreme.methods.FineTune", "supreme.methods.fine_tune.FineTune", FineTune):
        assert same_weights(run(method, epochs=1, seed=3).model, by_name)
    assert same_weights(run(FineTune(tiny.network(), epochs=1, seed=3)).model, by_name)


def test_the_public_names():
    assert supreme.unlearn is unlearn
    assert supreme.evaluate.__name__ == "evaluate"


def test_the_original_is_left_as_it_was(tiny, run):
    network = tiny.network().train()
    network[1].eval()  # frozen statistics of one layer
    network[0].requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    result = run("FineTune", network=network, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert [module.training for module in network] == [k != 1 for k in range(len(network))]
    assert [p.requires_grad for p in network.parameters()][:3] == [False, False, True]
    assert all(p.grad is None for p in network.parameters())
    assert not result.model.training
    assert type(result.model) is nn.Sequential
    assert [p.requires_grad for p in result.model.parameters()][:3] == [False, False, True]


def test_measurements(run):
    result = run("SSD", selection_weight=1.5)
    assert 0 < result.time_s < 10
    assert result.peak_memory_bytes >= 0
    assert 0 <= result.utilisation <= 1


def test_the_number_of_classes_is_found(tiny, run, same_weights):
    assert same_weights(run("RandomLabels", epochs=1).model, run("RandomLabels", epochs=1, num_classes=4).model)
    with pytest.raises(DataError, match=r"classes in \[0, 3\)"):
        run("RandomLabels", num_classes=3)


@pytest.mark.parametrize("forget_class", [2, [2], (2,), np.int64(2), torch.tensor(2)])
def test_forms_of_the_forget_class(run, forget_class):
    run("UNSIR", forget_class=forget_class, noise_steps=1, noise_batch_size=2, noise_repeats=1)


def test_the_forget_class_matters(run, same_weights):
    alone = run("RandomLabels", forget_class=2).model
    assert same_weights(run("RandomLabels").model, alone)  # the true class is all that is excluded in both
    assert not same_weights(run("RandomLabels", forget_class=[1, 2]).model, alone)


class Wrapped(Dataset):
    """A dataset that is read item by item."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]


def test_any_dataset_will_do(tiny, run, same_weights):
    forget, retain = tiny.sets()
    images, labels = tiny.images()
    whole = TensorDataset(images, labels)
    subsets = [Subset(whole, (labels == 2).nonzero().flatten()), Subset(whole, (labels != 2).nonzero().flatten())]
    plain = run("FineTune", epochs=1, shuffle=True).model
    for forget_set, retain_set in (subsets, (Wrapped(forget), Wrapped(retain))):
        assert same_weights(run("FineTune", epochs=1, forget=forget_set, retain=retain_set).model, plain)
    workers = run("FineTune", epochs=1, forget=Wrapped(forget), retain=Wrapped(retain), num_workers=1)
    assert same_weights(workers.model, plain)


@pytest.mark.parametrize(("asked", "own"), [(4, 4), (None, 128)])
def test_the_batch_size_reaches_methods_with_one_of_their_own(tiny, run, same_weights, asked, own):
    expected = run(RandomLabels(tiny.network(), batch_size=own), batch_size=16).model
    assert same_weights(run("RandomLabels", batch_size=asked).model, expected)
    assert not same_weights(run("RandomLabels", batch_size=9).model, expected)


def test_order(run, same_weights):
    plain = run("FineTune", epochs=1, shuffle=False).model
    assert same_weights(plain, run("FineTune", epochs=1, shuffle=False, seed=5).model)
    assert not same_weights(plain, run("FineTune", epochs=1).model)


def test_dropout_belongs_to_the_seed_and_the_global_generator_is_left_alone(run, same_weights):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4))
    torch.manual_seed(0)
    first = run("FineTune", network=network, epochs=1, seed=1).model
    torch.manual_seed(1)
    state = torch.get_rng_state()
    second = run("FineTune", network=network, epochs=1, seed=1).model
    assert torch.equal(torch.get_rng_state(), state)
    assert same_weights(first, second)
    other = run("FineTune", network=network, epochs=1, seed=1, shuffle=False).model
    assert not same_weights(other, run("FineTune", network=network, epochs=1, seed=2, shuffle=False).model)


@pytest.mark.parametrize(
    ("method", "arguments", "error", "text"),
    [
        ("LFSDD", {}, UnknownNameError, "did you mean 'LFSSD'"),
        ("no.such.Method", {}, ConfigError, "not found"),
        ("supreme.batch.Phase", {}, ConfigError, "Expected an UnlearningMethod"),
        (nn.Linear, {}, ConfigError, "Expected an UnlearningMethod"),
        ("SSD", {"selection_wieght": 1.0}, ConfigError, "did you mean 'selection_weight'"),
        ("SSD", {"colour": "red"}, ConfigError, "it takes selection_weight, dampening"),
        ("SSD", {"original": None}, ConfigError, "no argument 'original'"),
        ("SSD", {"dampening": -1}, ConfigError, "dampening >= 0"),
        ("UNSIR", {}, NotApplicableError, "needs a class to forget"),
        ("FineTune", {"forget_class": 9}, ConfigError, r"forget classes in \[0, 4\)"),
        ("FineTune", {"forget_class": []}, ConfigError, r"forget classes in \[0, 4\)"),
        ("FineTune", {"forget_class": 1.5}, ConfigError, "class number"),
        ("FineTune", {"strategy": "fsdp_cpu_offload"}, ConfigError, "FSDP2"),
        ("FineTune", {"batch_size": 0}, ConfigError, "batch sizes >= 1"),
        ("FineTune", {"epochs": 0}, ConfigError, "epochs > 0"),
    ],
)
def test_mistakes(run, method, arguments, error, text):
    with pytest.raises(error, match=text):
        run(method, **arguments)


def test_arguments_beside_an_instance(tiny, run):
    with pytest.raises(ConfigError, match="no arguments beside an instance"):
        run(SSD(tiny.network()), dampening=0.5)


@pytest.mark.parametrize("empty", ["forget", "retain"])
def test_empty_sets(tiny, run, empty):
    nothing = TensorDataset(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataError, match=f"{empty} set is empty"):
        run("SSD", **{empty: nothing})


def test_models_that_give_no_logits(tiny):
    _, retain = tiny.sets()
    with pytest.raises(DataError, match=r"logits \(N, K\)"):
        count_classes(nn.Conv2d(3, 4, 3), retain)


class Broken(nn.Module):
    """Raises in its forward pass."""

    def forward(self, images):
        raise ValueError("wrong size")


def test_a_model_that_raises_keeps_its_mode(tiny):
    network = Broken().train()
    with pytest.raises(ValueError, match="wrong size"):
        count_classes(network, tiny.sets()[1])
    assert network.training


class Ascent(UnlearningMethod):
    """A method of somebody else, with a constructor of its own that takes no seed."""

    def __init__(self, original, rate):
        super().__init__(original)
        self.rate = rate

    @property
    def phases(self):
        return [Phase("forget", passes=2)]

    def loss(self, batch):
        return -super().loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=self.rate)


def test_a_method_without_a_seed_of_its_own(run, tiny, same_weights):
    assert make_method(Ascent, tiny.network(), {"rate": 0.1, "seed": 7}).seed == 7
    assert not same_weights(run(Ascent, rate=0.1, seed=1).model, run(Ascent, rate=0.1, seed=2).model)
    with pytest.raises(ConfigError, match="'rate'"):
        run(Ascent)


def test_metrics_by_name():
    assert make_metric("MIA", seed=5, arguments={"folds": 3}).folds == 3
    assert isinstance(make_metric("supreme.metrics.Accuracy"), Accuracy)
    ours = MIA(seed=1)
    assert make_metric(ours, seed=2) is ours
    with pytest.raises(UnknownNameError, match="did you mean 'Accuracy'"):
        make_metric("Acuracy")
    with pytest.raises(ConfigError, match="Expected an EvaluationMetric"):
        make_metric("supreme.methods.SSD")
    with pytest.raises(ConfigError, match=r"MIA cannot be made with .*fold"):
        make_metric("MIA", arguments={"fold": 3})


def test_open_constructors_take_anything():
    class Open:
        def __init__(self, first, **more):
            self.given = first, more

    check_arguments(Open, {"first": 1, "other": 2})
    with pytest.raises(ConfigError, match="'first'"):
        check_arguments(Open, {"other": 2})


@pytest.mark.distributed
def test_devices_that_the_trainer_starts_itself(tiny, run, monkeypatch):
    """Weights and measurements come back from the processes."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    network = tiny.network("batch").double()
    sets = dict(zip(("forget", "retain"), tiny.sets(dtype=torch.float64), strict=True))
    one, two = (
        run("FineTune", network=network, epochs=1, **sets, **more)
        for more in ({}, {"devices": 2, "strategy": "ddp_fork"})
    )
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, rtol=0, atol=1e-12)
    assert two.time_s > 0
    assert two.peak_memory_bytes >= 0
