"""One stage, executed: train, unlearn, keep outputs, evaluate. The scheduler calls :func:`execute`."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torch import nn

from supreme.batch import PARTS
from supreme.callbacks import Compile, ElapsedTime, LossCurve, MetricCosts, PeakMemory, Utilisation, git_commit
from supreme.classifier import ImageClassifier, Recipe
from supreme.components import load
from supreme.datasets.base import ImageDataset
from supreme.distributed import (
    evaluation_strategy,
    full_state_dict,
    hushed,
    matmul_precision,
    quiet_trainer,
    rank,
    splits_weights,
)
from supreme.errors import DataError
from supreme.evaluation import Evaluation, Outputs
from supreme.experiment.recipes import BATCH_SIZE, EPOCHS, SELECTION
from supreme.experiment.reuse import as_if_computed, keep, shared_importances, shared_stage
from supreme.experiment.stage import Stage
from supreme.experiment.stage_metrics import draws, metrics_of
from supreme.experiment.store import RESULT_FILE, STAGE_FILE, Store, Writer
from supreme.experiment.validation import BestCheckpoint, HeldOut
from supreme.methods.base import UnlearningMethod
from supreme.methods.retrain import Retrain
from supreme.methods.ssd import SSD
from supreme.metrics.base import EvaluationMetric
from supreme.models.build import NetworkSpec, build, reinitialise
from supreme.models.stored import load_model, save_model
from supreme.outline import DrawnWeights, outline
from supreme.scenarios.base import Scenario
from supreme.scenarios.whole_dataset import WholeDataset
from supreme.seeding import derive, isolated
from supreme.transforms.augment import Augment

SomeScenario = TypeVar("SomeScenario", bound=Scenario)
OUTPUTS, TEACHER_OUTPUTS, TRACKED = "outputs.safetensors", "incompetent.safetensors", "evaluation_costs"
CURVE = "loss_curve"
_OURS = ("matmul_precision", "compile", "resident")  # settings that are not the Trainer's


def execute(stage: Stage, store: Store) -> None:
    """Do the work of a stage and commit its result.

    Args:
        stage: what to do; its inputs are in the store.
        store: where the result goes.
    """
    known = {"train": _train, "importances": _importances, "unlearn": _unlearn}
    work = {**known, "outputs": _outputs, "evaluate": _evaluate}[stage.kind]
    precision = matmul_precision(stage.config["trainer"].get("matmul_precision"))
    with hushed(), precision, isolated(int(stage.config.get("seed", 0))):
        work(stage, store)


def _train(stage: Stage, store: Store) -> None:
    """M_o."""
    recipe, epochs, batch_size = _training(stage)
    data = _settled(WholeDataset(_dataset(stage), batch_size), stage)
    spec = NetworkSpec(**stage.config["network"])
    classifier = ImageClassifier(spec, recipe, stage.config["seed"])
    best = _best(stage, data, 1)
    watchers = [LossCurve(), *_given(best)]
    resources = _fit(stage, store, classifier, data, watchers, max_epochs=epochs, limit_val_batches=0)
    _save(stage, store, classifier.model, {"seed": stage.config["seed"]}, resources, data.dataset, best)


def _importances(stage: Stage, store: Store) -> None:
    """Importances of D in M_o, computed by the method as it would for itself."""
    chosen: type[SSD] = load(stage.config["method"]["class_path"])
    original = load_model(store.path(stage.inputs["original"]), later=_later(stage, chosen))[0]
    method = chosen(original, **_arguments(stage, "method"))
    method.measure_full_alone()
    data = _settled(WholeDataset(_dataset(stage), stage.config["batch_size"]), stage)
    resources = _fit(stage, store, method, data, (), max_epochs=1)
    found = method.whole_importances()

    def write(folder: Path) -> Mapping[str, Any]:
        keep(found, folder)
        return dict(resources)

    _commit(stage, store, write)


def _unlearn(stage: Stage, store: Store) -> None:
    """M_r or M_u."""
    scenario = _scenario(stage)
    chosen: type[UnlearningMethod] = load(stage.config["method"]["class_path"])
    arguments, seed = _arguments(stage, "method"), stage.config["seed"]
    later, shared = _later(stage, chosen), shared_stage(stage, scenario)
    best, watchers = None, list[Callback]()
    if issubclass(chosen, Retrain):
        recipe, epochs, _ = _training(stage)
        arguments = {"recipe": recipe, "epochs": epochs, **arguments}
        best = _best(stage, scenario, arguments["epochs"])
        watchers = [LossCurve(arguments["epochs"]), *_given(best)]
        make = partial(build, NetworkSpec(**stage.config["network"]), len(scenario.dataset.classes), seed)
        original = (outline(make, DrawnWeights(make)) if later else None) or make()
    else:
        original = load_model(store.path(stage.inputs["original"]), later=later)[0]
    if shared is not None:
        arguments["full_importance"] = shared_importances(shared, store)
    method: UnlearningMethod = chosen(original, **arguments, seed=seed)
    resources = _fit(stage, store, method, scenario, watchers, max_epochs=1)
    if shared is not None:
        resources = as_if_computed(resources, store.description(shared))
    about = {"method": stage.config["method"], "seed": seed, "scenario": stage.config["scenario"]}
    _save(stage, store, method.model, about, resources, scenario.dataset, best)
    method.release()


def _outputs(stage: Stage, store: Store) -> None:
    """Logits of M_o on D and D', for all targets; those of M_r on all parts, and of the incompetent teacher on D'_f.

    The rows of M_o and of M_r themselves take their logits from here too, for every unlearning seed of the target.
    """
    whole = "scenario" not in stage.config
    scenario = _settled(WholeDataset(_dataset(stage), **_sizes(stage)), stage) if whole else _scenario(stage)
    network = load_model(store.path(stage.inputs["model"]), later=True)[0]
    networks, parts = {OUTPUTS: network}, {OUTPUTS: set(PARTS)}
    if not whole:
        seed = derive(scenario.request.fingerprint, "incompetent teacher")
        forget = "forget_train" if scenario.random else "forget_test"
        networks[TEACHER_OUTPUTS], parts[TEACHER_OUTPUTS] = reinitialise(network, seed), {forget}
    kept = {}
    for name, model in networks.items():
        evaluation = Evaluation(model, metrics=[], random=scenario.random, parts=parts[name])
        _tester(stage).test(evaluation, datamodule=scenario, verbose=False)
        kept[name] = evaluation.outputs["unlearned"]

    def write(folder: Path) -> None:
        for name, outputs in kept.items():
            outputs.save(folder / name)

    _commit(stage, store, write)


def _evaluate(stage: Stage, store: Store) -> None:
    """All metrics of one run, in the form of a record.

    With a further evaluation seed, the result of the first one is taken over and only what draws is computed: no model
    is forwarded again.
    """
    if "first" in stage.inputs:
        _evaluate_again(stage, store)
        return
    scenario = _scenario(stage)
    evaluation, tracked = _tested(stage, store, scenario, metrics_of(stage), {})
    result = {
        "metrics": {**evaluation.scores, **_costs(stage, store)},
        "scenario_sizes": {name: len(index) for name, index in scenario.indices().items()},
        "fingerprint": scenario.request.fingerprint,
        "notes": list(scenario.dataset.notes),
        "git_commit": git_commit(Path.cwd()),
        "contended": any(_description(store, stage, role).get("contended") for role in ("unlearned", "retrained")),
        "loss_curves": _curves(stage, store),
        **tracked,
    }

    def write(folder: Path) -> Mapping[str, Any]:
        (folder / RESULT_FILE).write_text(json.dumps(result))
        evaluation.outputs["unlearned"].save(folder / OUTPUTS)
        scenario.export(folder)
        return {"hardware": _hardware(stage)}

    _commit(stage, store, write)


def _evaluate_again(stage: Stage, store: Store) -> None:
    """The result of the first evaluation seed, with the metrics that draw computed anew."""
    first, metrics = stage.inputs["first"], [metric for metric in metrics_of(stage) if draws(metric)]
    result = {name: value for name, value in store.result(first).items() if name != TRACKED}
    if metrics:
        outputs = {"unlearned": Outputs.load(store.path(first) / OUTPUTS)}
        evaluation, tracked = _tested(stage, store, _scenario(stage), metrics, outputs)
        result |= {"metrics": {**result["metrics"], **evaluation.scores}, **tracked}

    def write(folder: Path) -> Mapping[str, Any]:
        for source in store.path(first).iterdir():
            if source.name not in (RESULT_FILE, STAGE_FILE):
                _share(source, folder / source.name)
        (folder / RESULT_FILE).write_text(json.dumps({**result, "git_commit": git_commit(Path.cwd())}))
        return {"hardware": _hardware(stage)}

    _commit(stage, store, write)


def _tested(
    stage: Stage,
    store: Store,
    scenario: Scenario,
    metrics: Sequence[EvaluationMetric],
    known: Mapping[str, Outputs],
) -> tuple[Evaluation, dict[str, Any]]:
    """A finished evaluation, and what each metric cost where that is asked for; ``known`` outputs are not computed.

    Where a scenario serves images in a way of its own, M_o is forwarded on what it serves.
    """
    inputs = {role: store.path(source) for role, source in stage.inputs.items()}
    outputs = {
        **known,
        "retrained": Outputs.load(inputs["retrained_outputs"] / OUTPUTS),
        "incompetent": Outputs.load(inputs["retrained_outputs"] / TEACHER_OUTPUTS),
    }
    original, usual = stage.inputs["original_outputs"].inputs["model"], scenario.serves_as_usual()
    if usual:
        outputs["original"] = Outputs.load(inputs["original_outputs"] / OUTPUTS).split(scenario.indices())
    for name in ("retrained", "original"):
        if stage.inputs["unlearned"] == stage.inputs[f"{name}_outputs"].inputs["model"] and name in outputs:
            outputs["unlearned"] = outputs[name]
    evaluation = Evaluation(
        load_model(inputs["unlearned"], later=True)[0],
        load_model(inputs["retrained"], later=True)[0],
        None if usual else load_model(store.path(original), later=True)[0],
        outputs=outputs,
        metrics=metrics,
        random=scenario.random,
        seed=stage.config["seed"],
    )
    costs = [MetricCosts()] if store.track_evaluation else []
    _tester(stage, callbacks=costs).test(evaluation, datamodule=scenario, verbose=False)
    return evaluation, {TRACKED: costs[0].costs} if costs else {}


def _costs(stage: Stage, store: Store) -> dict[str, float]:
    """Time, speed-up, memory and utilisation of the method; M_o has none of its own."""
    if stage.inputs["unlearned"].kind == "train":
        return {}
    method, retrain = (_description(store, stage, role)["resources"] for role in ("unlearned", "retrained"))
    return {**method, "speedup": retrain["time_s"] / method["time_s"]}


def _curves(stage: Stage, store: Store) -> dict[str, list[float]]:
    """Training loss per pass of M_o and M_r."""
    models = {
        "original": stage.inputs["original_outputs"].inputs["model"],
        "retrained": stage.inputs["retrained"],
    }
    return {name: store.description(model)[CURVE] for name, model in models.items()}


def _fit(
    stage: Stage,
    store: Store,
    module: LightningModule,
    data: LightningDataModule,
    watchers: Sequence[Callback],
    **trainer: Any,
) -> Any:
    clock, memory, load_ = ElapsedTime(), PeakMemory(), Utilisation()
    compiled = Compile(stage.config["trainer"].get("compile", "auto"))
    _trainer(stage, callbacks=[compiled, clock, memory, load_, *watchers], **trainer).fit(module, datamodule=data)
    if compiled.compiled:
        torch.compiler.reset()  # torch keeps few graphs for all networks of a process, and then compiles no more
    resources = {
        "time_s": clock.time_s,
        "peak_memory_bytes": float(memory.peak_memory_bytes),
        "utilisation": load_.utilisation,
    }
    curve = next((watcher.values for watcher in watchers if isinstance(watcher, LossCurve)), None)
    ran = {**_hardware(stage), **({"compiled": True} if compiled.compiled else {})}
    about = {"contended": store.contended, "hardware": ran}
    return {"resources": resources, **about, **({} if curve is None else {CURVE: curve})}


def _save(
    stage: Stage,
    store: Store,
    network: nn.Module,
    about: dict[str, Any],
    extra: Any,
    dataset: ImageDataset,
    best: BestCheckpoint | None,
) -> None:
    state = full_state_dict(network) if best is None else best.state
    described = {"classes": list(dataset.classes), "fingerprint": dataset.fingerprint, **about}

    def write(folder: Path) -> Mapping[str, Any]:
        save_model(folder, network, described, state)
        return {**extra, **({} if best is None else {"checkpoint": best.about})}

    _commit(stage, store, write)


def _commit(stage: Stage, store: Store, writer: Writer) -> None:
    """Write the result, on one of several ranks."""
    if rank() == 0:
        store.commit(stage, writer)


def _trainer(stage: Stage, **arguments: Any) -> Any:
    config = {name: value for name, value in stage.config["trainer"].items() if name not in _OURS}
    return quiet_trainer(**{**config, **arguments})


def _tester(stage: Stage, **arguments: Any) -> Any:
    return _trainer(stage, strategy=evaluation_strategy(stage.config["trainer"]["strategy"]), **arguments)


def _hardware(stage: Stage) -> dict[str, Any]:
    trainer, names = stage.config["trainer"], ("accelerator", "devices", "strategy", "precision")
    found = {name: trainer[name] for name in names} | {"threads": stage.config["threads"]}
    if stage.kind in ("outputs", "evaluate"):
        found["evaluated_as"] = evaluation_strategy(trainer["strategy"])
    return found


def _training(stage: Stage) -> tuple[Recipe, int, int]:
    beside = ("augmentation", *SELECTION)
    training = {name: value for name, value in stage.config["training"].items() if name not in beside}
    epochs, batch_size = training.pop("epochs", EPOCHS), training.pop("batch_size", BATCH_SIZE)
    return Recipe(**training), epochs, batch_size


def _scenario(stage: Stage) -> Scenario:
    chosen = load(stage.config["scenario"]["class_path"])
    scenario: Scenario = chosen(_dataset(stage), **{**_sizes(stage), **_arguments(stage, "scenario")})
    return _settled(scenario, stage)


def _sizes(stage: Stage) -> dict[str, Any]:
    """The batch sizes that the plan says, as a scenario takes them."""
    evaluation = stage.config.get("evaluation", {})
    given = {"evaluation_batch_size": evaluation["batch_size"]} if "batch_size" in evaluation else {}
    return {"batch_size": _training(stage)[2], **given}


def _settled(data: SomeScenario, stage: Stage) -> SomeScenario:
    """The same with what the plan says for all data: where images lie, and the augmentation of M_o and M_r."""
    data.resident = data.resident or stage.config["trainer"].get("resident", False)
    augmentation = stage.config["training"].get("augmentation")
    if augmentation is not None:
        data.augmentation = Augment(**augmentation)
    return data


def _given(best: BestCheckpoint | None) -> list[Callback]:
    return [] if best is None else [best]


def _best(stage: Stage, data: Scenario, passes: int) -> BestCheckpoint | None:
    """What keeps the best checkpoint, where the plan wants that one and not the last."""
    return BestCheckpoint(data, passes) if stage.config["training"].get("checkpoint") == "best" else None


def _dataset(stage: Stage) -> ImageDataset:
    """The dataset, read once per process; without the images that the plan holds out for validation."""
    config, share = stage.config["dataset"], stage.config["training"].get("validation_fraction")
    arguments = json.dumps(config["init_args"], sort_keys=True)
    return _open(config["class_path"], arguments, config.get("fingerprint"), share)


@lru_cache(maxsize=4)
def _open(class_path: str, arguments: str, fingerprint: str | None, held_out: float | None) -> ImageDataset:
    dataset: ImageDataset = load(class_path)(**json.loads(arguments))
    dataset.prepare()
    if fingerprint not in (None, dataset.fingerprint):
        raise DataError(f"The images of {dataset!r} have changed since the plan was started; start it again.")
    if held_out is None:
        return dataset
    rest = HeldOut(dataset, held_out)
    rest.prepare()
    return rest


def _later(stage: Stage, chosen: type[UnlearningMethod]) -> bool:
    """Whether a network gets its weights when it has been split over the ranks."""
    return splits_weights(stage.config["trainer"]["strategy"]) and not chosen.reads_weights_early


def _arguments(stage: Stage, name: str) -> dict[str, Any]:
    return dict(stage.config[name]["init_args"])


def _share(source: Path, target: Path) -> None:
    """Have a file in a second place without a second copy, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _description(store: Store, stage: Stage, role: str) -> dict[str, Any]:
    return store.description(stage.inputs[role])
