"""Per-sample gradients against a plain loop, for networks that vectorise and for those that do not."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from supreme.functional import importance
from supreme.functional.importance import SampleGradientSums, fitting_rows


def cross_entropy(logits, target):
    return functional.cross_entropy(logits, target, reduction="none")


def by_hand(network, images, labels, power, loss=cross_entropy):
    """One backward pass per sample, summed in float64."""
    network = copy.deepcopy(network)
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in network.named_parameters()}
    for image, label in zip(images, labels, strict=True):
        network.zero_grad()
        loss(network(image[None]), label[None]).sum().backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad.double().abs() ** power
    return {name: value for name, value in total.items() if network.get_parameter(name).requires_grad}


class Branches(nn.Module):
    """Takes another way for dark images."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(192, 4), nn.Linear(192, 4)

    def forward(self, images):
        rows = images.flatten(1)
        return self.first(rows) if float(rows.sum()) < 0 else self.second(rows)


class InPlace(nn.Module):
    """Writes into its input, and into a tensor that has no row per image."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 4)

    def forward(self, images):
        images.mul_(2.0)
        total = torch.zeros(4, dtype=images.dtype)
        total.add_(self.layer(images.flatten(1))[0])
        return total[None]


class Attention(nn.Module):
    """Pixels as tokens of a transformer layer, with a learnt position."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(64, 3))
        self.layer = nn.TransformerEncoderLayer(3, 1, 8, batch_first=True)
        self.head = nn.Linear(3, 4)

    def forward(self, images):
        return self.head(self.layer(images.flatten(2).mT + self.place).mean(1))


@pytest.fixture
def data(tiny):
    images, labels = tiny.images(21)
    return images.double(), labels


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("chunk_size", [None, 1, 4, 100])
@pytest.mark.parametrize("norm", ["batch", "group", "blocks", "tied"])
def test_sums(tiny, data, norm, chunk_size, power):
    network = tiny.network(norm).double().eval()
    sums = SampleGradientSums(network, cross_entropy, power, chunk_size)
    found = sums(*data)
    assert sums.vectorised == (chunk_size != 1)
    expected = by_hand(network, *data, power)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("power", [1, 2])
def test_attention_is_vectorised(data, power):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Attention().double().eval()
    sums = SampleGradientSums(network, cross_entropy, power)
    expected = by_hand(network, *data, power)
    for name, value in sums(*data).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-11, atol=1e-16)
    assert sums.vectorised


@pytest.mark.parametrize("make", [Branches, InPlace])
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_other_networks_go_sample_by_sample(data, make, chunk_size):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make().double().eval()
    images = data[0].clone()
    sums = SampleGradientSums(network, cross_entropy, 2, chunk_size)
    with pytest.warns(UserWarning, match=f"sample by sample.*{make.__name__} cannot be vectorised.*: .") as warned:
        found = sums(images, data[1])
    assert len(warned) == 1
    assert not sums.vectorised
    assert torch.equal(images, data[0])
    expected = by_hand(network, data[0].clone(), data[1], 2)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-16)
    if make is Branches:
        assert min(value.max() for value in found.values()) > 0


def test_networks_in_place_that_vectorise(data):
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(192, 4)).double().eval()
    images = data[0].clone()
    sums = SampleGradientSums(network, cross_entropy)
    found = sums(images, data[1])
    assert sums.vectorised
    assert torch.equal(images, data[0])
    expected = by_hand(network, data[0].clone(), data[1], 2)
    torch.testing.assert_close(found["2.weight"], expected["2.weight"], rtol=1e-12, atol=1e-16)


def test_what_is_wrong_with_the_network_is_said(data):
    network = nn.Sequential(nn.Flatten(), nn.Linear(7, 4)).double()
    with pytest.warns(UserWarning, match="192"), pytest.raises(RuntimeError, match="192"):
        SampleGradientSums(network, cross_entropy)(*data)


def test_frozen_and_unreached_parameters(tiny, data):
    network = tiny.network().double().eval()
    network.register_parameter("spare", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    network[0].requires_grad_(False)
    for chunk_size in (None, 1):
        found = SampleGradientSums(network, cross_entropy, 2, chunk_size)(*data)
        assert "0.weight" not in found
        assert torch.equal(found["spare"], torch.zeros(3, dtype=torch.float64))


def test_nothing_changes_in_the_network(tiny, data, same_weights):
    network = tiny.network().double().eval()
    before = copy.deepcopy(network)
    with torch.no_grad():
        for chunk_size in (None, 1):
            SampleGradientSums(network, cross_entropy, 2, chunk_size)(*data)
    assert same_weights(network, before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_no_samples(tiny):
    network = tiny.network().eval()
    found = SampleGradientSums(network, cross_entropy)(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert all(value.dtype == torch.float64 and not value.any() for value in found.values())


def test_low_precision_sums_in_float64(tiny, data):
    network = tiny.network("group").bfloat16().eval()
    found = SampleGradientSums(network, cross_entropy)(*data)
    wide = by_hand(tiny.network("group").double().eval(), *data, 2)
    for name, value in found.items():
        assert value.dtype == torch.float64
        assert (value - wide[name]).norm() <= 0.1 * wide[name].norm()


def test_memory_that_runs_out_halves_the_chunk(tiny, data, monkeypatch):
    network = tiny.network().double().eval()
    sums, tried = SampleGradientSums(network, cross_entropy), []
    real = sums._together

    def together(images, targets):
        tried.append(len(images))
        if len(images) > 5:
            raise torch.OutOfMemoryError("no memory")
        return real(images, targets)

    monkeypatch.setattr(sums, "_together", together)
    found = sums(*data)
    assert tried == [21, 7, *[3] * 7]  # 21 as three times at most 10; then at most 3
    expected = by_hand(network, *data, 2)
    torch.testing.assert_close(found["0.weight"], expected["0.weight"], rtol=1e-12, atol=1e-16)
    given = SampleGradientSums(network, cross_entropy, 2, 8)
    monkeypatch.setattr(given, "_together", together)
    with pytest.raises(torch.OutOfMemoryError):
        given(*data)


def test_rows_of_a_chunk(monkeypatch):
    networks = [nn.Linear(size, size, bias=False, device="meta") for size in (10, 16384, 2**15)]
    assert [fitting_rows(network) for network in networks] == [128, 4, 1]
    assert fitting_rows(nn.Linear(2, 2)) == 256
    assert [fitting_rows(nn.Linear(2, 2), 3 * side**2) for side in (32, 64, 224)] == [170, 42, 16]
    monkeypatch.setitem(importance.GRADIENT_BYTES, "cpu", 240)
    assert fitting_rows(nn.Linear(2, 2)) == 10  # of 24 bytes
    assert fitting_rows(nn.Linear(2, 4)) == 1  # 5 of 48 bytes would fit


@pytest.mark.parametrize(("memory", "rows"), [(2**33, 2), (2**37, 32), (2**40, 128), (2**20, 1)])
def test_rows_of_a_chunk_follow_the_memory_of_a_cuda_device(monkeypatch, memory, rows):
    """A 32nd of the memory, for gradients of 128 MiB each."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory))
    network = nn.Linear(2**13, 2**12, bias=False, device="meta")
    assert fitting_rows(network) == 32  # of 4 GiB
    parameter = SimpleNamespace(
        requires_grad=True, numel=lambda: 2**25, element_size=lambda: 4, device=torch.device("cuda", 0)
    )
    monkeypatch.setattr(network, "parameters", lambda: iter([parameter]))
    assert fitting_rows(network) == rows
