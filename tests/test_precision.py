"""Every precision on this machine: it works, or one sentence says why not; and what importances are made of."""

import importlib
import re
import sys
import types
from typing import get_args

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.plugins import DeepSpeedPrecision, MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from torch import nn
from torch.utils.data import TensorDataset

import supreme
from supreme import precision
from supreme.api import evaluate, unlearn
from supreme.classifier import ImageClassifier
from supreme.components import listing
from supreme.distributed import FSDP2, hushed, quiet_trainer
from supreme.errors import ConfigError, DataError, SupremeError
from supreme.evaluation import Evaluation
from supreme.experiment import load_plan
from supreme.experiment.scheduler import run_plan
from supreme.methods import ASSD, LFSSD, SSD, FineTune, LFSSDDet, Original, SSDDet
from supreme.precision import PRECISIONS, check_hardware, check_strategy, check_use, named, trainer_precision
from supreme.scenarios import GivenSets

WORK_HERE = ("64-true", "32-true", "bf16-mixed", "16-true", "bf16-true")
REFUSED_HERE = tuple(name for name in PRECISIONS if name not in WORK_HERE)
ROUNDING = {"64-true": 1e-6, "32-true": 1e-6, "bf16-mixed": 1e-6, "16-true": 2e-3, "bf16-true": 2e-2}


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    return text


# --- on this machine -------------------------------------------------------------------------------------------------


@pytest.mark.runs_on("cpu", "auto", 1)
@pytest.mark.parametrize("name", WORK_HERE)
@pytest.mark.parametrize("method", ["SSD", "FineTune"])
def test_unlearn_works(tiny, name, method):
    """As in float64, up to the rounding of the weights: SSD's importances are exact in every precision."""
    forget, retain = tiny.sets()
    arguments = {"selection_weight": 1.2} if method == "SSD" else {"epochs": 1, "lr": 0.01}
    settings = {"forget": forget, "retain": retain, "accelerator": "cpu", "shuffle": False, "batch_size": 8}
    wide = unlearn(tiny.network("group"), method, precision="64-true", **settings, **arguments).model.state_dict()
    found = unlearn(tiny.network("group"), method, precision=name, **settings, **arguments).model.state_dict()
    tolerance = max(ROUNDING[name], 1e-2 if method == "FineTune" and name != "64-true" else 0)
    start = tiny.network("group").state_dict()
    assert max((found[key] - value).abs().max() for key, value in start.items()) > tolerance
    if method == "SSD" and name in ("16-true", "bf16-true"):  # rounded weights may fall on either side of alpha
        near = [(found[key] - value).abs() <= tolerance for key, value in wide.items()]
        assert torch.cat([mask.flatten() for mask in near]).double().mean() > 0.97
    else:
        assert max((found[key] - value).abs().max() for key, value in wide.items()) <= tolerance


@pytest.mark.runs_on("cpu", "auto", 1)
@pytest.mark.parametrize("name", WORK_HERE)
def test_evaluate_works(tiny, name):
    forget, retain = tiny.sets()
    sets = {"forget_train": forget, "retain_train": retain, "forget_test": forget, "retain_test": retain}
    networks = {"unlearned": tiny.network(seed=1).eval(), "retrained": tiny.network(seed=2).eval()}
    networks |= {"incompetent": tiny.network(seed=3).eval()}
    scores, wide = (
        evaluate(precision=kind, accelerator="cpu", metrics=["Loss", "LayerwiseDistance", "ZRF"], **networks, **sets)
        for kind in (name, "64-true")
    )
    assert scores.keys() == wide.keys()
    assert scores == pytest.approx(wide, rel=0.03, abs=3e-3)


@pytest.mark.parametrize("name", REFUSED_HERE)
def test_what_a_cpu_cannot_do_is_refused(tiny, name):
    forget, retain = tiny.sets()
    with pytest.raises(ConfigError) as error:
        unlearn(tiny.network(), "Original", forget=forget, retain=retain, accelerator="cpu", precision=name)
    text = one_sentence(error)
    assert name in text
    assert "GPU" in text
    installed = {"bitsandbytes": "nf4 int8 fp4", "transformer_engine": "transformer-engine"}
    package = next((key for key, words in installed.items() if any(word in name for word in words.split())), None)
    if package is not None and importlib.util.find_spec(package) is None:
        assert "pip install" in text
    sets = {"forget_train": forget, "retain_train": retain, "retain_test": retain}
    with pytest.raises(ConfigError, match=re.escape(text)):
        evaluate(tiny.network(), accelerator="cpu", precision=name, **sets)


def test_a_torch_without_float16_on_cpus(monkeypatch):
    precision._halves_on_cpu.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            nn.Conv2d, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("not implemented for 'Half'"))
        )
        with pytest.raises(ConfigError, match="float16 on a CPU"):
            check_hardware("16-true", "cpu")
    precision._halves_on_cpu.cache_clear()
    before = torch.get_rng_state()
    check_hardware("16-true", "cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def equipped(monkeypatch):
    """Every accelerator is there, for all that is asked."""
    for name in ("cuda", "mps", "tpu"):
        monkeypatch.setattr(AcceleratorRegistry[name]["accelerator"], "is_available", staticmethod(lambda: True))


@pytest.mark.parametrize(
    ("name", "device", "words"),
    [
        ("64-true", "mps", ("float64",)),
        ("16-mixed", "tpu", ("TPU",)),
        ("nf4", "cuda", ("bitsandbytes",)),
        ("int8-training", "mps", ("CUDA", "bitsandbytes")),
        ("transformer-engine", "cuda", ("capability 8.9",)),
    ],
)
def test_what_other_devices_cannot_do(monkeypatch, equipped, name, device, words):
    monkeypatch.setattr(precision, "_computes_in_8_bits", lambda: False)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as error:
        check_hardware(name, device)
    assert all(word in one_sentence(error) for word in words)


@pytest.mark.parametrize("name", ["64-true", "16-mixed", "bf16-mixed", "transformer-engine", "nf4"])
def test_what_a_gpu_can_do(monkeypatch, equipped, name):
    monkeypatch.setattr(precision, "_computes_in_8_bits", lambda: True)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda _: types.SimpleNamespace())
    check_hardware(name, "cuda")


def test_auto_is_the_device_that_lightning_would_choose(monkeypatch):
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda _: None)
    for available, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        assert precision._device("auto") == expected
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert precision._device("gpu") == "mps"
    assert precision._device(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).accelerator) == "cpu"


# --- names and strategies --------------------------------------------------------------------------------------------


def test_names_are_those_of_lightning():
    from lightning.fabric.connector import _PRECISION_INPUT_STR
    from lightning.pytorch.plugins import BitsandbytesPrecision

    modes = get_args(BitsandbytesPrecision.__init__.__annotations__["mode"])
    assert set(PRECISIONS) == {*get_args(_PRECISION_INPUT_STR), *modes}
    assert [named(short) for short in (64, "32", 16, "bf16")] == ["64-true", "32-true", "16-mixed", "bf16-mixed"]
    with pytest.raises(SupremeError, match=r"'bf16-tru'.*'bf16-true'"):
        named("bf16-tru")


@pytest.mark.parametrize("name", PRECISIONS)
def test_strategies_know_what_lightning_says(name):
    """The table here against what Lightning itself refuses."""
    if precision.kind_of(name) == "float":
        refused = refuses(lambda: Trainer(strategy=FSDP2(), precision=name, accelerator="cpu", devices=1, logger=False))
        assert refuses(lambda: check_strategy(name, "fsdp")) == refused or name == "16-mixed"
        assert refuses(lambda: check_strategy(name, FSDP2())) == refuses(lambda: check_strategy(name, "fsdp"))
    else:
        assert refuses(lambda: check_strategy(name, "fsdp"))
    from lightning.pytorch.plugins.precision.xla import _PRECISION_INPUT

    assert refuses(lambda: check_strategy(name, "deepspeed_stage_2")) == refuses(lambda: DeepSpeedPrecision(name))
    assert refuses(lambda: check_strategy(name, "xla")) == (name not in get_args(_PRECISION_INPUT))
    check_strategy(name, "ddp")


def refuses(work):
    try:
        with hushed():
            work()
    except (ValueError, ModuleNotFoundError):
        return True
    return False


@pytest.mark.parametrize(("name", "strategy"), [("64-true", "fsdp"), ("nf4", "deepspeed_stage_3"), ("64-true", "xla")])
def test_strategies_that_refuse_say_what_they_take(name, strategy):
    if strategy.startswith("deepspeed"):
        pytest.importorskip("deepspeed")
    with pytest.raises(ConfigError, match=r"choose one of 32-true"):
        quiet_trainer("cpu", 1, strategy, name)
    with pytest.raises(ConfigError, match=name):
        check_strategy(name, strategy)


def test_halves_under_deepspeed_need_a_gpu():
    with pytest.raises(ConfigError, match="DeepSpeed, which knows no float16"):
        check_hardware("16-true", "cpu", "deepspeed_stage_1")


# --- what a method can -----------------------------------------------------------------------------------------------


def test_every_method_says_what_it_supports():
    for method in listing("methods", plugins=False):
        assert method.precisions, method.name
        assert set(method.precisions) <= set(precision.KINDS)
        assert "float" in method.precisions


@pytest.mark.parametrize(
    ("method", "name", "word"),
    [
        (SSD, "int8-training", "rounds to 8 bits"),
        (LFSSD, "transformer-engine", "rounds to 8 bits"),
        (SSDDet, "nf4", "integers"),
        (FineTune, "int8", "integers"),
        (FineTune, "fp4-dq", "choose one of 64-true"),
    ],
)
def test_methods_refuse_before_any_work(tiny, fit, method, name, word):
    """With a plug-in that says it is that precision, since the hardware is not here."""
    with pytest.raises(ConfigError) as error:
        fit(method(tiny.network()), tiny.scenario(), precision=None, plugins=[Named(name)])
    assert word in one_sentence(error)
    assert f"{method.__name__} does not work in {name}" in one_sentence(error)


@pytest.mark.parametrize("method", [Original, FineTune])
def test_methods_take_what_they_support(tiny, fit, method):
    name = "nf4" if method is Original else "int8-training"
    fit(method(tiny.network()), tiny.scenario(), precision=None, plugins=[Named(name)])


@pytest.mark.parametrize("method", [SSD, LFSSD, ASSD, SSDDet, LFSSDDet])
def test_importances_are_not_read_from_float16_gradients_of_deepspeed(tiny, method):
    """It holds weights in float16 and scales the loss by 2^16; refused before anything is read."""
    scenario = tiny.scenario()
    scenario.setup("fit")
    plain = vars(quiet_trainer("cpu", max_epochs=1)) | {"accumulate_grad_batches": 1, "gradient_clip_val": None}
    plain |= dict.fromkeys(("current_epoch", "fast_dev_run"), 0) | {"limit_train_batches": 1.0, "max_steps": -1}
    plain |= {"min_epochs": None, "min_steps": None, "max_epochs": 1}

    def check(chosen, name, kind):
        trainer = types.SimpleNamespace(**plain, precision=name, strategy=kind.__new__(kind))
        chosen(tiny.network()).check(scenario.request, trainer)

    with pytest.raises(ConfigError) as error:
        check(method, "16-mixed", DeepSpeedStrategy)
    assert f"{method.__name__} does not work in 16-mixed under DeepSpeed" in one_sentence(error)
    check(method, "bf16-mixed", DeepSpeedStrategy)
    check(method, "16-mixed", DDPStrategy)
    check(FineTune, "16-mixed", DeepSpeedStrategy)


@pytest.mark.parametrize("method", [SSD, LFSSD, ASSD, SSDDet, LFSSDDet])
def test_importances_that_overflow_are_refused(tiny, fit, method):
    """With images so bright that the square of a gradient is beyond float32."""
    forget, retain = (TensorDataset(part.tensors[0] * 1e25, part.tensors[1]) for part in tiny.sets())
    with pytest.raises(DataError) as error:
        fit(method(nn.Sequential(nn.Flatten(), nn.Linear(192, 4))), GivenSets(forget, retain, 4))
    assert "Expected finite importances" in one_sentence(error)


def test_networks_are_not_trained_without_gradients(tiny, fit):
    classifier = ImageClassifier(tiny.network())
    with pytest.raises(ConfigError, match="Training does not work in nf4"):
        fit(classifier, tiny.scenario(), precision=None, plugins=[Named("nf4")])
    check_use("Training", precision.TRAINS, "int8-training")


class Named(Precision):
    """A precision of some name that does nothing."""

    def __init__(self, name):
        super().__init__()
        self.precision = name


# --- how matrices are multiplied -------------------------------------------------------------------------------------

RECORDING = """
from pathlib import Path
import torch
from supreme.methods import FineTune


class Recording(FineTune):
    def __init__(self, original, file, seed=0):
        super().__init__(original, epochs=1, seed=seed)
        self.file = file

    def loss(self, batch):
        Path(self.file).write_text(torch.get_float32_matmul_precision())
        return super().loss(batch)
"""
PLAN = """
name: recorded
datasets: [Digits]
models: [{{class_path: ResNet18, init_args: {{width: 8}}}}]
training: {{epochs: 1, lr: 0.01, batch_size: 512}}
scenarios: [{{class_path: FullClass, targets: [3]}}]
methods: [{{class_path: recording.Recording, init_args: {{file: {folder}/seen}}}}]
metrics: [Accuracy]
seeds: {{training: [1]}}
trainer: {{accelerator: cpu, matmul_precision: medium}}
output: {folder}/out
"""


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """A folder with a method that writes down how matrices are multiplied while it learns."""
    (tmp_path / "recording.py").write_text(RECORDING)
    (tmp_path / "plan.yaml").write_text(PLAN.format(folder=tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("recording", None)


def test_matmul_precision_holds_in_a_fit(tiny, recording):
    sets, before = dict(zip(("forget", "retain"), tiny.sets(), strict=True)), torch.get_float32_matmul_precision()
    for given, expected in (("high", "high"), ("medium", "medium"), (None, before)):
        settings = {"accelerator": "cpu", "matmul_precision": given, "file": str(recording / "seen")}
        unlearn(tiny.network(), "recording.Recording", **sets, **settings)
        assert (recording / "seen").read_text() == expected
        assert torch.get_float32_matmul_precision() == before


def test_matmul_precision_holds_in_the_stages_of_a_plan(recording):
    summary = run_plan(load_plan(recording / "plan.yaml"), workers=1)
    assert summary.exit_code == 0, summary.failed
    assert (recording / "seen").read_text() == "medium" != torch.get_float32_matmul_precision()


# --- importances -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [16, 100])
@pytest.mark.parametrize("method", [SSD, LFSSD, ASSD, SSDDet])
def test_importances_under_a_loss_scale(tiny, fit, method, power):
    """16-mixed with a real scaler on a CPU; at 2^100 the square of a scaled gradient is beyond float32."""
    arguments = {"dampening": 0.5} | ({} if method is ASSD else {"selection_weight": 1.2})
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**power, growth_interval=10**6)
    halves = {"precision": None, "plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    scaled, plain = (
        fit(method(tiny.network(), **arguments), tiny.scenario(), **settings)
        for settings in (halves, {"precision": "32-true"})
    )
    assert scaler.get_scale() == 2.0**power
    for part in ("full", "forget"):
        for name, value in plain.importances[part].items():
            found = scaled.importances[part][name]
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, value, rtol=1e-6, atol=0)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(scaled.model.state_dict()[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["bf16-mixed", "16-true", "bf16-true", "64-true"])
@pytest.mark.parametrize("method", [SSD, LFSSD])
def test_importances_are_wide(tiny, fit, method, name):
    """With logits whose squares float16 cannot hold."""
    network = tiny.network("group")
    nn.init.constant_(network[-1].bias, 300.0)
    found = fit(method(network), tiny.scenario(), precision=name).importances["full"]
    wide = torch.float64 if name == "64-true" else torch.float32
    assert {value.dtype for value in found.values()} == {wide}
    assert all(value.isfinite().all() for value in found.values())
    assert max(value.max() for value in found.values()) > 0


def test_the_scale_of_deepspeeds_own_optimiser_counts():
    """It scales by itself, without a scaler in the plug-in; on a CPU it has no float16, so it is faked here."""
    from supreme.distributed import loss_scale

    for optimizer, expected in ((types.SimpleNamespace(loss_scale=1024), 1024.0), (object(), 1.0)):
        trainer = types.SimpleNamespace(precision_plugin=Precision(), optimizers=[optimizer])
        assert loss_scale(types.SimpleNamespace(trainer=trainer)) == expected


def test_scales_beside_the_weights_are_no_weights():
    """transformer-engine keeps them in the state of its layers; M_u is stored without them."""
    from supreme.distributed import full_state_dict

    class Scaled(nn.Linear):
        def get_extra_state(self):
            return b"scales"

        def set_extra_state(self, state): ...

    assert full_state_dict(nn.Sequential(Scaled(2, 2))).keys() == {"0.weight", "0.bias"}


# --- layers that are replaced ----------------------------------------------------------------------------------------


class Packing(Precision):
    """Stands for bitsandbytes: linear layers become others whose weights have another form."""

    precision = "nf4"

    def convert_module(self, module):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Packed(child))
            else:
                self.convert_module(child)
        return module


class Packed(nn.Module):
    """Sixteenths of a linear layer's weights, as integers in one row."""

    def __init__(self, layer):
        super().__init__()
        self.shape, self.bias = layer.weight.shape, layer.bias
        packed = (layer.weight.detach() * 16).round().flatten()[:, None]
        self.weight = nn.Parameter(packed.to(torch.int8), requires_grad=False)

    def forward(self, rows):
        return nn.functional.linear(rows, self.weight.view(self.shape).float() / 16, self.bias)


def test_models_are_compared_before_layers_are_packed(tiny):
    """Weights as they were; outputs of both models as they are afterwards."""

    def scores(**settings):
        networks = [tiny.network(seed=seed).eval() for seed in (1, 2)]
        chosen = [supreme.metrics.LayerwiseDistance(), supreme.metrics.Loss()]
        evaluation = Evaluation(*networks, metrics=chosen)
        with hushed():
            forget, retain = tiny.sets()
            data = tiny.scenario(forget_test=forget, retain_test=retain)
            quiet_trainer("cpu", **settings).test(evaluation, datamodule=data, verbose=False)
        return evaluation, evaluation.scores

    packed, found = scores(precision=None, plugins=[Packing()])
    _, plain = scores()
    assert isinstance(packed.model[-1], Packed)
    assert isinstance(packed.retrained.model[-1], Packed)
    assert found["layerwise_distance"] == plain["layerwise_distance"] > 0
    assert found["whole/loss"] != plain["whole/loss"]
    assert found["whole/loss"] == pytest.approx(plain["whole/loss"], rel=0.05)


@pytest.fixture
def bitsandbytes(monkeypatch):
    """A package of that name whose layers compute in floats, on any device."""
    plugin = importlib.import_module("lightning.fabric.plugins.precision.bitsandbytes")

    class Linear8bitLt(nn.Linear):
        def __init__(self, *sizes, has_fp16_weights=True, threshold=0.0, **arguments):
            super().__init__(*sizes, **arguments)

    class Linear4bit(nn.Linear):
        def __init__(self, *sizes, quant_type="", compress_statistics=False, **arguments):
            super().__init__(*sizes, **arguments)

    weights = dict.fromkeys(("Int8Params", "Params4bit"), nn.Parameter)
    layers = types.SimpleNamespace(Linear8bitLt=Linear8bitLt, Linear4bit=Linear4bit, **weights)
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.SimpleNamespace(nn=layers))
    monkeypatch.setattr(plugin, "_BITSANDBYTES_AVAILABLE", True)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda _: types.SimpleNamespace())
    plugin._import_bitsandbytes.cache_clear()
    yield layers
    plugin._import_bitsandbytes.cache_clear()


@pytest.mark.parametrize("mode", ["int8", "int8-training"])
def test_lightning_gets_its_plugin(bitsandbytes, equipped, tiny, mode):
    """By name; all layers compute in the type of the quantised ones, which Lightning's own plug-in leaves undone."""
    arguments = trainer_precision(mode, "cuda")
    assert arguments["precision"] is None
    (plugin,) = arguments["plugins"]
    assert plugin.precision == mode
    network = plugin.convert_module(tiny.network())
    assert isinstance(network[-1], bitsandbytes.Linear8bitLt)
    assert network[0].weight.dtype == torch.float16


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.runs_on("cuda", "{strategy}", 1)
@pytest.mark.parametrize("name", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    "strategy", ["auto", "ddp", "fsdp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3"]
)
def test_on_a_gpu(tiny, strategy, name):
    """As on the CPU in 32-true, up to the rounding of the precision."""
    if "deepspeed" in strategy:
        pytest.importorskip("deepspeed")
    if refuses(lambda: check_strategy(name, strategy)):
        pytest.skip(f"{strategy} has no {name}")
    if "deepspeed" in strategy and name == "16-mixed":
        pytest.skip("importances are refused there")
    forget, retain = tiny.sets()
    settings = {"forget": forget, "retain": retain, "shuffle": False, "batch_size": 8, "selection_weight": 1.2}
    expected = unlearn(tiny.network("group"), "SSD", accelerator="cpu", **settings).model.state_dict()
    chosen = {"accelerator": "cuda", "strategy": strategy, "precision": name}
    found = unlearn(tiny.network("group"), "SSD", **settings, **chosen).model.state_dict()
    gaps = torch.cat([(found[key].cpu() - value).abs().flatten() for key, value in expected.items()])
    assert (gaps <= (1e-4 if name == "32-true" else 2e-2)).double().mean() > 0.97
