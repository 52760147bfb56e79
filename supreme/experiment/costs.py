"""Costs: how long stages take, learnt from finished ones of the same group."""

import statistics
from collections.abc import Iterable, Mapping

from supreme.experiment.stage import Stage
from supreme.experiment.store import Store

_SAMPLES = 3
_GUESS_S: Mapping[str, float] = {"train": 4.0, "unlearn": 2.0, "outputs": 1.0, "evaluate": 1.0}


class Costs:
    """Estimates of the seconds that stages take.

    Example:
        >>> costs = Costs()
        >>> stage = Stage("train", {})
        >>> costs.known([stage])
        False
        >>> costs.observe(stage, 3.0)
        >>> costs.known([stage]), costs.estimate(stage)
        (True, 3.0)
    """

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def learn(self, store: Store, stages: Iterable[Stage]) -> None:
        """Read the times of a few finished stages of every group."""
        for stage in stages:
            if len(self._seen.get(stage.group, ())) < _SAMPLES and store.has(stage):
                self.observe(stage, float(store.description(stage).get("seconds", 0.0)))

    def observe(self, stage: Stage, seconds: float) -> None:
        """Note how long a stage took."""
        for name in (stage.group, stage.kind):
            self._seen.setdefault(name, []).append(seconds)

    def known(self, stages: Iterable[Stage]) -> bool:
        """Whether a stage of each kind has been seen, so that estimates mean something."""
        return all(stage.kind in self._seen for stage in stages)

    def estimate(self, stage: Stage) -> float:
        """Seconds that a stage will take: the median of its group, else of its kind, else a guess."""
        seen = self._seen.get(stage.group) or self._seen.get(stage.kind)
        return statistics.median(seen) if seen else _GUESS_S[stage.kind]

    def left(self, stages: Iterable[Stage], workers: int) -> float | None:
        """Seconds until all stages are done by so many workers; None when too little is known."""
        open_stages = list(stages)
        if not self.known(open_stages):
            return None
        costs = [self.estimate(stage) for stage in open_stages]
        return max(sum(costs) / workers, max(costs, default=0.0))
