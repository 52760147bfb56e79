"""Plans: a file that says what to compare, turned into the list of runs and their stages. Nothing heavy is imported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Literal

from supreme.errors import ConfigError
from supreme.experiment.chain import Cell, Chains
from supreme.experiment.choices import (
    MethodChoice,
    NetworkChoice,
    ScenarioChoice,
    choices,
    methods,
    metrics,
    networks,
    scenarios,
    target_text,
)
from supreme.experiment.plan_file import entries, integer, mapping, plan_hash, read_plan_file
from supreme.experiment.presets import Preset, preset
from supreme.experiment.recipes import settled, training
from supreme.experiment.seeds import Seeds, seed_grid
from supreme.experiment.stage import Choice, Stage, digest
from supreme.experiment.trainer_settings import trainer_settings
from supreme.precision import kind_of

EVALUATION_KEYS = ("batch_size",)
Checkpoints = Literal["keep", "drop"]
KEYS = (
    *("name", "output", "datasets", "models", "training", "scenarios", "methods", "metrics", "seeds"),
    *("trainer", "threads", "evaluation", "presets", "checkpoints", "fingerprints"),
)


@dataclass(frozen=True)
class NotApplicable:
    """A method that a plan names but a scenario cannot serve."""

    method: str
    scenario: str
    reason: str


@dataclass(frozen=True)
class Run:
    """One cell of the results: one method, one target, one seed triple.

    Attributes:
        plan: name of the plan.
        dataset: label of the dataset.
        model: label of the network.
        scenario: label of the scenario.
        target: the forget target as text.
        method: class name of the method.
        variant: tells two entries of one method apart.
        training_seed: s_t.
        unlearning_seed: s_u.
        evaluation_seed: s_e.
        draw_seed: seed of the draw of the samples to forget, None where nothing is drawn.
        config: the whole resolved configuration, as plain values.
        stage: the stage whose result is this run's; all others are its inputs.
        plan_hash: hash of the plan's content.
    """

    plan: str
    dataset: str
    model: str
    scenario: str
    target: str
    method: str
    variant: str
    training_seed: int
    unlearning_seed: int
    evaluation_seed: int
    draw_seed: int | None
    config: Mapping[str, Any] = field(repr=False, compare=False)
    stage: Stage = field(repr=False, compare=False)
    plan_hash: str = field(repr=False, compare=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this run from others of the output folder; the ``run`` part of its record."""
        names = ("dataset", "model", "scenario", "target", "method", "variant")
        seeds = ("training_seed", "unlearning_seed", "evaluation_seed", "draw_seed")
        return {name: getattr(self, name) for name in (*names, *seeds)}

    @cached_property
    def key(self) -> str:
        """16 hex digits of the identity; the name of the record."""
        return digest(self.identity)

    @cached_property
    def config_hash(self) -> str:
        """16 hex digits of the configuration without the seeds."""
        return digest({name: value for name, value in self.config.items() if name != "seeds"})

    @property
    def label(self) -> str:
        """The run in words."""
        return self.stage.label.removeprefix("evaluate ")

    def stages(self) -> tuple[Stage, ...]:
        """All stages of the chain, inputs before what reads them, each once."""
        found: dict[Stage, None] = {}

        def visit(stage: Stage) -> None:
            for source in stage.inputs.values():
                visit(source)
            found.setdefault(stage)

        visit(self.stage)
        return tuple(found)


@dataclass(frozen=True)
class Plan:
    """What to compare: datasets x models x scenarios x targets x methods x seeds.

    Attributes:
        name: name of the plan.
        output: folder of the results.
        datasets: the datasets.
        models: the networks.
        training: the training recipe of M_o and M_r, with ``epochs`` and ``batch_size``; where neither it nor a network
            says anything, the shipped recipe of network and dataset holds.
        scenarios: the scenarios with their targets.
        methods: the methods, Original and Retrain among them.
        metrics: the metrics; None takes all.
        added_metrics: metrics beside those.
        seeds: the seed triples.
        draws: seeds of the draw of random samples, each with every seed triple; empty draws by the unlearning seed.
        trainer: arguments of the Trainer.
        threads: CPU threads of a run.
        evaluation: how models are evaluated.
        checkpoints: ``"keep"``, or ``"drop"`` to remove the weights of every M_u after its evaluation.
        presets: whether methods take the papers' settings for a place where the plan says nothing else.
        fingerprints: label of a dataset -> hash of its content, for data that may change under the same name.
        content: the plan file.
    """

    name: str
    output: Path
    datasets: tuple[Choice, ...]
    models: tuple[NetworkChoice, ...]
    training: Mapping[str, Any]
    scenarios: tuple[ScenarioChoice, ...]
    methods: tuple[MethodChoice, ...]
    metrics: tuple[Choice, ...] | None
    added_metrics: tuple[Choice, ...]
    seeds: tuple[Seeds, ...]
    draws: tuple[int, ...]
    trainer: Mapping[str, Any]
    threads: int
    evaluation: Mapping[str, Any]
    presets: bool
    checkpoints: Checkpoints
    fingerprints: Mapping[str, str]
    content: Mapping[str, Any] = field(repr=False)

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the content, by which records tell the plan as it was from the plan as it is."""
        return plan_hash(self.content, self.name)

    def runs(self) -> list[Run]:
        """Every run, cell by cell; methods that a scenario cannot serve are left out."""
        chains = self._chains()
        return [
            self._run(chains, dataset, model, scenario, target, method, seeds, draw)
            for dataset in self.datasets
            for model in self.models
            for scenario in self.scenarios
            for target in scenario.targets
            for seeds in self.seeds
            for draw in self._draws_of(scenario, seeds)
            for method in self.methods
            if not self._obstacle(scenario, method)
        ]

    def not_applicable(self) -> list[NotApplicable]:
        """Methods that are left out, and why."""
        pairs = [(method, scenario) for scenario in self.scenarios for method in self.methods]
        reasons = [(method, scenario, self._obstacle(scenario, method)) for method, scenario in pairs]
        return [NotApplicable(method.label, scenario.label, why) for method, scenario, why in reasons if why]

    def _obstacle(self, scenario: ScenarioChoice, method: MethodChoice) -> str:
        """Why a method cannot serve a scenario in this plan, "" when it can."""
        if scenario.random and "class" in method.needs:
            return "it needs a class to forget, and this scenario draws samples at random"
        precision = self.trainer["precision"]
        if method.precisions and kind_of(precision) not in method.precisions:
            return f"it does not work in precision {precision}"
        return ""

    def used_presets(self) -> list[Preset]:
        """The presets that settings of the runs come from."""
        places = product(self.methods, self.datasets, self.models, self.scenarios)
        found = [self._preset(*place) for place in places if not self._obstacle(place[3], place[0])]
        return list(dict.fromkeys(one for one in found if one is not None))

    def _preset(self, method: MethodChoice, dataset: Choice, model: Choice, scenario: Choice) -> Preset | None:
        """What a method takes in one place, None where the plan gives all of it or there is nothing."""
        place = [choice.class_path.rpartition(".")[2] for choice in (dataset, model, scenario)]
        found = preset(method.name, *place) if self.presets else None
        return None if found is None or found.init_args.keys() <= method.init_args.keys() else found

    def used_recipes(self) -> dict[str, str]:
        """Networks on datasets -> the shipped recipe that was picked for them, where the plan says nothing."""
        found = {
            f"{model.label} on {dataset.label}": settled(
                model.training, self.training, model.class_path, dataset.class_path
            )[1]
            for model, dataset in product(self.models, self.datasets)
        }
        return {place: name for place, name in found.items() if name is not None}

    def with_fingerprints(self, fingerprints: Mapping[str, str]) -> "Plan":
        """The plan with the content of datasets pinned, so that changed images make results stale.

        Args:
            fingerprints: label of a dataset -> its fingerprint.
        """
        merged = {**self.fingerprints, **fingerprints}
        return replace(self, fingerprints=merged, content={**self.content, "fingerprints": merged})

    def _draws_of(self, scenario: ScenarioChoice, seeds: Seeds) -> tuple[int | None, ...]:
        """Seeds of the draws of a scenario: the plan's, else the unlearning seed; its own where it fixes one."""
        if scenario.draws:
            return self.draws or (seeds.unlearning,)
        return (scenario.init_args.get("draw_seed"),)

    def _chains(self) -> Chains:
        retrain = next(method for method in self.methods if method.name == "Retrain")
        named = None if self.metrics is None else [metric.config for metric in self.metrics]
        return Chains(
            shared={"trainer": dict(self.trainer), "threads": self.threads},
            evaluation=dict(self.evaluation),
            metrics={"named": named, "added": [metric.config for metric in self.added_metrics]},
            metric_paths=tuple(metric.class_path for metric in (*(self.metrics or ()), *self.added_metrics)),
            retrain=retrain,
            fingerprints=self.fingerprints,
        )

    def _run(
        self,
        chains: Chains,
        dataset: Choice,
        model: NetworkChoice,
        scenario: ScenarioChoice,
        target: Any,
        method: MethodChoice,
        seeds: Seeds,
        draw: int | None,
    ) -> Run:
        shown = target_text(target)
        taken = self._preset(method, dataset, model, scenario)
        method = replace(method, init_args={**(taken.init_args if taken else {}), **method.init_args})
        fixed = {**scenario.init_args, scenario.target_argument: target}
        arguments = {**fixed, "draw_seed": draw} if scenario.draws else fixed
        forget = Choice(scenario.class_path, arguments, scenario.label)
        recipe = settled(model.training, self.training, model.class_path, dataset.class_path)[0]
        drawn = f" draw {draw}" if scenario.draws and self.draws else ""
        cell = Cell(dataset, model, forget, f"{scenario.label} {shown}{drawn}", seeds, recipe)
        config = {
            "dataset": dataset.config,
            "network": model.config,
            **chains.shared,
            "training": recipe,
            "scenario": replace(forget, init_args=fixed).config,
            "method": method.config,
            "metrics": chains.metrics,
            "evaluation": chains.evaluation,
            "seeds": {**seeds._asdict(), "draw": draw},
        }
        stage = chains.evaluate(cell, method, original=method.name == "Original")
        names = (dataset.label, model.label, scenario.label, shown, method.name, method.variant)
        return Run(self.name, *names, *seeds, draw, config=config, stage=stage, plan_hash=self.hash)


def load_plan(path: str | Path, root: Path | None = None) -> Plan:
    """Read a plan and check every key and class name in it, without importing any component.

    Args:
        path: a YAML file.
        root: package folder in which short names are looked up; None is this package.

    Raises:
        ConfigError: if the file or a value in it cannot be used.
        UnknownNameError: if a key, class or argument is unknown; the text names near ones.
    """
    path = Path(path)
    content = mapping(read_plan_file(path), f"the plan '{path}'", KEYS)
    for key in ("datasets", "models", "scenarios", "methods"):
        if key not in content:
            raise ConfigError(f"The plan '{path}' has no key '{key}'; add a list of class names under it.")
    name = str(content.get("name", path.stem))
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"Expected letters, digits, '.', '_' and '-' in the name of a plan, got '{name}'.")
    named_metrics, added_metrics = metrics(content.get("metrics"), root)
    evaluation = mapping(content.get("evaluation"), "evaluation", EVALUATION_KEYS)
    chosen = scenarios(content["scenarios"], root)
    return Plan(
        name=name,
        output=Path(content.get("output") or Path("runs") / name),
        datasets=choices("datasets", content["datasets"], root),
        models=networks(content["models"], root),
        training=training(content.get("training")),
        scenarios=chosen,
        methods=methods(content["methods"], root),
        metrics=named_metrics,
        added_metrics=added_metrics,
        seeds=_seeds(content.get("seeds")),
        draws=_draws(content.get("seeds"), chosen),
        trainer=trainer_settings(content.get("trainer")),
        threads=integer(content.get("threads", 1), "threads", 1),
        evaluation=evaluation,
        presets=_presets(content.get("presets", True)),
        checkpoints=_checkpoints(content.get("checkpoints", "keep")),
        fingerprints=mapping(content.get("fingerprints"), "fingerprints"),
        content=content,
    )


def _presets(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"Expected true or false under 'presets', got {value!r:.60}.")
    return value


def _checkpoints(value: Any) -> Checkpoints:
    if value not in ("keep", "drop"):
        raise ConfigError(f"Expected keep or drop under 'checkpoints', got {value!r:.60}.")
    return "drop" if value == "drop" else "keep"


def _seeds(value: Any) -> tuple[Seeds, ...]:
    fields = _seed_fields(value)
    training = [integer(seed, "seeds.training", 0) for seed in entries(fields.get("training", [0]), "seeds.training")]
    counts = [integer(fields.get(name, 1), f"seeds.{name}", 1) for name in ("unlearning", "evaluation")]
    return tuple(seed_grid(training, *counts))


def _draws(value: Any, chosen: Sequence[ScenarioChoice]) -> tuple[int, ...]:
    """The seeds of the draws that the plan lists."""
    given = _seed_fields(value).get("draw")
    if given is None:
        return ()
    if not isinstance(given, list):
        raise ConfigError(f"Expected a list under seeds.draw, such as [1] for one draw in all runs, got {given!r:.60}.")
    draws = tuple(integer(seed, "seeds.draw", 0) for seed in entries(given, "seeds.draw"))
    if len(set(draws)) != len(draws):
        raise ConfigError(f"Expected distinct seeds under seeds.draw, got {given}; list each seed once.")
    if not any(scenario.draws for scenario in chosen):
        raise ConfigError("No scenario of the plan draws samples by 'seeds.draw'; leave it out.")
    return draws


def _seed_fields(value: Any) -> dict[str, Any]:
    return mapping({"training": value} if isinstance(value, list) else value, "seeds", (*Seeds._fields, "draw"))
