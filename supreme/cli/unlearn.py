"""``supreme unlearn``: from M_o and a forget request to M_u, saved and compared with M_o."""

import copy
import inspect
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn

from supreme.batch import PARTS
from supreme.callbacks.description import plain
from supreme.classifier import Recipe
from supreme.cli.console import open_console
from supreme.cli.original import Original, Training, given_original, kept_original, plain_augmentation, say
from supreme.cli.trainer import SupremeTrainer, is_trial, run_folder
from supreme.components import Kind, load, resolve
from supreme.datasets.base import ImageDataset
from supreme.distributed import evaluation_strategy, full_state_dict, quiet_trainer, splits_weights, world_size
from supreme.errors import ConfigError, DataError
from supreme.evaluation import Evaluation
from supreme.experiment.presets import preset
from supreme.experiment.progress import duration
from supreme.experiment.stage import Choice
from supreme.experiment.store import read_json, write_json
from supreme.methods.base import UnlearningMethod
from supreme.methods.retrain import Retrain
from supreme.models.build import NetworkSpec, build
from supreme.models.stored import ABOUT, load_model, save_model
from supreme.outline import is_outline
from supreme.scenarios.base import Scenario
from supreme.transforms.augment import Augment

NETWORK = NetworkSpec("supreme.models.resnet.ResNet18", {"width": 32})
KEPT = "original"
_COLUMNS = {
    "forget_test": "forget\ntest",
    "retain_test": "retain\ntest",
    "forget_train": "forget\ntrain",
    "retain_train": "retain\ntrain",
}


class Unlearning:
    """One forget request, from the command line to the table.

    Args:
        config: the configuration of the command as plain values.
        given: the same with nested classes made.
        scenario: what is to be forgotten.
        trainer: the Trainer.
        mentioned: keys that the user mentioned.

    Raises:
        SupremeError: if the request, M_o or the method cannot be used; nothing has been written then, but for M_o.
    """

    def __init__(
        self, config: Any, given: Any, scenario: Scenario, trainer: SupremeTrainer, mentioned: set[str]
    ) -> None:
        self.config, self.scenario, self.trainer, self.mentioned = config, scenario, trainer, mentioned
        self.chosen = _method_class(config["method"]["class_path"])
        self.arguments = dict(vars(given["method"].get("init_args") or Namespace()))
        self.recipe: Recipe | None = given["model"]["init_args"]["recipe"]
        self._check_request()
        self.original = self._original()
        if issubclass(self.chosen, Retrain):
            self._train_as_original()
        self._settle_by_preset()
        self.method = self.chosen(self.original.network, **self.arguments)

    def finish(self) -> None:
        """Save M_u, then print how M_o and M_u do.

        Raises:
            OutputError: if M_u cannot be written.
            RuntimeError: if the evaluation fails; M_u is stored then.
        """
        state = full_state_dict(self.method.model)
        if is_trial(self.trainer):
            return
        folder = run_folder(self.trainer)
        if self.trainer.is_global_zero:
            save_model(folder, self.original.network, self._about(), state)
        self.trainer.strategy.barrier()
        try:
            networks = self.original.network, self._unlearned(state, folder)
            shares = [self._accuracies(network) for network in networks]
        except Exception as error:
            raise RuntimeError(
                f"M_u is stored in {folder}, but was not compared with M_o, since the evaluation failed with "
                f"{type(error).__name__}: {error}; 'supreme evaluate --unlearned {folder}' does it again."
            ) from error
        if self.trainer.is_global_zero:
            write_json(folder / ABOUT, {**read_json(folder / ABOUT), "accuracy": shares[1]})
            costs = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
            console = open_console()
            console.print(_table(shares, costs, self.chosen.__name__))
            console.print(f"M_u is in {folder}", soft_wrap=True, highlight=False)

    def _unlearned(self, state: Mapping[str, Tensor], folder: Path) -> nn.Module:
        """M_u as a network; each rank reads its share of the stored weights where M_o is held so."""
        if is_outline(self.original.network):
            kind = next(self.original.network.parameters()).dtype
            return load_model(folder, later=True)[0].to(kind)
        network = copy.deepcopy(self.original.network)
        network.load_state_dict(dict(state))
        return network

    def _check_request(self) -> None:
        """Refuse what cannot work before anything is trained."""
        request, dataset = self.scenario.request, self.scenario.dataset
        if not len(request.forget_index):
            name = type(self.scenario).__name__
            raise DataError(f"{name} leaves nothing to forget; choose another --data, 'supreme list scenarios'.")
        probe = self.chosen(build(self._network or NETWORK, len(dataset.classes), 0), **self.arguments)
        probe.check(request, self.trainer)

    def _train_as_original(self) -> None:
        """Give Retrain the recipe of M_o, but for what the user says otherwise."""
        given = self.original.recipe
        if not given and "method.epochs" not in self.mentioned and not is_trial(self.trainer):
            raise ConfigError(
                f"'{self.original.path}' does not say how M_o was trained, so no model can be retrained in the same "
                "way; say it with --method.epochs, --method.recipe and --data.batch_size."
            )
        self.arguments |= {name: value for name, value in given.items() if f"method.{name}" not in self.mentioned}
        batch_size = (self.original.training or {}).get("batch_size")
        if batch_size is not None and "data.batch_size" not in self.mentioned:
            self.scenario.batch_size = int(batch_size)
        augment = (self.original.training or {}).get("augmentation")
        if augment is not None and not self._own_augmentation:
            self.scenario.augmentation = Augment(**augment)

    def _settle_by_preset(self) -> None:
        """Take the papers' settings for this dataset, network and scenario, but for what the user says otherwise."""
        spec = getattr(self.original.network, "spec", None)
        model = spec.class_path.rpartition(".")[2] if spec else type(self.original.network).__name__
        place = type(self.scenario.dataset).__name__, model, type(self.scenario).__name__
        found = preset(self.chosen.__name__, *place)
        taken = {k: v for k, v in found.init_args.items() if f"method.{k}" not in self.mentioned} if found else {}
        if found and taken:
            self.arguments |= taken
            say(f"Preset: {found.label}")

    @property
    def _own_augmentation(self) -> bool:
        """Whether the user gave an augmentation."""
        return vars(self.config["data"].get("init_args") or Namespace()).get("augmentation") is not None

    @property
    def _network(self) -> NetworkSpec | None:
        """The network that the user asked for."""
        return network_spec(self.config["network"])

    @property
    def _later(self) -> bool:
        """Whether M_o gets its weights when it has been split over the ranks, so that none of them holds it whole."""
        return splits_weights(self.trainer.strategy) and not self.chosen.reads_weights_early

    def _original(self) -> Original:
        dataset, path = self.scenario.dataset, self.config["original"]
        if path is not None:
            return given_original(path, self._network, len(dataset.classes), self._later)
        network = self._network or NETWORK
        if is_trial(self.trainer):
            return Original(build(network, len(dataset.classes), 0).eval(), Path(), None)
        training = Training(**vars(self.config["training"])).settled(
            self.recipe or Recipe(),
            self.config["trainer"]["max_epochs"] if "trainer.max_epochs" in self.mentioned else None,
            self.scenario.batch_size if "data.batch_size" in self.mentioned else None,
            self.config["seed_everything"],
        )
        if self._own_augmentation:
            training["augmentation"] = plain_augmentation(self.scenario)
        choice = dataset_choice(self.config["data"], dataset)
        folder = Path(self.config["output"]) / KEPT
        ours = {name: self.config[name] for name in ("matmul_precision", "compile")}
        trainer = {**self.config["trainer"], **ours}
        return kept_original(folder, dataset, choice, network, training, trainer, self._later)

    def _accuracies(self, network: nn.Module) -> dict[str, float]:
        """Share of correct predictions on every part, by a network that nothing else is done with afterwards."""
        processes = world_size()
        split = splits_weights(evaluation_strategy(self.trainer.strategy))
        trainer = quiet_trainer(
            self.config["trainer"]["accelerator"],
            processes // self.trainer.num_nodes if processes > 1 else 1,
            ("fsdp" if split else "ddp") if processes > 1 else "auto",
            num_nodes=self.trainer.num_nodes if processes > 1 else 1,
        )
        evaluation = Evaluation(network, metrics=[], random=self.scenario.random, parts=PARTS)
        trainer.test(evaluation, datamodule=self.scenario, verbose=False)
        rows = evaluation.outputs["unlearned"]
        right = (rows.logits.argmax(dim=1) == rows.target).double()
        codes = {name: rows.part == code for code, name in enumerate(PARTS)}
        return {name: float(right[mask].mean()) for name, mask in codes.items() if bool(torch.any(mask))}

    def _about(self) -> dict[str, Any]:
        """What stands beside the weights of M_u."""
        dataset, scenario = self.scenario.dataset, self.config["data"]
        method = full_path("methods", self.config["method"]["class_path"])
        init_args = {k: v for k, v in vars(scenario.get("init_args") or {}).items() if k != "dataset"}
        return {
            "classes": list(dataset.classes),
            "fingerprint": dataset.fingerprint,
            "method": {"class_path": method, "init_args": plain(self.arguments)},
            "seed": self.config["seed_everything"],
            "scenario": {"class_path": full_path("scenarios", scenario["class_path"]), "init_args": plain(init_args)},
            "dataset": dataset_choice(scenario, dataset).config,
            "original": str(self.original.path),
            "training": plain(self.original.training),
        }


def network_spec(config: Any) -> NetworkSpec | None:
    """The network of a configuration as plain values, with its full dotted path; None without one.

    Arguments that are the defaults are left out, so that an argument which a network gets later changes nothing.
    """
    if config is None:
        return None
    path = full_path("models", config["class_path"])
    defaults = {name: p.default for name, p in inspect.signature(load(path)).parameters.items()}
    given = as_plain(config.get("init_args"))
    return NetworkSpec(path, {name: v for name, v in given.items() if name not in defaults or defaults[name] != v})


def dataset_choice(data: Any, dataset: ImageDataset) -> Choice:
    """The dataset of a scenario as plain values.

    Args:
        data: the configuration of the scenario.
        dataset: the dataset itself, for one that the configuration does not name.
    """
    arguments = data.get("init_args")
    config = arguments.get("dataset") if arguments is not None else None
    if config is None:
        kind = type(dataset)
        return Choice(f"{kind.__module__}.{kind.__qualname__}", plain(dataset.config()), dataset.name)
    path = full_path("datasets", config["class_path"])
    return Choice(path, as_plain(config.get("init_args")), path.rpartition(".")[2])


def full_path(kind: Kind, name: str) -> str:
    """Dotted path of a component in the module that defines it; the parser shortens paths where it can.

    Args:
        kind: its kind.
        name: class name or dotted path.

    Example:
        >>> full_path("scenarios", "supreme.FullClass")
        'supreme.scenarios.full_class.FullClass'
    """
    component = load(resolve(kind, name))
    return f"{component.__module__}.{component.__qualname__}"


def as_plain(config: Any) -> dict[str, Any]:
    """A part of a parsed configuration as a dictionary of plain values."""
    values = config.as_dict() if hasattr(config, "as_dict") else dict(config or {})
    found: dict[str, Any] = plain(values)
    return found


def _method_class(class_path: str) -> type[UnlearningMethod]:
    chosen = load(class_path)
    if not (isinstance(chosen, type) and issubclass(chosen, UnlearningMethod)):
        raise ConfigError(f"Expected a subclass of supreme.UnlearningMethod, got '{class_path}'.")
    return chosen


def _table(shares: Sequence[Mapping[str, float]], costs: Mapping[str, float], method: str) -> Table:
    table = Table(title="accuracy in %", box=box.SIMPLE_HEAD, show_edge=False, title_justify="left")
    table.add_column("\nmodel")
    columns = {part: header for part, header in _COLUMNS.items() if part in shares[0]}
    for header in (*columns.values(), "\ntime", "peak\nmemory"):
        table.add_column(header, justify="right")
    cells = [[f"{100 * share[part]:.2f}" for part in columns] for share in shares]
    memory = costs.get("peak_memory_bytes")
    time = duration(costs["time_s"]) if "time_s" in costs else "-"
    table.add_row("M_o", *cells[0], "", "")
    table.add_row(f"M_u ({method})", *cells[1], time, "-" if memory is None else f"{memory / 2**20:.1f} MiB")
    return table
