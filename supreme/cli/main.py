"""``supreme fit|validate|test|predict|unlearn|evaluate``: Lightning's command line, with a network, a method, M_o."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.trainer import Trainer
from torch import nn

import supreme.callbacks
from supreme.callbacks.description import plain
from supreme.callbacks.metric_costs import MetricCosts
from supreme.classifier import ImageClassifier
from supreme.cli import evaluate
from supreme.cli.original import RECIPE, Training, plain_augmentation, say
from supreme.cli.parser import SupremeParser, foreseen, import_components
from supreme.cli.recipe import with_recipe
from supreme.cli.trainer import ConfigFile, SupremeTrainer, is_trial, run_folder, trainer_arguments
from supreme.cli.unlearn import Unlearning, network_spec
from supreme.cli.words import mentioned, unknown_options, value_of, write_out
from supreme.distributed import full_state_dict, hushed, matmul_precision
from supreme.errors import CheckpointError, ConfigError, UnknownNameError
from supreme.methods.base import UnlearningMethod
from supreme.models.build import NetworkSpec, same_network
from supreme.models.stored import save_model
from supreme.scenarios.base import Scenario

RUNS = Path("runs")
CLASSIFIER = "supreme.classifier.ImageClassifier"
_STOCK = tuple(LightningCLI.subcommands())
_BY_NAME = ("best", "last", "hpc")


def main(command: str, words: Sequence[str]) -> int:
    """Run a command of the Trainer.

    Args:
        command: ``"fit"``, ``"validate"``, ``"test"``, ``"predict"``, ``"unlearn"`` or ``"evaluate"``.
        words: the words after it.

    Raises:
        SupremeError: if what was given cannot be used.
    """
    import_components(("methods", "scenarios", "datasets", "models"))
    for name in supreme.callbacks.__all__:
        getattr(supreme.callbacks, name)
    with hushed(), matmul_precision():
        try:
            _command_line(command)(command, words)
        except MisconfigurationException as error:
            raise ConfigError(" ".join(str(error).split())) from error
    return 0


class SupremeCLI(LightningCLI):
    """LightningCLI with two more commands and a ``--network`` that means the same in all of them.

    Args:
        command: the command.
        words: the words after it.
    """

    def __init__(self, command: str, words: Sequence[str]) -> None:
        words, self.recipe_said = with_recipe(command, words)
        self.mentioned = mentioned(words)
        self.parsers: dict[str, LightningArgumentParser] = {}
        self.unlearning: Unlearning | None = None
        self.metric_costs: MetricCosts | None = None
        super().__init__(
            save_config_callback=None if command == "evaluate" else ConfigFile,
            trainer_class=SupremeTrainer,
            seed_everything_default=0,
            parser_kwargs={"prog": "supreme", **{name: {"command": name} for name in self.subcommands()}},
            parser_class=SupremeParser,
            args=[command, *words],
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the arguments of their Trainer methods that are no options."""
        ours = {name: {"model", "datamodule"} for name in ("unlearn", "evaluate")}
        return {**LightningCLI.subcommands(), **ours}

    # --- options

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed for everything, and how exactly matrices are multiplied."""
        parser.add_argument("--seed_everything", type=int, default=0, help="The seed of all that is random.")
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"] | None,
            help="float32 matrix products: highest, or on tensor cores high or medium; torch's setting when left out",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Trainer and data of every command; a model only where one is trained or tested as it is."""
        command = getattr(parser, "command", "")
        self.parsers[command] = parser
        if command in _STOCK:
            super().add_core_arguments_to_parser(parser)
            return
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(Scenario, "data", subclass_mode=True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The network, and what is special about a command."""
        parser.add_subclass_arguments(
            nn.Module,
            "network",
            required=False,
            instantiate=False,
            skip={"num_classes"},
            fail_untyped=False,
            help="network, as name or dotted path of a class or function that takes num_classes",
        )
        command = getattr(parser, "command", "")
        add = {"unlearn": _unlearn_arguments, "evaluate": _evaluate_arguments}.get(command, _stock_arguments)
        add(parser, command)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, after a look at what no parser can explain as well."""
        command, *words = args
        known = _known(self.parsers[command])
        vars(parser).update(known=known)
        for name in unknown_options(words, known):
            hint = f"'supreme {command} --help' shows all of them."
            raise UnknownNameError(f"option of supreme {command}:", f"--{name}", [f"--{key}" for key in known], hint)
        unlearned = value_of(words, "unlearned")
        if command == "evaluate" and unlearned is not None:
            self.parsers[command].set_defaults({"data": evaluate.stored_request(unlearned)})
        self.config = parser.parse_args([command, *write_out(words)])
        if self.recipe_said:
            say(self.recipe_said)
        epochs = self.config[command]["trainer"]["max_epochs"]
        if command == "fit" and epochs is not None and epochs < 1:
            raise ConfigError(f"Expected trainer.max_epochs >= 1, got {epochs}; every epoch is one pass over the data.")
        if self.config[command].get("ckpt_path"):
            self._look_into_checkpoint(self.config[command])

    def _look_into_checkpoint(self, config: Any) -> None:
        """Take the network from the checkpoint; LightningCLI takes the other arguments from there."""
        path = Path(config["ckpt_path"])
        if str(path) in _BY_NAME or str(path).startswith("registry") or path.is_dir() or "://" in config["ckpt_path"]:
            return
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True).get("hyper_parameters", {}).get("network")
        except FileNotFoundError:
            raise CheckpointError(f"There is no checkpoint '{path}'.") from None
        except Exception as error:  # a damaged pickle can raise almost anything
            raise CheckpointError(f"The checkpoint '{path}' cannot be read; make it again.") from error
        if stored is None:
            return
        asked = network_spec(config["network"])
        if asked is not None and not same_network(asked, NetworkSpec(**stored)):
            raise CheckpointError(
                f"'{path}' holds {stored['class_path']} with {stored['init_args']}, but {asked.class_path} with "
                f"{asked.init_args} was asked for; leave --network out or make both agree."
            )
        self.config = self.parser.parse_object({str(self.config.subcommand): {"network": stored}}, self.config)

    # --- objects

    def instantiate_classes(self) -> None:
        """Make everything; a constructor's error is shown as it is."""
        try:
            super().instantiate_classes()
        except (TypeError, ValueError) as error:
            raise foreseen(error) or error from None
        config = self.config[self.subcommand]
        if self.subcommand == "unlearn":
            given, trainer = self.config_init["unlearn"], cast(SupremeTrainer, self.trainer)
            self.unlearning = Unlearning(config, given, self.datamodule, trainer, self.mentioned)
            self.model = self.unlearning.method
        elif self.subcommand == "evaluate":
            if self.datamodule is None:
                raise ConfigError(f"'{config['unlearned']}' does not say what was to be forgotten; say it with --data.")
            self.model = evaluate.make_evaluation(config, self.datamodule)
            if config["track_evaluation"]:
                self.metric_costs = MetricCosts()
                cast(Any, self.trainer).callbacks.append(self.metric_costs)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with FSDP2 for ``fsdp``, two loggers and the records of what ran."""
        command = str(self.subcommand)
        config, given = self.config[command], self.config_init[command]["trainer"]
        if config["matmul_precision"] is not None:
            torch.set_float32_matmul_precision(config["matmul_precision"])
        folder = RUNS / command
        if command == "unlearn":
            folder = Path(config["output"]) / config["method"]["class_path"].rpartition(".")[2]
        return super().instantiate_trainer(
            **trainer_arguments(given, folder, command, config.get("compile", False)), **kwargs
        )

    # --- afterwards

    def after_fit(self) -> None:
        """Save the trained network in the format of all stored models."""
        module, data = self.model, self.datamodule
        if not isinstance(module, ImageClassifier) or is_trial(self.trainer):
            return
        state, folder = full_state_dict(module.model), run_folder(self.trainer)
        if self.trainer.is_global_zero:
            about: dict[str, Any] = {"seed": module.seed, "num_classes": module.num_classes}
            if isinstance(data, Scenario):
                epochs = {"epochs": self.trainer.max_epochs, "batch_size": data.batch_size}
                augment = {"augmentation": plain_augmentation(data)}
                about |= {
                    "classes": list(data.dataset.classes),
                    "fingerprint": data.dataset.fingerprint,
                    "training": {**plain(dict(module.hparams["recipe"])), **epochs, **augment},
                }
            save_model(folder, module.model, about, state)
            say(f"The model is in {folder}")

    def after_unlearn(self) -> None:
        """Save M_u and show it beside M_o."""
        if self.unlearning is not None:
            self.unlearning.finish()

    def after_evaluate(self) -> None:
        """Show and write the scores."""
        if self.trainer.is_global_zero:
            costs = {} if self.metric_costs is None else self.metric_costs.costs
            evaluate.show(self.config["evaluate"], self.datamodule, self.model.scores, costs)


def _command_line(command: str) -> type[SupremeCLI]:
    """The command line with the options of one command only; those of all commands take a while to collect."""

    class OneCommand(SupremeCLI):
        """As :class:`SupremeCLI`, for one command."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            """The command."""
            return {command: SupremeCLI.subcommands()[command]}

    return OneCommand


def _stock_arguments(parser: LightningArgumentParser, command: str) -> None:
    parser.set_defaults({"model": {"class_path": CLASSIFIER}})
    parser.set_defaults({"data": {"class_path": "supreme.scenarios.whole_dataset.WholeDataset"}})
    parser.link_arguments("seed_everything", "model.init_args.seed")
    parser.link_arguments("network", "model.init_args.network", compute_fn=_specification)
    parser.set_defaults({"trainer.enable_model_summary": False, "trainer.max_epochs": 20 if command == "fit" else None})
    if command == "fit":
        _compile_argument(parser)


def _unlearn_arguments(parser: LightningArgumentParser, _command: str) -> None:
    parser.add_subclass_arguments(
        UnlearningMethod, "method", required=True, instantiate=False, skip={"original"}, fail_untyped=False
    )
    parser.link_arguments("seed_everything", "method.init_args.seed")
    parser.add_argument(
        "--original",
        type=str | None,
        help="M_o: folder of 'supreme fit', file or checkpoint; without it one is trained and kept",
    )
    parser.add_subclass_arguments(
        ImageClassifier, "model", required=False, instantiate=False, skip={"network", "num_classes", "seed"}
    )
    parser.set_defaults({"model": {"class_path": CLASSIFIER, "init_args": {"recipe": RECIPE}}})
    parser.add_class_arguments(Training, "training", instantiate=False)
    _compile_argument(parser)
    parser.add_argument("--output", type=str, default=str(RUNS / "unlearn"), help="Folder of M_u and of a trained M_o.")
    quick = {"max_epochs": 1, "devices": 1, "enable_checkpointing": False, "enable_model_summary": False}
    parser.set_defaults({f"trainer.{name}": value for name, value in quick.items()})
    parser.set_defaults({"data": {"class_path": "supreme.scenarios.full_class.FullClass"}})


def _compile_argument(parser: LightningArgumentParser) -> None:
    what = "torch.compile the network: true, false, or auto (long fits on one CUDA device)"
    parser.add_argument("--compile", type=bool | Literal["auto"], default="auto", help=what)


def _evaluate_arguments(parser: LightningArgumentParser, _command: str) -> None:
    parser.add_argument("--unlearned", type=str, required=True, help="M_u: folder, file or checkpoint.")
    parser.add_argument("--retrained", type=str | None, help="M_r; without it there are no comparisons and no gaps.")
    parser.add_argument("--original", type=str | None, help="M_o; its ZRF is added.")
    parser.add_argument("--metrics", nargs="+", type=str | dict, help="Names of metrics; all when left out.")
    parser.add_argument("--output", type=str | None, help="JSON file of the values; scores.json beside M_u.")
    parser.add_argument("--track_evaluation", action="store_true", help="Time and memory of every metric, too.")
    quiet = {"devices": 1, "logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    parser.set_defaults({f"trainer.{name}": value for name, value in quiet.items()})


def _specification(network: Any) -> dict[str, Any] | None:
    """The network as an argument of the classifier: a specification, not the network itself."""
    spec = network_spec(network)
    if spec is None:
        return None
    kind = f"{NetworkSpec.__module__}.{NetworkSpec.__qualname__}"
    return {"class_path": kind, "init_args": {"class_path": spec.class_path, "init_args": spec.init_args}}


def _known(parser: LightningArgumentParser) -> list[str]:
    """Keys of all options; below that of a class anything may follow."""
    keys = [str(key) for key in parser.get_defaults().keys()]  # noqa: SIM118 - a Namespace
    whole = {key.partition(".class_path")[0].partition(".init_args")[0] for key in keys}
    return sorted(whole | {"help", "config", "print_config", "c", "model", "method", "network", "data"})
