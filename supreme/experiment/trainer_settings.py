"""What a plan says about the Trainer: devices, strategy, precision; checked without importing torch."""

from collections.abc import Mapping
from typing import Any

from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan_file import mapping
from supreme.precision import MATMUL_PRECISIONS, TRAINS, check_strategy, check_use, named, refuse_first_fsdp

TRAINER: Mapping[str, Any] = {"accelerator": "auto", "devices": 1, "strategy": "auto", "precision": "32-true"}
KEYS = (*TRAINER, "num_nodes", "deterministic", "benchmark", "matmul_precision", "compile", "resident")
STRATEGIES = (
    *("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp", "deepspeed"),
    *("deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3"),
    *("deepspeed_stage_2_offload", "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme"),
)
COMPILE = (True, False, "auto")


def trainer_settings(value: Any) -> dict[str, Any]:
    """The settings of a plan, with the defaults for those that it leaves out.

    Args:
        value: what stands under ``trainer``; None takes the defaults.

    Raises:
        ConfigError: if a value cannot be used; the text says which can.

    Example:
        >>> trainer_settings({"strategy": "fsdp", "devices": 2})["precision"]
        '32-true'
    """
    settings = {**TRAINER, **mapping(value, "trainer", KEYS)}
    strategy, multiplied = settings["strategy"], settings.get("matmul_precision")
    refuse_first_fsdp(strategy)
    if strategy not in STRATEGIES:
        raise UnknownNameError("strategy of a plan:", str(strategy), STRATEGIES)
    if multiplied not in (None, *MATMUL_PRECISIONS):
        raise UnknownNameError("matmul_precision", str(multiplied), MATMUL_PRECISIONS)
    if settings.get("compile", "auto") not in COMPILE or settings.get("resident", False) not in (True, False):
        found = {name: settings[name] for name in ("compile", "resident") if name in settings}
        raise ConfigError(f"Expected compile to be true, false or auto and resident to be true or false, got {found}.")
    return {**settings, "precision": _precision(settings["precision"], strategy)}


def _precision(given: Any, strategy: str) -> str:
    """The full name of the precision, which training and evaluation have to be able to use."""
    check_use("A plan", TRAINS, precision := named(given))
    check_strategy(precision, strategy)
    if strategy == "deepspeed_stage_3":
        check_strategy(precision, "fsdp")  # under which its models are evaluated
    return precision


def processes(settings: Mapping[str, Any]) -> int:
    """How many processes of this machine compute one stage on CPUs.

    Args:
        settings: of the Trainer.

    Example:
        >>> processes({"devices": "2"}), processes({"devices": "auto"})
        (2, 1)
    """
    devices = str(settings["devices"])
    return int(devices) if devices.isdigit() and int(devices) > 0 else 1
