"""What the strategy decides, as far as one process shows it; several processes: tests/distributed."""

import logging
import sys
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy, XLAStrategy
from torch import nn
from torchvision.ops import StochasticDepth
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTAttention

from supreme import distributed, strategies
from supreme.classifier import Recipe
from supreme.distributed import FSDP2, Frozen, NoStep, hushed, quiet_trainer, resolve_strategy
from supreme.errors import ConfigError
from supreme.methods import JIT, SCRUB, UNSIR, BadTeacher, FineTune, NegGrad, RandomLabels
from supreme.models.build import NetworkSpec, build
from supreme.outline import DrawnWeights, outline


def test_pieces_of_whole_parameters():
    layer = nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    assert [name for name, _ in distributed.pieces(layer)] == ["weight"]
    weight = layer.weight
    assert distributed.layout(weight) == "whole"
    assert not distributed.is_split(weight)
    assert torch.equal(distributed.local_weight(weight), weight)
    assert torch.equal(distributed.local_gradient(weight), torch.zeros(3, 2))
    distributed.add_to_gradient(weight, torch.ones(3, 2))
    assert weight.grad is None  # what the loss does not reach is not trained
    layer(torch.ones(1, 2)).sum().backward()
    distributed.add_to_gradient(weight, torch.full((3, 2), 2.0))
    assert torch.equal(distributed.local_gradient(weight), torch.full((3, 2), 3.0))
    distributed.set_weight(weight, torch.zeros(3, 2))
    assert (weight == 0).all()
    assert torch.equal(distributed.local_piece(weight, torch.ones(3, 2)), torch.ones(3, 2))
    assert distributed.whole_norm(weight, torch.tensor([3.0, 4.0])).item() == 5.0
    assert torch.equal(distributed.whole_piece(weight, torch.ones(3, 2)), torch.ones(3, 2))


def test_plain_attributes_are_set_at_once_and_parts_of_the_network_as_ever():
    module = FineTune(nn.Linear(2, 2))
    module.note = "first"
    assert "note" in vars(module)
    module.note = None
    assert module.note is None
    layer = nn.Linear(2, 2)
    module.note = layer  # a plain attribute gives way to a module, and that to None
    assert dict(module.named_children())["note"] is layer
    module.note = None
    assert "note" not in dict(module.named_children()) or module.note is None
    with pytest.raises(TypeError):
        module.model = "no module"
    assert isinstance(module.model, nn.Linear)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sgd_in_one_kernel_is_sgd(dtype):
    start = torch.randn(50, 3, dtype=dtype)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    optimizers = [distributed.sgd([ours], **settings), torch.optim.SGD([theirs], **settings)]
    assert optimizers[0].defaults["fused"]
    for _ in range(4):
        gradient = torch.randn(50, 3, dtype=dtype)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=8 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    assert not torch.equal(ours, start)


@pytest.mark.parametrize(("device", "expected"), [("cuda", True), ("mps", True), ("cpu", True), ("xla", None)])
def test_one_kernel_where_torch_has_it(device, expected):
    there = SimpleNamespace(device=torch.device(device))
    assert distributed.fused([there, there]) is expected
    assert distributed.fused([there, SimpleNamespace(device=torch.device("xla"))]) is None


OPTIMISERS = {
    "SGD": lambda network: Recipe("sgd").optimizers(network.parameters(), lambda: 1, 1)["optimizer"],
    "AdamW": lambda network: Recipe("adamw").optimizers(network.parameters(), lambda: 1, 1)["optimizer"],
    **{
        method.__name__: lambda network, method=method: method(network).configure_optimizers()
        for method in (FineTune, NegGrad, JIT, SCRUB, BadTeacher, RandomLabels, UNSIR)
    },
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_no_optimiser_asks_for_a_kernel_that_a_device_lacks(name):
    """As on a TPU, where torch raises at the first step of one that does; here on the meta device, which is as bare."""
    for device, expected in (("cpu", True), ("meta", None)):
        assert OPTIMISERS[name](nn.Linear(2, 2, device=device)).defaults["fused"] is expected


class OnMPS(torch.Tensor):
    """A tensor that says it is on MPS, where there is no float64."""

    @property
    def device(self):
        return torch.device("mps")

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        found = super().__torch_function__(function, types, args, kwargs)
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64")
        return found


def test_norms_on_a_device_without_float64():
    piece = torch.tensor([3.0, 4.0])
    assert distributed.whole_norm(piece, piece).dtype == torch.float64
    with pytest.raises(TypeError):
        piece.as_subclass(OnMPS).double()
    assert float(distributed.whole_norm(piece, piece.as_subclass(OnMPS))) == 5.0


def test_a_network_is_filled_where_its_shards_lie(tiny, monkeypatch):
    """While a model is configured, its module is still on the host; a group of GPUs cannot pass on what lies there."""
    method, given = FineTune(outline(tiny.network, DrawnWeights(tiny.network))), []
    method._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 1), "data_parallel": None}
    method.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    monkeypatch.setattr(distributed, "shard", lambda network, mesh: None)
    monkeypatch.setattr(distributed, "fill", lambda network, device: given.append((network, device)))
    method.configure_model()
    assert method.device.type == "cpu"
    assert given == [(method.model, torch.device("meta"))]


def test_zero_3_gathers_one_tensor_at_a_time(tiny, monkeypatch):
    """With a stand-in for DeepSpeed: parameters are empty but inside its context."""
    network, whole, gathered = tiny.network(), {}, []

    @contextmanager
    def gather(parameters):
        gathered.append(len(parameters))
        for parameter in parameters:
            parameter.data = whole[parameter]
        yield
        for parameter in parameters:
            parameter.data = torch.empty(0)

    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(zero=SimpleNamespace(GatheredParameters=gather)))
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for number, parameter in enumerate(network.parameters()):
        whole[parameter], parameter.ds_id = parameter.data, number
        parameter.data = torch.empty(0)
    found = distributed.full_state_dict(network)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert not any(value.requires_grad for value in found.values())
    assert gathered == [1] * len(whole)


def test_a_quiet_trainer_profiles_nothing_unless_asked(tiny, fit):
    assert type(quiet_trainer("cpu").profiler).__name__ == "Unprofiled"
    trainer = quiet_trainer("cpu", max_epochs=1, profiler="simple")
    with hushed():
        trainer.fit(FineTune(tiny.network(), epochs=1), datamodule=tiny.scenario())
    assert "run_training_batch" in trainer.profiler.recorded_durations


def test_one_process_is_a_group_of_one():
    assert (distributed.world_size(), distributed.rank()) == (1, 0)
    assert distributed.all_sum(torch.tensor(2.0)).item() == 2.0
    assert [t.item() for t in distributed.all_extremes(torch.tensor(1.0), torch.tensor(4.0))] == [1.0, 4.0]


def test_no_step_runs_the_closure_and_moves_nothing():
    layer = nn.Linear(1, 1)
    before = layer.weight.clone()

    def closure():
        loss = layer(torch.ones(1, 1)).sum()
        loss.backward()
        return loss

    optimizer = NoStep(layer.parameters())
    with torch.no_grad():
        assert optimizer.step(closure) is not None
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight, before)
    assert optimizer.step() is None


def test_frozen_models():
    frozen = Frozen(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    assert not frozen.model.training
    assert not frozen(torch.ones(1, 2, requires_grad=True)).requires_grad


def test_strategies_by_name():
    for name in ("fsdp", "fsdp2"):
        assert isinstance(resolve_strategy(name), FSDP2)
    assert resolve_strategy("ddp") == "ddp"
    ours = FSDP2()
    assert resolve_strategy(ours) is ours
    for refused in ("fsdp_cpu_offload", FSDPStrategy()):
        with pytest.raises(ConfigError, match='use strategy "fsdp"'):
            resolve_strategy(refused)


def test_the_first_fsdp_is_refused_in_a_stock_trainer(tiny, fit, monkeypatch):
    """It does not run on a CPU, so the strategy that does takes its name."""
    monkeypatch.setattr(strategies, "FSDPStrategy", type(quiet_trainer("cpu").strategy))
    with pytest.raises(ConfigError, match="FSDP2 in place of"):
        fit(FineTune(tiny.network()), tiny.scenario())


def test_tensor_parallelism_is_refused(tiny):
    method = FineTune(tiny.network())
    method._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 2)}
    with pytest.raises(ConfigError, match="tensor parallelism"):
        method.configure_model()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Dropout2d(0.1), True),
        (lambda: nn.AlphaDropout(0.0), False),
        (lambda: nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (lambda: nn.MultiheadAttention(4, 2), False),
        (lambda: nn.LSTM(2, 2, num_layers=2, dropout=0.1), True),
        (lambda: StochasticDepth(0.2, "row"), True),
        (lambda: ViTAttention(ViTConfig(attention_probs_dropout_prob=0.1)), True),
        (lambda: ViTAttention(ViTConfig()), False),
        (lambda: build(NetworkSpec("ResNet18", {"width": 8}), 3, 0), False),
    ],
)
def test_layers_that_drop_values(make, expected):
    assert any(distributed.drops(module) for module in make().modules()) is expected


@pytest.mark.parametrize(("rate", "processes", "warned"), [(0.5, 2, True), (0.5, 1, False), (0.0, 2, False)])
def test_dropout_in_several_processes_is_told(rate, processes, warned, recwarn):
    """Weights depend on the number of processes then; on the first of them, once."""
    method = FineTune(nn.Sequential(nn.Linear(2, 2), nn.Dropout(rate), nn.Dropout(rate)))
    method.trainer = SimpleNamespace(world_size=processes, is_global_zero=True)
    method.place_frozen = lambda: None
    method.on_fit_start()
    told = [str(warning.message) for warning in recwarn if "drops values at random" in str(warning.message)]
    assert told == ["'1' " + text for text in DROPS] * warned


DROPS = [
    "drops values at random in each process on its own, so weights that are trained in 2 processes differ from those "
    "of one; set its rate to 0 to compare them."
]


def test_frozen_models_follow_the_type_of_the_network(tiny, fit):
    method = fit(SCRUB(tiny.network(), epochs=1), tiny.scenario(), precision="bf16-true")
    assert next(method.teacher.model.parameters()).dtype == torch.bfloat16
    method = fit(SCRUB(tiny.network(), epochs=1), tiny.scenario(), precision="64-true")
    assert next(method.teacher.model.parameters()).dtype == torch.float64


def test_full_state_is_a_copy():
    layer = nn.Linear(2, 2)
    state = distributed.full_state_dict(layer)
    state["weight"].zero_()
    assert (layer.weight != 0).any()


def test_hushed_blocks_leave_no_trace():
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    with hushed():
        assert logger.level == logging.ERROR
    with pytest.raises(KeyError), hushed():
        raise KeyError
    assert logger.level == level
    assert warnings.filters == filters


def test_several_processes_without_a_group_are_refused():
    """As on several TPU cores, whose processes this package could not sum over."""
    method = FineTune(nn.Linear(2, 2))
    method.trainer = SimpleNamespace(strategy=XLAStrategy.__new__(XLAStrategy), world_size=8)
    with pytest.raises(ConfigError, match="the 8 of XLAStrategy do not"):
        method.place_frozen()
