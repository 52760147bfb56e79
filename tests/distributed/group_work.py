"""Fits and evaluations by name, done alone or as one of several ranks; results are plain tensors and numbers."""

import importlib.util
import logging
import os
import sys
import traceback
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from supreme.api import make_method
from supreme.batch import PARTS
from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets import Digits
from supreme.distributed import full_state_dict, hushed, quiet_trainer
from supreme.evaluation import Evaluation
from supreme.metrics.suite import default_metrics
from supreme.scenarios import GivenSets, WholeDataset

FILE = Path(__file__).parents[1] / "small_tasks.py"


def small_tasks():
    """The module of tiny networks and sets beside the tests."""
    name = "supreme_small_tasks"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FILE)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


UNSIR = {"noise_steps": 4, "noise_repeats": 2, "noise_batch_size": 5, "impair_batch_size": 4, "repair_batch_size": 11}
SCRUB = {"epochs": 3, "max_steps": 2, "smoothing": 0.5}

# Name -> method, arguments, normalisation. Adam divides by gradients that are 0 but for rounding where a bias comes
# before BatchNorm, so methods with Adam have GroupNorm here.
FITS = {
    "SSD": ("SSD", {"selection_weight": 1.2, "dampening": 0.7}, "batch"),
    "SSD given": ("SSD", {"selection_weight": 1.2, "dampening": 0.7, "full_importance": True}, "batch"),
    "LFSSD": ("LFSSD", {"selection_weight": 1.1}, "batch"),
    "SSDDet": ("SSDDet", {"selection_weight": 1.2, "dampening": 0.7}, "batch"),
    "SSDDet given": ("SSDDet", {"selection_weight": 1.2, "dampening": 0.7, "full_importance": True}, "tied"),
    "LFSSDDet": ("LFSSDDet", {"selection_weight": 1.1}, "blocks"),
    "ASSD": ("ASSD", {"dampening": 0.7}, "batch"),
    "ASSD retain": ("ASSD", {"dampening": 0.1, "reference": "retain"}, "blocks"),
    "FineTune": ("FineTune", {"epochs": 2}, "batch"),
    "containers": ("FineTune", {"epochs": 2}, "blocks"),
    "shared weights": ("SSD", {"selection_weight": 1.01}, "tied"),
    "Retrain": ("Retrain", {"epochs": 2}, "batch"),
    "NegGrad": ("NegGrad", {"epochs": 3, "lr": 0.01}, "batch"),
    "JIT": ("JIT", {"epochs": 2, "n_samples": 2, "lr": 0.5}, "batch"),
    "JIT published": ("JIT", {"n_samples": 2, "mode": "train", "reduction": "sum"}, "batch"),
    "JIT whole gradient": ("JIT", {"n_samples": 2, "detach": False, "lr": 1.0}, "blocks"),
    "SCRUB sgd": ("SCRUB", {**SCRUB, "optimizer": "sgd"}, "batch"),
    "SCRUB": ("SCRUB", {**SCRUB, "smoothing": 0.0}, "group"),
    "BadTeacher": ("BadTeacher", {"batch_size": 6}, "group"),
    "RandomLabels": ("RandomLabels", {"epochs": 2, "batch_size": 8}, "group"),
    "UNSIR": ("UNSIR", UNSIR, "group"),
    "UNSIR leak": ("UNSIR", {**UNSIR, "leak_noise_gradients": True}, "group"),
}


def strategy_of(name):
    """A strategy from its name; ``zero1`` and ``zero3`` are DeepSpeed's on a CPU."""
    if not name.startswith("zero"):
        return name
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # nothing is compiled
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    from lightning.fabric.utilities.seed import reset_seed
    from lightning.pytorch.strategies import DeepSpeedStrategy

    class OnCPU(DeepSpeedStrategy):
        """Lightning offers DeepSpeed for CUDA alone."""

        @property
        def root_device(self):
            return torch.device("cpu", 0)

        def setup_environment(self):
            super(DeepSpeedStrategy, self).setup_environment()

        def setup_distributed(self):
            reset_seed()
            self.set_world_ranks()
            self._init_deepspeed_distributed()

    stage = {"stage": int(name[-1]), "stage3_param_persistence_threshold": 0}
    config = {"zero_allow_untested_optimizer": True, "train_micro_batch_size_per_gpu": 1, "zero_optimization": stage}
    return OnCPU(config=config, process_group_backend="gloo")


def unlearned(name, devices=1, strategy="auto", dtype=torch.float64):
    """State of M_u."""
    with hushed():
        return full_state_dict(_fitted(name, devices, strategy, dtype).model)


def held(name, devices=1, strategy="auto", dtype=torch.float64):
    """Number of importances that this rank holds, and alpha."""
    method = _fitted(name, devices, strategy, dtype)
    return sum(value.numel() for value in method.importances["full"].values()), method.selection_weight


def _fitted(name, devices, strategy, dtype):
    """A fitted method. 45 samples in batches of 11: the last batch has one row, so that one of two ranks has none."""
    tasks = small_tasks()
    method, arguments, norm = FITS[name]
    network = tasks.tiny_network(norm).to(dtype)
    if "full_importance" in arguments:
        draw = torch.Generator().manual_seed(3)
        given = {k: torch.rand(p.shape, generator=draw, dtype=dtype) * 1e-4 for k, p in network.named_parameters()}
        arguments = {**arguments, "full_importance": given}
    scenario = tasks.tiny_scenario(dtype=dtype, batch_size=11)
    module = make_method(method, network, {**arguments, "seed": 3})
    with hushed():
        quiet_trainer("cpu", devices, strategy_of(strategy), max_epochs=1).fit(module, datamodule=scenario)
    return module


def trained(optimizer, devices=1, strategy="auto"):
    """State of a classifier after two epochs with validation, and what it logged."""
    tasks = small_tasks()
    data = WholeDataset(Digits(test_fraction=0.9), batch_size=36, evaluation_batch_size=100)  # 179 = 4 * 36 + 35
    recipe = Recipe(optimizer, lr=0.1 if optimizer == "sgd" else 1e-3, warmup_epochs=0.5)
    network = tasks.tiny_network("batch" if optimizer == "sgd" else "group", classes=10)
    module = ImageClassifier(network.double(), recipe, seed=3)
    with hushed():
        trainer = quiet_trainer("cpu", devices, strategy, max_epochs=2)
        trainer.fit(module, datamodule=data)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        return full_state_dict(module.model), logged


def evaluated(kept, devices=1, strategy="auto"):
    """Scores and outputs; with ``kept``, M_r's outputs are given and not computed. D'_f has one image."""
    tasks = small_tasks()
    images, labels = tasks.tiny_images(70, seed=2)
    sets = [TensorDataset(images[a:b], labels[a:b]) for a, b in ((0, 9), (9, 38), (38, 39), (39, 70))]
    scenario = GivenSets(sets[0], sets[1], 4, sets[2], sets[3], evaluation_batch_size=6)
    norm = "blocks" if kept else "batch"  # blocks have a parameter of their own, outside all layers
    networks = [tasks.tiny_network(norm, seed=k) for k in range(4)]
    with hushed():
        given = {}
        if kept:
            alone = Evaluation(networks[1], metrics=[], parts=PARTS)
            quiet_trainer("cpu", devices, strategy_of(strategy)).test(alone, datamodule=scenario, verbose=False)
            given = {"retrained": alone.outputs["unlearned"]}
            networks[1] = tasks.tiny_network(norm, seed=1)
        evaluation = Evaluation(*networks, outputs=given, metrics=default_metrics(3), parts=PARTS)
        quiet_trainer("cpu", devices, strategy_of(strategy)).test(evaluation, datamodule=scenario, verbose=False)
    return evaluation.scores, {name: tuple(outputs) for name, outputs in evaluation.outputs.items()}


WORK = {"unlearned": unlearned, "held": held, "trained": trained, "evaluated": evaluated}


def in_turn(jobs, devices):
    """Results of jobs (function, arguments, strategy[, dtype]) one after another; a failure is its traceback."""
    return [_result(function, (*arguments, devices, *settings)) for function, arguments, *settings in jobs]


def _result(function, arguments):
    try:
        return WORK[function](*arguments)
    except Exception:
        return traceback.format_exc()
