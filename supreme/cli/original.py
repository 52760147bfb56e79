"""M_o for the command line: given, or trained once and kept."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from supreme.classifier import Recipe
from supreme.datasets.base import ImageDataset
from supreme.errors import ConfigError
from supreme.experiment.chain import Cell, Chains
from supreme.experiment.choices import MethodChoice
from supreme.experiment.progress import duration
from supreme.experiment.run import execute
from supreme.experiment.seeds import Seeds
from supreme.experiment.stage import Choice, Stage
from supreme.experiment.store import STAGE_FILE, Store
from supreme.models.build import NetworkSpec
from supreme.models.stored import load_model
from supreme.scenarios.base import Scenario

# The recipe of the plan quickstart: good for the embedded digits.
RECIPE = {"optimizer": "adamw", "lr": 0.002, "weight_decay": 0.01, "schedule": "cosine", "warmup_epochs": 0.5}
EPOCHS, BATCH_SIZE = 5, 32
_POLL_S = 0.5


@dataclass(frozen=True)
class Training:
    """How M_o is trained when none is given, beside the recipe of the classifier.

    Args:
        epochs: passes over D, at least 1; None takes ``trainer.max_epochs`` where that is given, else 5.
        batch_size: rows of a global batch, at least 1; None takes ``data.batch_size`` where that is given, else 32.
        seed: training seed s_t; None takes ``seed_everything``.
    """

    epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None

    def settled(self, recipe: Recipe, epochs: int | None, batch_size: int | None, seed: int) -> dict[str, Any]:
        """Everything about the training as plain values, with the seed.

        Args:
            recipe: recipe of the classifier.
            epochs: what stands in for epochs that are not given; None is the default.
            batch_size: likewise for the batch size.
            seed: likewise for the seed.

        Raises:
            ConfigError: if a number is below 1.
        """
        epochs = self.epochs if self.epochs is not None else EPOCHS if epochs is None else epochs
        size = self.batch_size if self.batch_size is not None else BATCH_SIZE if batch_size is None else batch_size
        if min(epochs, size) < 1:
            raise ConfigError(f"Expected epochs and batch size of the training >= 1, got {epochs} and {size}.")
        values = asdict(recipe) | {"milestones": list(recipe.milestones), "epochs": epochs, "batch_size": size}
        return values | {"seed": seed if self.seed is None else self.seed}


class Original(NamedTuple):
    """A trained classifier and how it came about.

    Attributes:
        network: M_o, on the CPU, in evaluation mode; its weights may be left in the file (:mod:`supreme.outline`).
        path: where it is stored.
        training: recipe, epochs and batch size; None where that was not stored.
    """

    network: nn.Module
    path: Path
    training: Mapping[str, Any] | None

    @property
    def recipe(self) -> dict[str, Any]:
        """Arguments of Retrain that train M_r exactly as M_o."""
        if self.training is None:
            return {}
        names = {field.name for field in fields(Recipe)}
        recipe = Recipe(**{name: value for name, value in self.training.items() if name in names})
        return {"recipe": recipe, "epochs": int(self.training.get("epochs", 20))}


def given_original(path: str, network: NetworkSpec | None, classes: int, later: bool = False) -> Original:
    """M_o from a file.

    Args:
        path: folder of ``fit``, file or checkpoint.
        network: what it has to be; None takes what is stored.
        classes: number of classes of the data.
        later: leave the weights in the file until a Trainer asks for them, as in :func:`load_model`.

    Raises:
        CheckpointError: if it is missing, damaged, another network, or made for another number of classes.
    """
    module, about = load_model(path, network, classes, later)
    training = about.get("training") or stage_config(path).get("training")
    if training is None and about.get("recipe") and about.get("epochs"):  # a checkpoint
        training = {**about["recipe"], "epochs": about["epochs"]}
    return Original(module, Path(path), training)


def stage_config(path: str | Path) -> dict[str, Any]:
    """What a plan noted about a stored model of its own, empty for any other."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    try:
        config: dict[str, Any] = json.loads((folder / STAGE_FILE).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError):
        return {}
    return config


def kept_original(
    folder: Path,
    dataset: ImageDataset,
    choice: Choice,
    network: NetworkSpec,
    training: Mapping[str, Any],
    trainer: Any,
    later: bool = False,
) -> Original:
    """M_o, trained unless the same one is kept in a folder already.

    Several processes may ask for the same one: one trains, the others wait.

    Args:
        folder: where trained models are kept.
        dataset: what to train on.
        choice: the same as plain values.
        network: which network.
        training: how to train, as :meth:`Training.settled` says.
        trainer: Trainer arguments of the command; M_o is always trained on one device.
        later: as in :func:`given_original`.

    Raises:
        OutputError: if the folder cannot be written; nothing has been trained then.
    """
    stage, store = _stage(dataset, choice, network, training, trainer), Store(folder)
    if store.has(stage):
        say(f"Original model: reusing {store.path(stage)}")
    else:
        store.open()
        _train(stage, store)
    return Original(load_model(store.path(stage), later=later)[0], store.path(stage), stage.config["training"])


def plain_augmentation(data: Scenario) -> dict[str, Any]:
    """The training augmentation as plain values."""
    values = asdict(data.augmentation)
    return values | {"crop_size": None if values["crop_size"] is None else list(values["crop_size"])}


@rank_zero_only
def say(text: str) -> None:
    """Tell the user what happens, once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _stage(
    dataset: ImageDataset, choice: Choice, network: NetworkSpec, training: Mapping[str, Any], trainer: Any
) -> Stage:
    recipe = {name: value for name, value in training.items() if name != "seed"}
    seed = int(training["seed"])
    accelerator = trainer["accelerator"] if isinstance(trainer["accelerator"], str) else "auto"
    settings = {"accelerator": accelerator, "devices": 1, "strategy": "auto", "precision": "32-true"}
    settings |= {name: str(trainer[name]) for name in ("precision", "matmul_precision") if trainer.get(name)}
    if trainer.get("compile", "auto") != "auto":
        settings["compile"] = trainer["compile"]
    chains = Chains(
        shared={
            "training": recipe,
            "trainer": settings,
            "threads": 1,
        },
        evaluation={},
        metrics={},
        metric_paths=(),
        retrain=MethodChoice(""),
        fingerprints={choice.label: dataset.fingerprint},
    )
    net = Choice(network.class_path, network.init_args, network.class_path.rpartition(".")[2])
    return chains.train(Cell(choice, net, Choice(""), "", Seeds(seed, seed, seed)))


def _train(stage: Stage, store: Store) -> None:
    """Train once, however many processes ask."""
    while not store.has(stage):
        lease = store.leases.acquire(stage.key, stage.label)
        if lease is None:
            time.sleep(_POLL_S)
            continue
        try:
            if not store.has(stage):
                epochs, started = stage.config["training"]["epochs"], time.monotonic()
                say(f"Original model: none given, so {stage.label}, {epochs} epoch{'s' * (epochs != 1)} ...")
                with _one_thread():
                    store.begin(stage)
                    execute(stage, store)
                say(f"Original model: kept in {store.path(stage)} ({duration(time.monotonic() - started)})")
        finally:
            lease.release()


@contextmanager
def _one_thread() -> Iterator[None]:
    """M_o is the same whatever number of threads a process has been given."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
