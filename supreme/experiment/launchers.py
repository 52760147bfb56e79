"""Launchers: where a stage is computed, in this process or in the ranks of a group that is started for it."""

from collections.abc import Mapping
from typing import Any

from supreme.distributed import hushed, ranks_needed
from supreme.experiment import run
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store
from supreme.ranks import in_ranks


def execute(stage: Stage, store: Store) -> None:
    """Do the work of a stage on the devices that it asks for, and commit its result.

    With several devices, or a strategy that needs a group, ranks are started for this one stage; this process joins
    none. Rank 0 commits.

    Args:
        stage: what to do; its inputs are in the store.
        store: where the result goes.

    Raises:
        BaseException: what the rank raised that raised first.
    """
    count = _ranks(stage.config["trainer"])
    if count == 0:
        run.execute(stage, store)
        return
    settings = {name: getattr(store, name) for name in ("root", "workers", "track_evaluation")}
    in_ranks(count, execute_share, stage, settings, threads=stage.config.get("threads"), log=store.log(stage))


def execute_share(stage: Stage, settings: Mapping[str, Any]) -> None:
    """What one rank does of a stage.

    Args:
        stage: what to do.
        settings: arguments of the store.
    """
    store = Store(**settings)
    store.begin(stage)
    run.execute(stage, store)


def _ranks(trainer: Mapping[str, Any]) -> int:
    names = ("accelerator", "devices", "strategy", "num_nodes")
    with hushed():
        return ranks_needed(**{name: trainer[name] for name in names if name in trainer})
