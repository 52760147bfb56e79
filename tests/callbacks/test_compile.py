"""Compiling gives the same model, is not in the measured time, and is refused where it cannot be."""

import shutil
import time

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from supreme.callbacks import Compile, ElapsedTime
from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets.digits import Digits
from supreme.distributed import FSDP2, ZeRO, quiet_trainer
from supreme.errors import ConfigError
from supreme.methods import JIT, SSD, UNSIR, LFSSDDet, SSDDet
from supreme.scenarios.full_class import FullClass
from supreme.scenarios.whole_dataset import WholeDataset


class Network(nn.Module):
    """Convolution, BatchNorm and dropout: a state and a generator that a warm-up could move."""

    def __init__(self, dropout=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 10)
        )

    def forward(self, images):
        return self.layers(images)


def fitted(callbacks, dropout=0.1, **trainer):
    torch.manual_seed(3)
    module = ImageClassifier(Network(dropout), Recipe(lr=0.05), num_classes=10)
    quiet_trainer("cpu", callbacks=callbacks, max_epochs=1, **trainer).fit(module, datamodule=WholeDataset(Digits()))
    return module


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_same_weights_and_names(backend):
    compile_ = Compile(True, backend)
    plain, compiled = fitted([]), fitted([compile_])
    assert compile_.compiled
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=0, atol=1e-5)


def test_what_compiling_takes_is_not_measured(monkeypatch):
    def slow(graph, _inputs):
        time.sleep(2.0)
        return graph.forward

    torch._dynamo.reset()
    clock = ElapsedTime()
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: _compile_with(self, slow))
    started = time.monotonic()
    fitted([Compile(True), clock])
    assert time.monotonic() - started > clock.time_s + 2.0


def _compile_with(network, backend):
    network._compiled_call_impl = torch.compile(network._call_impl, backend=backend, dynamic=False)


def test_every_shape_and_mode_is_made_before_the_clock(monkeypatch):
    """Nothing is generated later, whatever phases come; the graphs are static."""
    torch._dynamo.reset()
    graphs, made = [], []

    def backend(graph, inputs):
        graphs.append(time.monotonic())
        return graph.forward

    class Clock(ElapsedTime):
        def resume(self):
            made.append(len(graphs))
            super().resume()

    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: _compile_with(self, backend))
    method = SSD(Network(), selection_weight=1.5, batch_size=500)
    before = {name: value.clone() for name, value in method.model.named_buffers()}
    scenario = FullClass(Digits(), forget=3)
    quiet_trainer("cpu", callbacks=[Compile(True), Clock()], max_epochs=1).fit(method, datamodule=scenario)
    assert len(graphs) == made[-1] >= 3  # sizes 500, 438 of D and 146 of D_f
    for name, value in method.model.named_buffers():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("method", [JIT, UNSIR, SSDDet, LFSSDDet])
def test_methods_that_call_the_network_in_other_shapes_are_left_alone(method):
    fit, module = Trainer(logger=False, accelerator="cpu"), method(Network())
    assert not Compile(True)._wanted(fit, module)
    assert Compile(True)._wanted(fit, SSD(Network()))


def test_the_network_is_as_it_was_after_the_fit(monkeypatch):
    """Whatever comes next, in other shapes, is not compiled; nor is it after a failure."""
    assert "_compiled_call_impl" not in vars(fitted([Compile(True, "eager")]).model)

    class Broken(Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("no")

    seen, undo = [], Compile.on_exception
    monkeypatch.setattr(Compile, "on_exception", lambda self, t, m, e: seen.append(m.model) or undo(self, t, m, e))
    with pytest.raises(RuntimeError, match="no"):
        fitted([Compile(True, "eager"), Broken()])
    assert "_compiled_call_impl" not in vars(seen[0])


def test_auto_goes_on_where_compiling_fails(monkeypatch):
    torch._dynamo.reset()

    def broken(graph, _inputs):
        raise OSError("no compiler")

    monkeypatch.setattr("supreme.callbacks.compile._pays", lambda trainer: True)
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: _compile_with(self, broken))
    compile_ = Compile("auto")
    with pytest.warns(UserWarning, match="(?s)goes on without torch.compile, which failed.*no compiler"):
        module = fitted([compile_])
    assert not compile_.compiled
    plain = fitted([])
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in module.state_dict().items())
    with pytest.raises(Exception, match="no compiler"):
        fitted([Compile(True)])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a compiler")
def test_with_inductor():
    plain, compiled = fitted([], dropout=0.0), fitted([Compile(True)], dropout=0.0)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=0, atol=1e-4)


def test_a_method_that_edits_weights_is_the_same():
    def dampened(callbacks):
        method = SSD(fitted([]).model, selection_weight=1.5)
        quiet_trainer("cpu", callbacks=callbacks, max_epochs=1).fit(method, datamodule=FullClass(Digits(), forget=3))
        return method.model.state_dict()

    plain, compiled = dampened([]), dampened([Compile(True, "aot_eager")])
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("when", [False, "auto"])
def test_not_on_a_cpu_unless_asked_for(when):
    compile_ = Compile(when)
    fitted([compile_])
    assert not compile_.compiled


class _Fit:
    """What the decision looks at."""

    def __init__(self, batches, world=1, precision="32-true", device="cuda"):
        self.strategy = SingleDeviceStrategy(torch.device(device))
        self.num_training_batches, self.max_epochs, self.world_size, self.precision = batches, 1, world, precision


@pytest.mark.parametrize(
    ("fit", "wanted"),
    [
        (_Fit(20_000), True),
        (_Fit(20_000, precision="bf16-mixed"), True),
        (_Fit(19_999), False),
        (_Fit(20_000, world=2), False),
        (_Fit(20_000, precision="transformer-engine"), False),
        (_Fit(20_000, device="cpu"), False),
    ],
)
def test_auto_takes_long_fits_on_one_cuda_device(fit, wanted, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    module = ImageClassifier(Network(), num_classes=10)
    assert Compile("auto")._wanted(fit, module) is wanted


@pytest.mark.parametrize("strategy", ["FSDP2", "ZeRO"])
def test_refused_where_the_strategy_converts_the_network(strategy):
    if strategy == "ZeRO":
        pytest.importorskip("deepspeed")
    fit = _Fit(20_000)
    fit.strategy = {"FSDP2": FSDP2, "ZeRO": ZeRO}[strategy]()
    module = ImageClassifier(Network(), num_classes=10)
    assert not Compile("auto")._wanted(fit, module)
    with pytest.raises(ConfigError, match=f"leaves the network whole for compile, got {strategy}"):
        Compile(True)._wanted(fit, module)


def test_another_value():
    with pytest.raises(ConfigError, match="true, false or auto"):
        Compile("always")
