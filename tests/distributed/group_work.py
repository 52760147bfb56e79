"""Fits and evaluations by name, done alone or as one of several ranks; results are plain tensors and numbers."""

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from supreme.api import make_method
from supreme.batch import PARTS
from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets import Digits
from supreme.distributed import ZeRO, full_state_dict, hushed, quiet_trainer
from supreme.evaluation import Evaluation
from supreme.methods import SCRUB
from supreme.metrics.suite import default_metrics
from supreme.models.build import NetworkSpec
from supreme.models.stored import load_model
from supreme.outline import is_outline
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
SCRUBS = {"epochs": 3, "max_steps": 2, "smoothing": 0.5}

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
    "SCRUB sgd": ("SCRUB", {**SCRUBS, "optimizer": "sgd"}, "batch"),
    "SCRUB": ("SCRUB", {**SCRUBS, "smoothing": 0.0}, "group"),
    "BadTeacher": ("BadTeacher", {"batch_size": 6}, "group"),
    "RandomLabels": ("RandomLabels", {"epochs": 2, "batch_size": 8}, "group"),
    "UNSIR": ("UNSIR", UNSIR, "group"),
    "UNSIR leak": ("UNSIR", {**UNSIR, "leak_noise_gradients": True}, "group"),
}

# What makes each phase of a training method one step, beside a batch that holds everything.
SIZES = {"impair_batch_size": 100, "repair_batch_size": 100}
ONCE = {
    **{name: {"epochs": 1} for name in ("FineTune", "NegGrad", "JIT")},
    "Retrain": {"epochs": 1, "recipe": Recipe(warmup_epochs=0.0)},  # else the rate of the first step is 0
    **{name: {"epochs": 1, "batch_size": 100} for name in ("BadTeacher", "RandomLabels")},
    "SCRUB": {"epochs": 1, "max_steps": 0},
    "UNSIR": {"noise_steps": 1, "noise_repeats": 1, **SIZES},
}

REWINDS = {"epochs": 5, "max_steps": 3, "milestones": (4,), "smoothing": 0.3, "weight_decay": 1e-3}
# Reference -> optimiser, its rate and the normalisation (see FITS).
REFERENCES = {"error": ("sgd", 0.03, "batch"), "set": ("adam", 0.005, "group")}


def strategy_of(name):
    """A strategy from its name; ``zero1`` to ``zero3`` are DeepSpeed's, which splits the smallest weights too here."""
    if not name.startswith("zero"):
        return name
    stage = {"stage": int(name[-1]), "stage3_param_persistence_threshold": 0}
    config = {"zero_allow_untested_optimizer": True, "train_micro_batch_size_per_gpu": 1, "zero_optimization": stage}
    return ZeRO(config=config)


def unlearned(name, devices=1, strategy="auto", dtype=torch.float64):
    """State of M_u."""
    with hushed():
        return full_state_dict(_fitted(name, devices, strategy, dtype).model)


def held(name, devices=1, strategy="auto", dtype=torch.float64):
    """Number of importances that this rank holds, and alpha."""
    method = _fitted(name, devices, strategy, dtype)
    return sum(value.numel() for value in method.importances["full"].values()), method.selection_weight


def network_of(norm, dtype):
    """A tiny network; ``unbiased`` has BatchNorm with no bias before it, for methods with Adam (see FITS)."""
    network = small_tasks().tiny_network("batch" if norm == "unbiased" else norm).to(dtype)
    for layer in network.modules():
        if norm == "unbiased" and isinstance(layer, nn.Conv2d):
            layer.bias = None
    return network


def _fitted(name, devices, strategy, dtype):
    """A fitted method. 45 samples in batches of 11: the last batch has one row, so that one of two ranks has none.

    The name may end with another normalisation and with ``once``: ``"SCRUB on unbiased, once"``.
    """
    tasks = small_tasks()
    name, _, once = name.partition(", ")
    name, _, other = name.partition(" on ")
    method, arguments, norm = FITS[name]
    arguments = {**arguments, **ONCE.get(method, {})} if once else arguments
    if method == "SCRUB" and other == "group":
        arguments = {**arguments, "smoothing": 0.0}  # student and teacher begin alike: the pull's direction is rounding
    network = network_of(other or norm, dtype)
    if "full_importance" in arguments:
        draw = torch.Generator().manual_seed(3)
        given = {k: torch.rand(p.shape, generator=draw, dtype=dtype) * 1e-4 for k, p in network.named_parameters()}
        arguments = {**arguments, "full_importance": given}
    scenario = tasks.tiny_scenario(dtype=dtype, batch_size=100 if once else 11)
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


def learnt(norm, dtype):
    """A network that has learnt D, so that its error on D_f changes while it unlearns; and samples it has not seen."""
    tasks = small_tasks()
    images, labels = tasks.tiny_images(105)
    network = tasks.tiny_network(norm).to(dtype)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[:45].to(dtype)), labels[:45]).backward()
        optimizer.step()
    return network, TensorDataset(images[45:].to(dtype), labels[45:])


def rewound(kind, devices=1, strategy="auto", dtype=torch.float64):
    """State of M_u, the chosen epoch, the errors and the reference."""
    optimizer, lr, norm = REFERENCES[kind]
    network, unseen = learnt(norm, dtype)
    reference = {"set": {"validation": unseen}, "error": {"reference_error": 0.5}}[kind]
    data = small_tasks().tiny_scenario(dtype=dtype, batch_size=10, shuffle=False)  # D_f has 11: one rank has none
    method = SCRUB(network, optimizer=optimizer, lr=lr, seed=3, **REWINDS, **reference)
    with hushed():
        quiet_trainer("cpu", devices, strategy_of(strategy), max_epochs=1).fit(method, datamodule=data)
        state = full_state_dict(method.model)
    return state, (method.rewind.epoch, method.rewind.errors, method.rewind.reference)


def stored(folder, name, later, devices=1, strategy="auto"):
    """State of M_u from a stored M_o, and whether the method was made before its weights were read."""
    arguments = {"SSD": {"selection_weight": 1.2}, "SSDDet": {"selection_weight": 1.2}, "Retrain": {"epochs": 2}}
    module = make_method(name, load_model(folder, later=later)[0], {"seed": 3, **arguments.get(name, {})})
    before = is_outline(module.model)
    scenario = small_tasks().tiny_scenario(dtype=torch.float64, batch_size=11)
    with hushed():
        quiet_trainer("cpu", devices, strategy_of(strategy), max_epochs=1).fit(module, datamodule=scenario)
        return full_state_dict(module.model), before


def drawn(devices=1, strategy="auto"):
    """State of a classifier that was built from its specification, and the devices that this rank built it on."""
    plan_networks = importlib.import_module("plan_networks")
    plan_networks.BUILT.clear()
    data = WholeDataset(Digits(test_fraction=0.9), batch_size=71)
    module = ImageClassifier(NetworkSpec("plan_networks.Small"), Recipe(lr=0.01), seed=3)
    with hushed():
        quiet_trainer("cpu", devices, strategy, max_epochs=1).fit(module, datamodule=data)
        return full_state_dict(module.model), list(plan_networks.BUILT)


def commanded(folder, *words):
    """Exit code of ``supreme unlearn`` as one of several ranks, and how it evaluated: each network, each Trainer."""
    command, begin = importlib.import_module("supreme.cli.unlearn"), importlib.import_module("supreme.__main__").main
    make, networks, strategies = command.quiet_trainer, [], []

    class Watched(Evaluation):
        def __init__(self, network, **arguments):
            networks.append(is_outline(network))
            super().__init__(network, **arguments)

    def watched(*arguments, **named):
        trainer = make(*arguments, **named)
        strategies.append(type(trainer.strategy).__name__)
        return trainer

    command.Evaluation, command.quiet_trainer = Watched, watched
    os.chdir(folder)
    return begin(["unlearn", *words]), networks, strategies


JOBS = (unlearned, rewound, held, trained, evaluated, stored, drawn)
WORK = {job.__name__: job for job in JOBS}


def in_turn(jobs, devices):
    """Results of jobs (function, arguments, strategy[, dtype]) one after another; a failure is its traceback."""
    return [_result(function, (*arguments, devices, *settings)) for function, arguments, *settings in jobs]


def _result(function, arguments):
    try:
        return WORK[function](*arguments)
    except Exception:
        return traceback.format_exc()
