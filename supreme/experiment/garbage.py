"""Garbage: what lies in an output folder that none of its plans refers to."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supreme.errors import ConfigError, OutputError, SupremeError
from supreme.experiment.plan import load_plan
from supreme.experiment.slurm_queue import tasks
from supreme.experiment.stage import KINDS
from supreme.experiment.store import DROPPED_FILE, STAGE_FILE, Store, read_json


@dataclass(frozen=True)
class Leftover:
    """A folder, or a file, that can go.

    Attributes:
        path: where it is.
        key: key of the stage that it belongs to.
        label: what it holds, in words.
        reason: why it is left over.
        size_bytes: what its removal frees; files that have several names count in part.
    """

    path: Path
    key: str
    label: str
    reason: str
    size_bytes: int


class Garbage:
    """Finds and removes what no plan refers to.

    A plan refers to the stages of its present settings, made by the present code. Records always stay.

    Args:
        root: an output folder of plans.

    Attributes:
        stale: names of plans of which nothing is there as they are now.

    Raises:
        ConfigError: if no plan was ever run there, or one of those cannot be read: nothing can be called garbage then.
    """

    def __init__(self, root: str | Path) -> None:
        self.store = Store(root)
        self._plans = self._stamps()
        if not self._plans:
            raise ConfigError(f"No plan was ever run in '{root}'; give the output folder of 'supreme run'.")
        stages = {path: _stages(path) for path in self._plans}
        self._wanted = {key: label for found in stages.values() for key, label in found.items()}
        present = {path.name for path in self.store.root.glob("stages/*/[!.]*")}
        self.stale = [path.stem for path, found in stages.items() if present and not present & found.keys()]
        self._labels = set(self._wanted.values())

    def find(self) -> list[Leftover]:
        """What can go: stages of no plan, folders of dead processes, weights whose removal was cut short.

        Raises:
            ConfigError: if a process works here that belongs to none of the plans, so that nobody knows what it reads.
        """
        self._check_strangers()
        return [*self._stages(), *self._abandoned()]

    def remove(self, found: Iterable[Leftover]) -> Iterator[tuple[Leftover, bool]]:
        """Remove what was found, and tell one by one whether it went; what is in use stays.

        Raises:
            ConfigError: if a plan was started in the meantime.
            OutputError: if something cannot be removed.
        """
        for leftover in found:
            if self._stamps() != self._plans:
                raise ConfigError("A plan was started here in the meantime, so nothing more is removed; look again.")
            lease = self.store.leases.acquire(leftover.key, f"remove {leftover.label}")
            try:
                if lease is not None:
                    self._remove(leftover.path)
            finally:
                if lease is not None:
                    lease.release()
            yield leftover, lease is not None

    def _remove(self, path: Path) -> None:
        try:
            if path.is_dir():
                self.store.remove(path)
            else:
                path.unlink()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise OutputError(f"Cannot remove '{path}': {exc.strerror or exc}; correct its rights.") from exc

    def _stamps(self) -> dict[Path, int]:
        """The plans that were run here, with the time of their last change."""
        return {path: path.stat().st_mtime_ns for path in self.store.plans()}

    def _stages(self) -> Iterator[Leftover]:
        active = self.store.leases.active()
        for kind in KINDS:
            folders = (self.store.root / "stages" / kind).glob("[!.]*")
            for folder in sorted(path for path in folders if path.is_dir() and path.name not in active):
                if folder.name not in self._wanted:
                    label = str(_about(folder).get("label") or f"{kind} {folder.name}")
                    reason = "other settings or code" if label in self._labels else "of no plan"
                    yield Leftover(folder, folder.name, label, reason, _size(folder))
                elif (folder / DROPPED_FILE).is_file() and not (folder / STAGE_FILE).is_file():
                    for weights in folder.glob("*.safetensors"):
                        label = self._wanted[folder.name]
                        yield Leftover(weights, folder.name, label, "dropped weights", _size(weights))

    def _abandoned(self) -> Iterator[Leftover]:
        for folder, _ in self.store.abandoned():
            key = folder.name.split(".")[1]
            label = self._wanted.get(key, f"{folder.parent.name} {key}")
            yield Leftover(folder, key, label, "half-written by a process that is dead", _size(folder))

    def _check_strangers(self) -> None:
        active = self.store.leases.active()
        strange = [str(holder["label"] or key) for key, holder in active.items() if key not in self._wanted]
        queued = (task for task in tasks(self.store).values() if task.state in ("waiting", "running"))
        strange += [f"task {task.number}" for task in queued if task.stage not in self._wanted]
        if strange:
            raise ConfigError(
                f"A process works in '{self.store.root}' on what no plan there refers to ({strange[0]}), so what it "
                "needs is not known; wait until it has ended."
            )


def _stages(path: Path) -> dict[str, str]:
    """Keys and labels of the stages of a plan."""
    try:
        runs = load_plan(path).runs()
    except SupremeError as error:
        raise ConfigError(
            f"Nothing is removed, as the plan '{path}' cannot be read: {error} Correct that, or remove the file."
        ) from error
    return {stage.key: stage.label for run in runs for stage in run.stages()}


def _about(folder: Path) -> Mapping[str, Any]:
    """What the description of a result says, nothing where it cannot be read."""
    file = next((folder / name for name in (STAGE_FILE, DROPPED_FILE) if (folder / name).is_file()), folder)
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    found = [file.stat() for file in files]
    return sum(stat.st_size // max(1, stat.st_nlink) for stat in found)
