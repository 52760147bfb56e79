"""Checkpoints that a plan does not keep: M_u's weights, and importances of D, go once nothing is to be made of them."""

import os
from collections.abc import Collection, Iterable

from supreme.experiment.lease import host_name
from supreme.experiment.plan import Run
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store


class Dropping:
    """Drops the weights of unlearned models, and importances, that nothing waits for; M_o and M_r always stay.

    Where other plans share the folder, nothing is dropped while another process works there: it may be about to read.

    Args:
        store: where they are.
        runs: all runs of the plan, those that are not asked for now included; none drops nothing.
    """

    def __init__(self, store: Store, runs: Iterable[Run]) -> None:
        self.store = store
        self.readers: dict[Stage, set[Stage]] = {}
        references: set[Stage] = set()
        for run in runs:
            for stage in run.stages():
                for role, source in stage.inputs.items():
                    if role == "importances" or (role == "unlearned" and source.kind == "unlearn"):
                        self.readers.setdefault(source, set()).add(stage)
                    elif role != "first":
                        references.add(source)
        for stage in references:
            self.readers.pop(stage, None)
        self._shared = len(store.plans()) > 1

    def after(self, stage: Stage, open_stages: Collection[Stage]) -> None:
        """Drop what a finished stage was the last to read.

        Args:
            stage: what has just got its result.
            open_stages: stages that are still to be done.
        """
        self._drop([source for source in stage.inputs.values() if source in self.readers], open_stages)

    def everything(self, open_stages: Collection[Stage]) -> None:
        """Drop all that nobody waits for.

        Args:
            open_stages: stages that are still to be done.
        """
        self._drop(self.readers, open_stages)

    def _drop(self, stages: Iterable[Stage], open_stages: Collection[Stage]) -> None:
        due = [s for s in stages if s not in open_stages and self.store.has(s) and self._read(s, open_stages)]
        if not due or (self._shared and self._others()):
            return
        for stage in due:
            with self.store.claim(stage) as mine:
                if mine:
                    self.store.drop(stage)

    def _read(self, stage: Stage, open_stages: Collection[Stage]) -> bool:
        """Whether everything that reads a result is done."""
        return all(reader not in open_stages and self._done(reader) for reader in self.readers[stage])

    def _done(self, stage: Stage) -> bool:
        return self.store.has(stage) or self.store.dropped(stage)

    def _others(self) -> bool:
        mine = (host_name(), os.getpid())
        return any((holder["host"], holder["pid"]) != mine for holder in self.store.leases.active().values())
