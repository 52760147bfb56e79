"""UNSIR against stored results, with and without the published leak."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch.utils.data import TensorDataset

from supreme.batch import ForgetRequest, Samples
from supreme.errors import ConfigError, NotApplicableError
from supreme.methods import UNSIR
from supreme.scenarios.given_sets import GivenSets

QUICK = {"noise_steps": 3, "noise_repeats": 2, "noise_batch_size": 5, "samples_per_class": 6}


def noise(golden):
    return torch.tensor(golden.arrays["noise"]).to(golden.dtype)


def test_weights_by_definition(case):
    golden = case("unsir_whole")
    result = golden.unlearn("UNSIR", noise=noise(golden))
    golden.check(result.model.state_dict(), "by_definition_float64")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights_with_the_leak(case, dtype):
    golden = case("unsir_whole", dtype)
    method = UNSIR(golden.network(), noise=noise(golden), leak_noise_gradients=True)
    golden.check(golden.unlearn(method).model.state_dict())
    if not golden.double:
        golden.check({"trained": method.noise}, "intermediate", prefix="noise.")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("steps", [1, 25])
def test_published_noise(case, dtype, steps):
    golden = case("unsir_noise", dtype)
    forget = golden.meta["forget_class"]
    images = torch.zeros(4, *golden.arrays["noise"].shape[1:], dtype=dtype)
    sets = [TensorDataset(images, torch.full((4,), label)) for label in (forget, 0)]
    golden.forget, golden.retain = sets
    method = UNSIR(
        golden.network(), noise=noise(golden), noise_steps=steps, noise_batch_size=5, noise_repeats=1, lr=1e-9
    )
    golden.meta.pop("batch_size")
    golden.unlearn(method)
    file = "expected_float64" if golden.double else "expected"
    expected = load_file(golden.folder / f"{file}.safetensors")[f"noise_step{steps}"]
    assert (method.noise - expected).abs().max() <= golden.tolerance


def test_noise_raises_the_loss_of_the_forget_class(tiny, fit):
    network = tiny.network()
    method = UNSIR(network, **{**QUICK, "noise_steps": 40, "noise_penalty": 0.0}, seed=3)
    untrained = UNSIR(network, **QUICK, seed=3)._noise_like(torch.zeros(1, 3, 8, 8)).detach()
    fit(method, tiny.scenario())
    target = torch.full((5,), 2)

    def loss(images):
        return torch.nn.functional.cross_entropy(network.eval()(images), target).item()

    assert loss(method.noise) > loss(untrained) + 0.3


def test_network_rests_while_the_noise_learns(tiny, fit):
    """lr is 0 in the noise phase: with no impair and repair to speak of, nothing moves."""
    network = tiny.network("group")
    method = fit(UNSIR(network, **QUICK, lr=1e-30), tiny.scenario())
    pairs = zip(method.model.parameters(), network.parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) < 1e-28


@pytest.mark.parametrize("leak", [False, True])
def test_gradients_of_the_weights_in_the_noise_phase(tiny, fit, leak):
    """They are computed where they are of use; afterwards the same weights learn as before."""
    method = UNSIR(tiny.network(), **QUICK, leak_noise_gradients=leak)
    method.model[0].bias.requires_grad_(False)
    learns, seen = [p.requires_grad for p in method.model.parameters()], []

    class Watch(Callback):
        def on_after_backward(self, trainer, pl_module):
            seen.append((pl_module._phase, [p.requires_grad for p in pl_module.model.parameters()]))

    fit(method, tiny.scenario(), callbacks=[Watch()])
    assert {phase for phase, _ in seen} == {0, 1, 2}
    for phase, found in seen:
        assert found == (learns if leak or phase else [False] * len(learns))


def test_a_trial_run_leaves_weights_that_learn(tiny, fit):
    method = fit(UNSIR(tiny.network(), **QUICK), tiny.scenario(), fast_dev_run=True)
    assert all(parameter.requires_grad for parameter in method.model.parameters())


@pytest.mark.parametrize("last", [True, False])
def test_images_with_noise_keep_their_layout(tiny, fit, last):
    method, seen = UNSIR(tiny.network(), **QUICK), []
    method.model.channels_last = last
    method.model.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    fit(method, tiny.scenario())
    assert set(seen) == {last}


def test_forget_images_have_no_effect(tiny, fit, same_weights):
    forget, retain = tiny.sets()
    spoilt = TensorDataset(torch.full_like(forget.tensors[0], torch.nan), forget.tensors[1])
    runs = [
        fit(UNSIR(tiny.network(), **QUICK), GivenSets(f, retain, 4, forget_classes=(2,), batch_size=8)).model
        for f in (forget, spoilt)
    ]
    assert same_weights(*runs)


def test_retain_samples(case):
    """The first samples of each class; in sub-class requests of each fine class, by definition."""
    golden = case("splits")
    fine, coarse = (torch.tensor(golden.arrays[f"{kind}_train"]) for kind in ("fine", "coarse"))
    method = UNSIR(torch.nn.Linear(2, 2))
    for kind, label in (("coarse", coarse), ("fine", fine)):
        index = (label != golden.meta[f"forget_{kind}"]).nonzero().flatten()
        samples = Samples(index, coarse[index], fine[index], torch.zeros(len(index), dtype=torch.bool))
        fines = None if kind == "coarse" else (golden.meta["forget_fine"],)
        method.request = ForgetRequest(5, (golden.meta["forget_coarse"],), "", torch.arange(1), fines)
        chosen = method._first(samples).tolist()
        expected = golden.json()["unsir_retain_samples"]["class_forgetting"]
        if kind == "fine":
            expected = [
                i for k in range(15) if k != golden.meta["forget_fine"] for i in (fine == k).nonzero().flatten()
            ]
            published = golden.json()["unsir_retain_samples"]["subclass_forgetting_reference"]  # no argument gives it
            assert len(set(expected)) == len(set(map(int, published))) + 53
        assert chosen == [int(i) for i in expected]
        method.samples_per_class = 2
        few = method._first(samples)
        assert torch.bincount(label[few]).max() == 2
        method.samples_per_class = 500


def test_several_classes_take_turns(tiny, fit):
    method = fit(UNSIR(tiny.network(), **QUICK), tiny.scenario(forget_classes=(1, 2)))
    assert method._noise_classes(torch.device("cpu")).tolist() == [1, 2, 1, 2, 1]


def test_seeds(tiny, fit, same_weights):
    runs = [fit(UNSIR(tiny.network(), **QUICK, lr=0.01, seed=seed), tiny.scenario()) for seed in (1, 1, 2)]
    assert same_weights(runs[0].model, runs[1].model)
    assert torch.equal(runs[0].noise, runs[1].noise)
    assert not torch.equal(runs[0].noise, runs[2].noise)


def test_given_noise_is_not_changed(tiny, fit):
    given = torch.randn(5, 3, 8, 8)
    before = copy.deepcopy(given)
    fit(UNSIR(tiny.network(), **QUICK, noise=given), tiny.scenario())
    assert torch.equal(given, before)
    assert not given.requires_grad


def test_steps_for_fine_classes(tiny):
    method = UNSIR(tiny.network())
    assert method.phases[0].passes == 25
    method.request = ForgetRequest(4, (1,), "", torch.arange(1), forget_subclasses=(3,))
    assert method.phases[0].passes == 250


def test_without_a_class(tiny, fit):
    with pytest.raises(NotApplicableError, match="needs a class to forget"):
        fit(UNSIR(tiny.network()), tiny.scenario(forget_classes=None))


@pytest.mark.parametrize(
    "wrong", [{"noise_steps": 0}, {"noise_batch_size": 0}, {"noise_repeats": 0}, {"samples_per_class": 0}, {"lr": 0}]
)
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        UNSIR(tiny.network(), **wrong)


def test_noise_of_another_shape(tiny, fit):
    with pytest.raises(ConfigError, match="initial noise of shape"):
        fit(UNSIR(tiny.network(), **QUICK, noise=torch.zeros(5, 3, 4, 4)), tiny.scenario())
