"""The Trainer of the command line: Lightning's, with the commands ``unlearn`` and ``evaluate``, and what it writes."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import StrategyRegistry

from supreme.callbacks import Compile, ElapsedTime, ExportSplits, PeakMemory, RunRecord, Utilisation
from supreme.distributed import evaluation_strategy, resolve_strategy
from supreme.errors import OutputError, UnknownNameError
from supreme.evaluation import Evaluation
from supreme.methods.base import UnlearningMethod
from supreme.precision import TRAINS, check_use, trainer_precision
from supreme.scenarios.base import Scenario

CONFIG = "config.yaml"


class SupremeTrainer(Trainer):
    """A stock Lightning Trainer with two more commands, and all precisions of its plug-ins by name."""

    def __init__(self, precision: int | str | None = None, **arguments: Any) -> None:
        given: Any = precision
        super().__init__(precision=given, **arguments)

    def unlearn(self, model: UnlearningMethod, datamodule: Scenario) -> None:
        """Remove the influence of a forget set from a trained classifier."""
        self.fit(model, datamodule=datamodule)

    def evaluate(self, model: Evaluation, datamodule: Scenario) -> None:
        """Compare an unlearned model with the retrained one."""
        self.test(model, datamodule=datamodule, verbose=False)


class ConfigFile(SaveConfigCallback):
    """Saves the configuration beside the results of the command, replacing that of an earlier one."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Every rank asks for the folder; the first one writes."""
        folder = run_folder(trainer)
        if trainer.is_global_zero and not self.already_saved:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # newer versions have another name for skip_none
                    self.parser.save(
                        self.config, str(folder / CONFIG), skip_none=False, overwrite=True, multifile=False
                    )
            except OSError as error:
                raise OutputError(f"Cannot write '{folder / CONFIG}': {error.strerror or error}.") from error
            self.already_saved = True


def run_folder(trainer: Trainer) -> Path:
    """Where the results of a command go; every rank has to call.

    It is ``version_N`` of Lightning's own loggers, or the Trainer's ``default_root_dir`` with other loggers or none.
    """
    stock = trainer.loggers[:1] and isinstance(trainer.loggers[0], TensorBoardLogger | CSVLogger)
    return Path((trainer.log_dir if stock else None) or trainer.default_root_dir)


def is_trial(trainer: Trainer) -> bool:
    """Whether it runs a few batches only (``fast_dev_run``), and nothing is to be kept."""
    return bool(getattr(trainer, "fast_dev_run", False))


def trainer_arguments(given: Any, folder: Path, command: str, compiled: Any = False) -> dict[str, Any]:
    """What replaces the Trainer arguments of a command line.

    Args:
        given: the Trainer arguments as given.
        folder: where results go unless ``default_root_dir`` says otherwise.
        command: the command.
        compiled: when :class:`supreme.callbacks.Compile` is to compile the network.

    Raises:
        UnknownNameError: if the strategy, accelerator or precision does not exist.
        ConfigError: for strategies that methods cannot run on, and precisions that they or this machine have not.
        OutputError: if the results could not be written.
    """
    _check("strategy", given["strategy"], ["auto", "fsdp", *StrategyRegistry.available_strategies()])
    _check("accelerator", given["accelerator"], ["auto", "gpu", *AcceleratorRegistry.available_accelerators()])
    root = Path(given["default_root_dir"] or folder)
    strategy = evaluation_strategy(given["strategy"]) if command == "evaluate" else given["strategy"]
    arguments: dict[str, Any] = {"strategy": resolve_strategy(strategy), "default_root_dir": str(root)}
    if command == "fit":
        check_use("Training", TRAINS, given["precision"])
    arguments |= trainer_precision(given["precision"], given["accelerator"], strategy)
    if "plugins" in arguments and given["plugins"]:
        own = given["plugins"]
        arguments["plugins"] += own if isinstance(own, list) else [own]
    if command == "unlearn" and given["max_epochs"] != 0:
        arguments["max_epochs"] = 1  # all of a method is one epoch
    if not given["fast_dev_run"] and command != "evaluate":
        check_writable(root)
        logger = given["logger"]
        if logger is None or logger is True:
            arguments["logger"] = logger = default_loggers(root)
        arguments["callbacks"] = _callbacks(given["callbacks"], logger, root, command, compiled)
    return arguments


def default_loggers(root: Path) -> list[TensorBoardLogger | CSVLogger]:
    """TensorBoard, and CSV in the same folder ``<root>/version_N``."""
    board = TensorBoardLogger(root, name="")
    return [board, CSVLogger(root, name="", version=board.version)]


def check_writable(folder: Path) -> None:
    """Find out whether a folder can be made or written, without leaving a trace.

    Raises:
        OutputError: if it cannot.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise OutputError(f"Cannot write to '{folder}': '{there}' is a file; choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write to '{folder}': no permission in '{there}'; choose another folder.")


def _check(kind: str, name: Any, known: Sequence[str]) -> None:
    if isinstance(name, str) and name not in known:
        raise UnknownNameError(kind, name, known)


def _callbacks(given: Any, logger: Any, root: Path, command: str, compiled: Any) -> list[Callback]:
    """Those given, the one that compiles and those that record what a command did, unless they are among them."""
    chosen: list[Callback] = given if isinstance(given, list) else [given] if given else []
    first = logger[0] if isinstance(logger, list) and logger else logger
    folder = None if isinstance(first, TensorBoardLogger | CSVLogger) else root
    records: list[Callback] = []
    if command in ("fit", "unlearn"):
        records = [Compile(compiled), ElapsedTime(), PeakMemory(), Utilisation(), RunRecord(folder)]
    if command == "unlearn":
        records.append(ExportSplits(folder))
    return chosen + [callback for callback in records if not any(type(c) is type(callback) for c in chosen)]
