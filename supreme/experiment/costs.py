"""Costs: how long stages take, learnt from finished ones of the same group."""

import json
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from supreme.experiment.stage import Stage, group_of
from supreme.experiment.store import STAGE_FILE, Store

_SAMPLES = 3
_RECENT = 100  # finished stages of a kind that are looked at in a folder of other settings
_FOLDERS = 20  # such folders
_GUESS_S: Mapping[str, float] = {"train": 4.0, "importances": 1.0, "unlearn": 2.0, "outputs": 1.0, "evaluate": 1.0}


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
            if len(self._seen.get(stage.group, ())) < _SAMPLES and (store.has(stage) or store.dropped(stage)):
                self.observe(stage, float(store.description(stage).get("seconds", 0.0)))

    def borrow(self, root: Path, stages: Iterable[Stage]) -> None:
        """Read what other settings or plans took, in this output folder or beside it, where nothing better is known.

        Args:
            root: output folder of the plan.
            stages: what is to be estimated.
        """
        unknown = {stage.group: stage.kind for stage in stages if stage.group not in self._seen}
        beside = sorted(path for path in root.parent.glob("*/stages") if path.parent != root)[:_FOLDERS]
        for folder in (root / "stages", *beside):
            for kind in dict.fromkeys(unknown.values()):
                found: dict[str, list[float]] = {}
                for name, seconds in _times(folder / kind):
                    found.setdefault(name, []).append(seconds)
                found[kind] = [seconds for values in found.values() for seconds in values]
                self._seen = {**{name: values for name, values in found.items() if values}, **self._seen}
            unknown = {name: kind for name, kind in unknown.items() if name not in self._seen}

    def observe(self, stage: Stage, seconds: float) -> None:
        """Note how long a stage took."""
        for name in {stage.group, stage.kind}:
            self._seen.setdefault(name, []).append(seconds)

    def estimate(self, stage: Stage) -> float:
        """Seconds that a stage will take: the median of its group, else of its kind, else a guess."""
        return self.known(stage) or _GUESS_S[stage.kind]

    def known(self, stage: Stage) -> float | None:
        """The same, None while no stage of the kind was ever seen."""
        return self._median(stage.group)

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


def _times(folder: Path) -> Iterator[tuple[str, float]]:
    """Groups and seconds of the stages in a folder that were finished last."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime)[-_RECENT:]
    except OSError:
        return
    yield from (found for found in map(_time, entries) if found is not None)


def _time(folder: os.DirEntry[str]) -> tuple[str, float] | None:
    """Group and seconds of a finished stage; None for one that is unfinished, dropped, or of another version."""
    try:
        content = json.loads((Path(folder.path) / STAGE_FILE).read_text(encoding="utf-8"))
        return group_of(content["kind"], content["config"], content["inputs"]), float(content["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
