"""From a cell of a plan to its chain of stages; equal stages of different runs are the same object."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from supreme.experiment.choices import MethodChoice
from supreme.experiment.recipes import BATCH_SIZE
from supreme.experiment.seeds import Seeds
from supreme.experiment.source import Sources
from supreme.experiment.stage import Choice, Kind, Stage, digest

WHOLE = "supreme.scenarios.whole_dataset"

# What executes a stage beside the plan's own components: a change in it makes the stage's results stale.
_RESOURCES = ("supreme.callbacks.time", "supreme.callbacks.memory", "supreme.callbacks.utilisation")
SOURCES: Mapping[Kind, tuple[str, ...]] = {
    "train": ("supreme.classifier", WHOLE),
    "importances": (WHOLE, *_RESOURCES),
    "unlearn": _RESOURCES,
    "outputs": ("supreme.evaluation",),
    "evaluate": ("supreme.evaluation", "supreme.metrics.suite"),
}

VALIDATION = "supreme.experiment.validation"  # where a plan holds images out


@dataclass(frozen=True)
class Cell:
    """What the runs of one table cell share: all but the method.

    Attributes:
        dataset: where the images come from.
        network: which network.
        scenario: which samples are to be forgotten, target and seed of the draw included.
        place: the cell in words, for example ``"FullClass 3"``.
        seeds: the seeds.
        training: how the network is trained; None where :attr:`Chains.shared` says it.
    """

    dataset: Choice
    network: Choice
    scenario: Choice
    place: str
    seeds: Seeds
    training: Mapping[str, Any] | None = None


@dataclass
class Chains:
    """Builds the stages of runs.

    Attributes:
        shared: what all stages of the plan hold: training recipe, trainer, threads.
        evaluation: what all forward passes hold.
        metrics: the metrics as plain values.
        metric_paths: dotted paths of the metrics.
        retrain: the method that makes M_r.
        fingerprints: label of a dataset -> hash of its content.
    """

    shared: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    metrics: Mapping[str, Any]
    metric_paths: tuple[str, ...]
    retrain: MethodChoice
    fingerprints: Mapping[str, str]
    _made: dict[Any, Stage] = field(default_factory=dict)
    _hashes: dict[tuple[str, ...], str] = field(default_factory=dict)
    _sources: Sources = field(default_factory=Sources)

    def evaluate(self, cell: Cell, method: MethodChoice, original: bool) -> Stage:
        """The last stage of a run; its inputs lead to all others.

        The stage of the first evaluation seed computes every metric. Those of further seeds read its result and compute
        what depends on the seed.

        Args:
            cell: dataset, network, scenario and seeds.
            method: the method; its label names the row.
            original: whether the row is M_o itself.
        """
        name = (*_names(cell), "evaluate", method.label, cell.seeds)
        return self._once(name, lambda: self._evaluate(cell, method, original))

    def _evaluate(self, cell: Cell, method: MethodChoice, original: bool) -> Stage:
        train, retrained = self.train(cell), self.unlearn(cell, self.retrain)
        inputs = {
            "unlearned": train if original else self.unlearn(cell, method),
            "retrained": retrained,
            "original_outputs": self.original_outputs(cell),
            "retrained_outputs": self.retrained_outputs(cell),
        }
        if cell.seeds != cell.seeds.first:
            inputs["first"] = self.evaluate(replace(cell, seeds=cell.seeds.first), method, original)
        paths = (method.class_path, cell.scenario.class_path, *self.metric_paths)
        config = {
            **self._common(cell, "evaluate", paths),
            "scenario": cell.scenario.config,
            "method": method.config,
            "metrics": self.metrics,
            "evaluation": self.evaluation,
            "seed": cell.seeds.evaluation,
        }
        return Stage("evaluate", config, inputs, f"evaluate {_words(cell, method)}")

    def train(self, cell: Cell) -> Stage:
        """The stage that makes M_o."""
        seed, network, dataset = cell.seeds.training, cell.network, cell.dataset

        def make() -> Stage:
            label = f"train {network.label} on {dataset.label}, seed {seed}"
            return Stage("train", {**self._common(cell, "train", ()), "seed": seed}, label=label)

        return self._once(("train", dataset.label, network.label, seed), make)

    def unlearn(self, cell: Cell, method: MethodChoice) -> Stage:
        """The stage that makes M_r (from the recipe alone) or M_u (from M_o)."""
        retrain = method.class_path == self.retrain.class_path

        def make() -> Stage:
            config = {
                **self._common(cell, "unlearn", (method.class_path, cell.scenario.class_path)),
                "scenario": cell.scenario.config,
                "method": method.config,
                "seed": cell.seeds.unlearning,
            }
            shared = None if retrain else self.importances(cell, method)
            inputs = {} if retrain else {"original": self.train(cell)} | ({"importances": shared} if shared else {})
            return Stage("unlearn", config, inputs, _words(cell, method))

        seeds = (cell.seeds.unlearning,) if retrain else cell.seeds[:2]
        return self._once((*_names(cell), method.label, seeds), make)

    def importances(self, cell: Cell, method: MethodChoice) -> Stage | None:
        """The stage of the importances of D that a method takes over, the same for all targets; None if it cannot.

        D is read in its own order, without augmentation and without a draw, so neither the scenario nor s_u counts.
        """
        shared, given = method.shared_importances, dict(method.init_args)
        if not shared or any(given.get(name, value) != value for name, value in shared.get("where", {}).items()):
            return None
        arguments = {name: given[name] for name in shared["arguments"] if given.get(name) is not None}
        size = arguments.pop("batch_size", None) or self._training(cell).get("batch_size", BATCH_SIZE)
        computed = Choice(shared["class_path"], arguments)

        def make() -> Stage:
            config = {
                **self._common(cell, "importances", (computed.class_path,)),
                "method": computed.config,
                "batch_size": size,
            }
            by = computed.class_path.rpartition(".")[2]
            label = (
                f"importances of D by {by}, {cell.network.label} on {cell.dataset.label}, seed {cell.seeds.training}"
            )
            return Stage("importances", config, {"original": self.train(cell)}, label)

        names = (cell.dataset.label, cell.network.label, "importances", cell.seeds.training, size)
        return self._once((*names, digest(computed.config)), make)

    def original_outputs(self, cell: Cell) -> Stage:
        """The stage that keeps the logits of M_o on D and D', the same for all targets."""
        train = self.train(cell)

        def make() -> Stage:
            config = {**self._common(cell, "outputs", (WHOLE,)), "evaluation": self.evaluation}
            label = f"outputs of M_o, {cell.network.label} on {cell.dataset.label}, seed {cell.seeds.training}"
            return Stage("outputs", config, {"model": train}, label)

        return self._once(("outputs", train.key), make)

    def retrained_outputs(self, cell: Cell) -> Stage:
        """The stage that keeps the logits of M_r on all parts of the scenario, and of the incompetent teacher."""
        retrained = self.unlearn(cell, self.retrain)

        def make() -> Stage:
            config = {
                **self._common(cell, "outputs", (cell.scenario.class_path,)),
                "scenario": cell.scenario.config,
                "evaluation": self.evaluation,
            }
            label = f"outputs of M_r, {cell.place}, {cell.network.label} on {cell.dataset.label}, {_seed(cell)}"
            return Stage("outputs", config, {"model": retrained}, label)

        return self._once((*_names(cell), "outputs", retrained.key), make)

    def _common(self, cell: Cell, kind: Kind, paths: tuple[str, ...]) -> dict[str, Any]:
        """What every stage holds, and the hash of its code."""
        fingerprint = self.fingerprints.get(cell.dataset.label, "")
        held_out = (VALIDATION,) if self._training(cell).get("validation_fraction") else ()
        names = (*SOURCES[kind], *held_out, cell.dataset.class_path, cell.network.class_path, *paths)
        if names not in self._hashes:
            self._hashes[names] = self._sources.hash(names)
        return {
            "dataset": {**cell.dataset.config, **({"fingerprint": fingerprint} if fingerprint else {})},
            "network": cell.network.config,
            **self.shared,
            **({} if cell.training is None else {"training": dict(cell.training)}),
            "source": self._hashes[names],
        }

    def _training(self, cell: Cell) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.shared.get("training", {}) if cell.training is None else cell.training
        return found

    def _once(self, name: tuple[Any, ...], make: Callable[[], Stage]) -> Stage:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def _names(cell: Cell) -> tuple[str, ...]:
    return cell.dataset.label, cell.network.label, cell.place


def _words(cell: Cell, method: Choice) -> str:
    return f"{method.label}, {cell.place}, {cell.network.label} on {cell.dataset.label}, {_seed(cell)}"


def _seed(cell: Cell) -> str:
    seeds = list(dict.fromkeys(map(str, cell.seeds)))
    return f"seed{'s' * (len(seeds) > 1)} {'/'.join(seeds)}"
