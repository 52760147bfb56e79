"""One stage, executed: train, unlearn, keep outputs, evaluate. The scheduler calls :func:`execute`."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from supreme.batch import PARTS
from supreme.callbacks import ElapsedTime, PeakMemory, Utilisation, git_commit
from supreme.classifier import ImageClassifier, Recipe
from supreme.components import load
from supreme.datasets.base import ImageDataset
from supreme.distributed import full_state_dict, hushed, quiet_trainer
from supreme.errors import DataError
from supreme.evaluation import Evaluation, Outputs
from supreme.experiment.stage import Stage
from supreme.experiment.store import RESULT_FILE, Store
from supreme.methods.base import UnlearningMethod
from supreme.methods.retrain import Retrain
from supreme.metrics.base import EvaluationMetric
from supreme.metrics.suite import default_metrics
from supreme.models.build import NetworkSpec, build, reinitialise
from supreme.models.stored import load_model, save_model
from supreme.scenarios.base import Scenario
from supreme.scenarios.whole_dataset import WholeDataset
from supreme.seeding import derive, isolated
from supreme.transforms.augment import Augment

SomeScenario = TypeVar("SomeScenario", bound=Scenario)
OUTPUTS, TEACHER_OUTPUTS = "outputs.safetensors", "incompetent.safetensors"


def execute(stage: Stage, store: Store) -> None:
    """Do the work of a stage and commit its result.

    Args:
        stage: what to do; its inputs are in the store.
        store: where the result goes.
    """
    work = {"train": _train, "unlearn": _unlearn, "outputs": _outputs, "evaluate": _evaluate}[stage.kind]
    with hushed(), isolated(int(stage.config.get("seed", 0))):
        work(stage, store)


def _train(stage: Stage, store: Store) -> None:
    """M_o."""
    recipe, epochs, batch_size = _training(stage)
    data = _augmented(WholeDataset(_dataset(stage), batch_size), stage)
    spec, classes = NetworkSpec(**stage.config["network"]), len(data.dataset.classes)
    classifier = ImageClassifier(spec, recipe, stage.config["seed"], classes)
    resources = _fit(stage, store, classifier, data, max_epochs=epochs, limit_val_batches=0)
    _save(stage, store, classifier.model, {"seed": stage.config["seed"]}, resources, data.dataset)


def _unlearn(stage: Stage, store: Store) -> None:
    """M_r or M_u."""
    scenario = _scenario(stage)
    chosen, arguments, seed = _method_class(stage), _arguments(stage, "method"), stage.config["seed"]
    if issubclass(chosen, Retrain):
        recipe, epochs, _ = _training(stage)
        arguments = {"recipe": recipe, "epochs": epochs, **arguments}
        original = build(NetworkSpec(**stage.config["network"]), len(scenario.dataset.classes), seed)
    else:
        original = load_model(store.path(stage.inputs["original"]))[0]
    method: UnlearningMethod = chosen(original, **arguments, seed=seed)
    resources = _fit(stage, store, method, scenario, max_epochs=1)
    about = {"method": stage.config["method"], "seed": seed, "scenario": stage.config["scenario"]}
    _save(stage, store, method.model, about, resources, scenario.dataset)


def _outputs(stage: Stage, store: Store) -> None:
    """Logits of M_o or M_r on all parts; beside those of M_o the incompetent teacher's on the forget part."""
    scenario, source = _scenario(stage), stage.inputs["model"]
    forget = "forget_train" if scenario.random else "forget_test"
    network = load_model(store.path(source))[0]
    networks, parts = {OUTPUTS: network}, {OUTPUTS: set(PARTS)}
    if source.kind == "train":
        seed = derive(scenario.request.fingerprint, "incompetent teacher")
        networks[TEACHER_OUTPUTS], parts[TEACHER_OUTPUTS] = reinitialise(network, seed), {forget}
        parts[OUTPUTS] = {forget}
    kept = {}
    for name, model in networks.items():
        evaluation = Evaluation(model, metrics=[], random=scenario.random, parts=parts[name])
        _trainer(stage).test(evaluation, datamodule=scenario, verbose=False)
        kept[name] = evaluation.outputs["unlearned"]

    def write(folder: Path) -> None:
        for name, outputs in kept.items():
            outputs.save(folder / name)

    store.commit(stage, write)


def _evaluate(stage: Stage, store: Store) -> None:
    """All metrics of one run, in the form of a record."""
    scenario, inputs = _scenario(stage), {role: store.path(source) for role, source in stage.inputs.items()}
    outputs = {
        "retrained": Outputs.load(inputs["retrained_outputs"] / OUTPUTS),
        "original": Outputs.load(inputs["original_outputs"] / OUTPUTS),
        "incompetent": Outputs.load(inputs["original_outputs"] / TEACHER_OUTPUTS),
    }
    if stage.inputs["unlearned"].key == stage.inputs["retrained"].key:
        outputs["unlearned"] = outputs["retrained"]
    evaluation = Evaluation(
        load_model(inputs["unlearned"])[0],
        load_model(inputs["retrained"])[0],
        outputs=outputs,
        metrics=_metrics(stage),
        random=scenario.random,
        seed=stage.config["seed"],
    )
    _trainer(stage).test(evaluation, datamodule=scenario, verbose=False)
    result = {
        "metrics": {**evaluation.scores, **_costs(stage, store)},
        "scenario_sizes": {name: len(index) for name, index in scenario.indices().items()},
        "fingerprint": scenario.request.fingerprint,
        "notes": list(scenario.dataset.notes),
        "git_commit": git_commit(Path.cwd()),
        "contended": any(_description(store, stage, role).get("contended") for role in ("unlearned", "retrained")),
    }

    def write(folder: Path) -> Mapping[str, Any]:
        (folder / RESULT_FILE).write_text(json.dumps(result))
        evaluation.outputs["unlearned"].save(folder / OUTPUTS)
        scenario.export(folder)
        return {"hardware": _hardware(stage)}

    store.commit(stage, write)


def _costs(stage: Stage, store: Store) -> dict[str, float]:
    """Time, speed-up, memory and utilisation of the method; M_o has none of its own."""
    if stage.inputs["unlearned"].kind == "train":
        return {}
    method, retrain = (_description(store, stage, role)["resources"] for role in ("unlearned", "retrained"))
    return {**method, "speedup": retrain["time_s"] / method["time_s"]}


def _fit(stage: Stage, store: Store, module: LightningModule, data: LightningDataModule, **trainer: Any) -> Any:
    clock, memory, load_ = ElapsedTime(), PeakMemory(), Utilisation()
    _trainer(stage, callbacks=[clock, memory, load_], **trainer).fit(module, datamodule=data)
    resources = {
        "time_s": clock.time_s,
        "peak_memory_bytes": float(memory.peak_memory_bytes),
        "utilisation": load_.utilisation,
    }
    return {"resources": resources, "contended": store.contended, "hardware": _hardware(stage)}


def _save(
    stage: Stage, store: Store, network: nn.Module, about: dict[str, Any], extra: Any, dataset: ImageDataset
) -> None:
    state = full_state_dict(network)
    described = {"classes": list(dataset.classes), "fingerprint": dataset.fingerprint, **about}

    def write(folder: Path) -> Mapping[str, Any]:
        save_model(folder, network, described, state)
        return dict(extra)

    store.commit(stage, write)


def _trainer(stage: Stage, **arguments: Any) -> Any:
    return quiet_trainer(**{**stage.config["trainer"], **arguments})


def _hardware(stage: Stage) -> dict[str, Any]:
    trainer = stage.config["trainer"]
    return {name: trainer[name] for name in ("accelerator", "devices", "strategy", "precision")} | {
        "threads": stage.config["threads"]
    }


def _training(stage: Stage) -> tuple[Recipe, int, int]:
    training = {name: value for name, value in stage.config["training"].items() if name != "augmentation"}
    epochs, batch_size = training.pop("epochs", 20), training.pop("batch_size", 64)
    return Recipe(**training), epochs, batch_size


def _scenario(stage: Stage) -> Scenario:
    chosen = load(stage.config["scenario"]["class_path"])
    arguments: dict[str, Any] = {"batch_size": _training(stage)[2]}
    if "batch_size" in stage.config.get("evaluation", {}):
        arguments["evaluation_batch_size"] = stage.config["evaluation"]["batch_size"]
    scenario: Scenario = chosen(_dataset(stage), **{**arguments, **_arguments(stage, "scenario")})
    return _augmented(scenario, stage)


def _augmented(data: SomeScenario, stage: Stage) -> SomeScenario:
    """The same with the training augmentation of the plan, where it names one: M_r is trained as M_o is."""
    augmentation = stage.config["training"].get("augmentation")
    if augmentation is not None:
        data.augmentation = Augment(**augmentation)
    return data


def _dataset(stage: Stage) -> ImageDataset:
    """The dataset, read once per process."""
    config = stage.config["dataset"]
    return _open(config["class_path"], json.dumps(config["init_args"], sort_keys=True), config.get("fingerprint"))


@lru_cache(maxsize=4)
def _open(class_path: str, arguments: str, fingerprint: str | None) -> ImageDataset:
    dataset: ImageDataset = load(class_path)(**json.loads(arguments))
    dataset.prepare()
    if fingerprint not in (None, dataset.fingerprint):
        raise DataError(f"The images of {dataset!r} have changed since the plan was started; start it again.")
    return dataset


def _method_class(stage: Stage) -> type[UnlearningMethod]:
    chosen: type[UnlearningMethod] = load(stage.config["method"]["class_path"])
    return chosen


def _arguments(stage: Stage, name: str) -> dict[str, Any]:
    return dict(stage.config[name]["init_args"])


def _metrics(stage: Stage) -> list[EvaluationMetric]:
    """The metrics of the plan: all or the named ones, and the added ones."""
    config, seed = stage.config["metrics"], int(stage.config["seed"])
    named = default_metrics(seed) if config["named"] is None else [_metric(item, seed) for item in config["named"]]
    return named + [_metric(item, seed) for item in config["added"]]


def _metric(config: Mapping[str, Any], seed: int) -> EvaluationMetric:
    from supreme.api import make_metric

    return make_metric(config["class_path"], seed, dict(config["init_args"]))


def _description(store: Store, stage: Stage, role: str) -> dict[str, Any]:
    return store.description(stage.inputs[role])
