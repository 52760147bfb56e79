"""JIT against stored results, a loop by hand, and what its draws depend on."""

import copy

import pytest
import torch
from torch.utils.data import TensorDataset

from supreme.batch import Batch, ForgetRequest, Step
from supreme.errors import ConfigError
from supreme.methods import JIT, jit
from supreme.scenarios.given_sets import GivenSets


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights(case, dtype):
    """``mode="train"`` and ``reduction="sum"`` give the published computation."""
    golden = case("jit", dtype)
    values = golden.meta["hyperparameters"]
    golden.forget = TensorDataset(golden.images, golden.labels)
    golden.retain = TensorDataset(torch.full_like(golden.images[:1], torch.nan), golden.labels[:1])
    result = golden.unlearn(
        "JIT",
        epochs=values["epochs"],
        n_samples=values["n_samples"],
        lr=values["lr"],
        noise_std=values["noise_std"],
        noise=torch.tensor(golden.arrays["noise"]),
        mode="train",
        reduction="sum",
    )
    golden.check(result.model.state_dict())


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(tiny, fit, **arguments):
    network = tiny.network().double()
    scenario = tiny.scenario(dtype=torch.float64, shuffle=False)
    return network, fit(JIT(network, **arguments), scenario, precision="64-true").model


def by_hand(tiny, network, noise, lr, noise_std, detach):
    """Evaluation mode, mean over copies and the batch, plain gradient descent; noise of one pass after another."""
    network = copy.deepcopy(network).eval()
    for passing in noise:
        images, start = tiny.sets(dtype=torch.float64)[0].tensors[0], 0
        for image in images.split(8):
            losses = []
            for draw in passing[:, start : start + len(image)]:
                moved = torch.clamp(image + noise_std * draw, image.min().item(), image.max().item())
                other = network(moved).detach() if detach else network(moved)
                losses += [
                    (a - b).norm() / (x - y).norm()
                    for a, b, x, y in zip(network(image), other, image, moved, strict=True)
                ]
            gradients = torch.autograd.grad(torch.stack(losses).mean(), list(network.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                    parameter -= lr * gradient
            start += len(image)
    return network


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_by_hand(tiny, fit, detach, passes):
    noise = normal(passes, 3, 11, 3, 8, 8)
    arguments = {"lr": 0.3, "noise_std": 0.7, "detach": detach}
    given = noise if passes > 1 else noise[0]
    network, found = run(tiny, fit, epochs=passes, n_samples=3, noise=given, **arguments)
    expected = by_hand(tiny, network, noise, **arguments).state_dict()
    assert (expected["0.weight"] - network[0].weight).abs().max() > 1e-4
    for name, value in expected.items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("rows", "calls"), [(1, [8] * 5 + [8] + [3] * 5 + [3]), (16, [16, 16, 8, 8, 15, 3])])
def test_copies_pass_through_the_network_together(tiny, fit, monkeypatch, rows, calls):
    """5 copies of batches of 8 and 3 images; the weights are those of one copy at a time."""
    noise, seen = normal(5, 11, 3, 8, 8), []
    monkeypatch.setattr(jit, "ROWS", rows)
    network = tiny.network().double()
    method = JIT(network, lr=0.3, n_samples=5, noise=noise)
    method.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    found = fit(method, tiny.scenario(dtype=torch.float64, shuffle=False), precision="64-true").model.state_dict()
    assert seen == calls
    expected = by_hand(tiny, network, noise[None], 0.3, 0.1, True).state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-13)


def test_copies_lie_in_memory_as_images_do(tiny, fit):
    for last in (True, False):
        method, seen = JIT(tiny.network(), n_samples=3), []
        method.model.channels_last = last
        method.model.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
        fit(method, tiny.scenario())
        assert seen == [last] * 4


def test_a_rate_of_the_sum_is_one_of_the_mean(tiny, fit):
    """11 samples in one batch; noise given once serves every pass."""
    results = []
    for reduction, lr in (("mean", 0.11), ("sum", 0.01)):
        method = JIT(tiny.network().double(), 2, lr, 2, reduction=reduction, noise=normal(2, 11, 3, 8, 8).float())
        scenario = tiny.scenario(dtype=torch.float64, batch_size=11, shuffle=False)
        results.append(fit(method, scenario, precision="64-true").model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-13)


def sensitivity(model, images):
    """Mean ratio of distances, of draws of its own."""
    with torch.no_grad():
        moved = images + 0.1 * normal(*images.shape, seed=7).to(images)
        distance = (model.eval()(images) - model(moved)).norm(dim=1)
        return (distance / (images - moved).flatten(1).norm(dim=1)).mean().item()


def test_forget_samples_become_smoother_and_buffers_stay(tiny, fit):
    network = tiny.network()
    method = fit(JIT(network, epochs=5, lr=5.0, n_samples=5, detach=False), tiny.scenario())
    images = tiny.sets()[0].tensors[0]
    assert sensitivity(method.model, images) < 0.9 * sensitivity(network, images)
    for name, buffer in network.named_buffers():
        assert torch.equal(method.model.get_buffer(name), buffer)


def drawn(method, index, epoch=0, size=(3, 8, 8)):
    index = torch.as_tensor(index)
    step = Step(0, epoch, 0, len(index), False, False, 1.0)
    images = torch.zeros(len(index), *size)
    batch = Batch(images, torch.zeros_like(index), index, torch.ones(len(index)), torch.ones_like(index).bool(), step)
    return method._noise(batch, 0), method._noise(batch, 1)


def test_draws_depend_on_seed_pass_and_sample_alone(tiny):
    method = JIT(tiny.network(), seed=4)
    first, second = drawn(method, [5, 9, 2])
    assert torch.equal(drawn(method, [2, 5])[0], first[[2, 0]])
    assert torch.equal(drawn(JIT(tiny.network(), seed=4), [9])[1], second[1:2])
    others = [second, drawn(method, [5, 9, 2], epoch=1)[0], drawn(JIT(tiny.network(), seed=5), [5, 9, 2])[0]]
    assert all((first - other).abs().min(dim=0).values.max() > 0.5 for other in others)
    assert not torch.equal(first[0], first[1])


def test_draws_are_standard_normal(tiny):
    values = torch.cat(drawn(JIT(tiny.network()), range(40), size=(3, 40, 40))).double().flatten()
    assert len(values) == 384_000
    assert values.isfinite().all()
    assert abs(values.mean().item()) < 0.01
    for bound, expected in ((1.0, 0.682689), (2.0, 0.954500), (3.0, 0.997300)):
        assert (values.abs() < bound).double().mean().item() == pytest.approx(expected, abs=0.004)
    assert (values[1:] * values[:-1]).mean().abs() < 0.01


def test_given_noise_reaches_its_samples(tiny):
    noise = normal(2, 3, 3, 8, 8).float()
    method = JIT(tiny.network(), n_samples=2, noise=noise)
    method.request = ForgetRequest(4, None, "", torch.tensor([4, 9, 30]))
    assert torch.equal(drawn(method, [30, 4])[1], noise[1, [2, 0]])


def test_images_without_range_and_one_sample(tiny, fit):
    """A constant image cannot move within its range: nothing to smooth, and no NaN."""
    forget = TensorDataset(torch.ones(1, 3, 8, 8), torch.tensor([2]))
    network = tiny.network()
    method = fit(JIT(network, n_samples=2, lr=1.0), GivenSets(forget, tiny.sets()[1], 4))
    for ours, theirs in zip(method.model.parameters(), network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_labels_have_no_effect(tiny, fit, same_weights):
    forget, retain = tiny.sets()
    wrong = TensorDataset(forget.tensors[0], torch.zeros_like(forget.tensors[1]))
    runs = [fit(JIT(tiny.network(), n_samples=2), GivenSets(part, retain, 4, batch_size=8)) for part in (forget, wrong)]
    assert same_weights(runs[0].model, runs[1].model)


def test_seed_drives_the_draws(tiny, fit, same_weights):
    scenario = tiny.scenario(shuffle=False)
    runs = [fit(JIT(tiny.network(), n_samples=2, seed=seed), scenario).model for seed in (1, 1, 2)]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": 0.0}, {"n_samples": 0}, {"noise_std": 0.0}, {"mode": "both"}, {"reduction": "max"}]
)
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        JIT(tiny.network(), **wrong)


@pytest.mark.parametrize(
    "shape", [(2, 10, 3, 8, 8), (3, 11, 3, 8, 8), (1, 2, 11, 3, 8, 8), (11, 3, 8, 8), (2, 11, 3, 4, 8)], ids=str
)
def test_noise_of_another_shape(tiny, fit, shape):
    with pytest.raises(ConfigError, match="Expected noise"):
        fit(JIT(tiny.network(), epochs=2, n_samples=2, noise=torch.zeros(shape)), tiny.scenario())
