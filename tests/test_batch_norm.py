"""BatchNorm over the global batch, in one process; several processes: tests/distributed."""

import copy

import pytest
import torch
from torch import nn

from supreme.batch_norm import exact_batch_norm, restore_batch_norm, set_filler


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False)]
)
@pytest.mark.parametrize("train", [True, False])
def test_it_is_torchs_own_in_one_process(layer, train):
    layer = copy.deepcopy(layer).train(train)
    with torch.no_grad():
        layer.running_mean.copy_(torch.tensor([1.0, -1.0, 0.5]))
    plain, ours = layer, nn.Sequential(copy.deepcopy(layer))
    exact_batch_norm(ours)
    shape = (6, 3) if isinstance(layer, nn.BatchNorm1d) else (6, 3, 2, 2)
    for _ in range(2):
        values = torch.randn(shape)
        assert torch.equal(plain(values), ours(values))
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(ours[0].named_buffers())[name])


def test_one_value_per_channel_uses_running_statistics():
    layer = nn.BatchNorm1d(2)
    network = nn.Sequential(layer)
    values = torch.tensor([[3.0, -1.0]])
    with pytest.raises(ValueError, match="more than 1 value"):
        network(values)
    exact_batch_norm(network)
    before = layer.num_batches_tracked.clone()
    torch.testing.assert_close(network(values), values / (1 + layer.eps) ** 0.5)
    assert layer.num_batches_tracked == before
    restore_batch_norm(network)
    with pytest.raises(ValueError, match="more than 1 value"):
        network(values)


def test_without_running_statistics_torch_decides():
    network = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)).eval()
    exact_batch_norm(network)
    values = torch.tensor([[1.0, 5.0], [3.0, 9.0]])
    torch.testing.assert_close(network(values).sum(0), torch.zeros(2))
    with pytest.raises(ValueError, match="more than 1 value"):
        network(values[:1])


def test_restored_and_copied_layers():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    exact_batch_norm(network)
    twin = copy.deepcopy(network)
    assert twin[1].forward.__self__ is twin[1]
    restore_batch_norm(network)
    restore_batch_norm(nn.Linear(2, 2))
    assert "forward" not in vars(network[1])
    assert network.state_dict().keys() == nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict().keys()


def test_filler_reaches_all_layers():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    set_filler(network, True)  # nothing to tell yet
    exact_batch_norm(network)
    set_filler(network, True)
    assert network[0].supreme_rows.filler
    assert network[2].supreme_rows.filler
    set_filler(network, False)
    assert not network[2].supreme_rows.filler
