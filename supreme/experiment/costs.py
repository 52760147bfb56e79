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
        >>> costs, stage = Costs(), Stage("train", {})
        >>> costs.left({"train": 4}, workers=2)
        >>> costs.observe(stage, 3.0)
        >>> costs.estimate(stage), costs.left({"train": 4}, workers=2)
        (3.0, 6.0)
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
        for name in {stage.group, stage.kind}:
            self._seen.setdefault(name, []).append(seconds)

    def estimate(self, stage: Stage) -> float:
        """Seconds that a stage will take: the median of its group, else of its kind, else a guess."""
        return self._median(stage.group) or _GUESS_S[stage.kind]

    def left(self, groups: Mapping[str, int], workers: int) -> float | None:
        """Seconds until so many stages of each group are done; None while a kind of stage was never seen.

        Args:
            groups: group of stages -> how many are to be done.
            workers: how many at a time.
        """
        total, longest = 0.0, 0.0
        for group, count in groups.items():
            seconds = self._median(group) if count else 0.0
            if seconds is None:
                return None
            total, longest = total + count * seconds, max(longest, seconds)
        return max(total / workers, longest)

    def _median(self, group: str) -> float | None:
        seen = self._seen.get(group) or self._seen.get(group.partition(" ")[0])
        return statistics.median(seen) if seen else None
