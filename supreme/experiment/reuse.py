"""Reuse: importances of D that one stage computes and the methods of all targets take over."""

from collections.abc import Mapping
from operator import mul
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from supreme.experiment.stage import Stage
from supreme.experiment.store import Store
from supreme.scenarios.base import Scenario

IMPORTANCES = "importances.safetensors"


def keep(importances: Mapping[str, Tensor], folder: Path) -> None:
    """Write importances into the folder of a result."""
    save_file({name: value.contiguous() for name, value in importances.items()}, folder / IMPORTANCES)


def shared_stage(stage: Stage, scenario: Scenario) -> Stage | None:
    """The stage whose importances of D a method takes over, if it may.

    Args:
        stage: the stage of the method.
        scenario: what serves its data; where that is done in a way of its own, the method reads D itself.
    """
    found = stage.inputs.get("importances")
    size = stage.config["method"]["init_args"].get("batch_size") or scenario.batch_size
    usual = found is not None and type(scenario).serves_as_usual() and size == found.config["batch_size"]
    return found if usual else None


def shared_importances(stage: Stage, store: Store) -> dict[str, Tensor]:
    """The importances that a stage has kept, by parameter name."""
    return load_file(store.path(stage) / IMPORTANCES)


def as_if_computed(own: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a method has cost, as if it had computed itself what it took over.

    Args:
        own: description of the method's stage; ``time_s`` of its resources becomes ``time_s_reused``.
        shared: description of the stage that it reused.

    Returns:
        The first with the times added, the larger peak of memory, and the utilisation averaged over time.

    Example:
        >>> costs = {"time_s": 1.0, "peak_memory_bytes": 5.0, "utilisation": 0.5}
        >>> own = {"resources": costs, "contended": False}
        >>> shared = {"resources": {**costs, "time_s": 3.0, "utilisation": 0.9}, "contended": True}
        >>> found = as_if_computed(own, shared)
        >>> [found["resources"][name] for name in ("time_s", "time_s_reused", "utilisation")], found["contended"]
        ([4.0, 1.0, 0.8], True)
    """
    parts = [entry["resources"] for entry in (own, shared)]
    times, loads = [part["time_s"] for part in parts], [part["utilisation"] for part in parts]
    resources = {
        "time_s": sum(times),
        "time_s_reused": times[0],
        "peak_memory_bytes": max(part["peak_memory_bytes"] for part in parts),
        "utilisation": None if None in loads else sum(map(mul, loads, times)) / sum(times),
    }
    return {**own, "resources": resources, "contended": own["contended"] or shared["contended"]}
