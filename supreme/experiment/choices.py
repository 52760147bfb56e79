"""Choices: which components a plan names, checked against what exists without importing any of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supreme.components import Component, Kind, describe
from supreme.errors import ConfigError
from supreme.experiment.plan_file import entries, mapping
from supreme.experiment.recipes import training
from supreme.experiment.stage import Choice
from supreme.models.names import written_out

_GIVEN_BY_THE_RUN: Mapping[Kind, tuple[str, ...]] = {
    "datasets": (),
    "models": ("num_classes",),
    "scenarios": ("dataset", "forget", "fraction", "batch_size", "evaluation_batch_size"),
    "methods": ("original", "seed"),
    "metrics": (),
}


@dataclass(frozen=True)
class MethodChoice(Choice):
    """A method with its arguments.

    Attributes:
        name: class name.
        variant: name that tells two entries of one method apart, "" for a single one.
        needs: what the method cannot work without.
        precisions: kinds of precision in which it works; empty where its file does not tell.
        shared_importances: which importances of D it can take over; empty where it cannot.
    """

    name: str = ""
    variant: str = ""
    needs: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    shared_importances: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkChoice(Choice):
    """A network with its arguments.

    Attributes:
        training: how it is trained, in place of what the plan says for all networks; empty without a word of its own.
    """

    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScenarioChoice(Choice):
    """A scenario with its arguments and all its targets.

    Attributes:
        targets: the forget targets: class names or indices, lists of them, or fractions.
        target_argument: the argument that takes a target.
        draws: whether an argument ``draw_seed`` is to be filled with the unlearning seed.
        random: whether the samples to forget are drawn at random.
    """

    targets: tuple[Any, ...] = ()
    target_argument: str = "forget"
    draws: bool = False
    random: bool = False


def methods(value: Any, root: Path | None = None) -> tuple[MethodChoice, ...]:
    """The methods of a plan; Original and Retrain are put first where the plan leaves them out.

    Args:
        value: what the plan says under ``methods``.
        root: package folder in which short names are looked up; None is this package.

    Raises:
        ConfigError: if an entry cannot be used or stands twice.
    """
    given = entries(value, "methods")
    found = [_entry("methods", entry, root) for entry in given]
    for name in ("Retrain", "Original"):
        path = describe("methods", name, root).class_path
        if all(component.class_path != path for component, _ in found):
            found.insert(0, _entry("methods", name, root))
    named = []
    for component, fields in found:
        variant = str(fields.get("name") or "")
        if component.name in ("Original", "Retrain") and (variant or fields["init_args"]):
            raise ConfigError(f"{component.name} takes no name and no init_args in a plan; 'training' is its recipe.")
        label = f"{component.name} ({variant})" if variant else component.name
        declared = component.needs, component.precisions, component.shared_importances
        choice = MethodChoice(component.class_path, fields["init_args"], label, component.name, variant, *declared)
        named.append(choice)
    _distinct("methods", [choice.label for choice in named])
    return tuple(named)


def scenarios(value: Any, root: Path | None = None) -> tuple[ScenarioChoice, ...]:
    """The scenarios of a plan with their targets.

    Args:
        value: what the plan says under ``scenarios``.
        root: package folder in which short names are looked up; None is this package.

    Raises:
        ConfigError: if an entry or a target cannot be used or stands twice.
    """
    named = [_scenario(entry, root) for entry in entries(value, "scenarios")]
    _distinct("scenarios", [f"{s.label} {target_text(target)}" for s in named for target in s.targets])
    return tuple(named)


def metrics(value: Any, root: Path | None = None) -> tuple[tuple[Choice, ...] | None, tuple[Choice, ...]]:
    """The metrics of a plan: those that it names (None is all), and those that it adds to all.

    Args:
        value: what the plan says under ``metrics``: nothing, a list, or ``{add: [...]}``.
        root: package folder in which short names are looked up; None is this package.

    Raises:
        ConfigError: if an entry cannot be used or stands twice.
    """
    if isinstance(value, dict) and "class_path" not in value:
        return None, choices("metrics", mapping(value, "metrics", ("add",)).get("add"), root)
    return None if value is None else choices("metrics", value, root), ()


def choices(kind: Kind, value: Any, root: Path | None = None) -> tuple[Choice, ...]:
    """The entries of a list of components.

    Args:
        kind: their kind, which is also the key of the plan.
        value: what the plan says under that key.
        root: package folder in which short names are looked up; None is this package.

    Raises:
        ConfigError: if an entry cannot be used or stands twice.
    """
    found = [_entry(kind, entry, root) for entry in entries(value, kind)]
    named = [Choice(c.class_path, fields["init_args"], str(fields.get("name") or c.name)) for c, fields in found]
    _distinct(kind, [choice.label for choice in named])
    return tuple(named)


def networks(value: Any, root: Path | None = None) -> tuple[NetworkChoice, ...]:
    """The networks of a plan, each with its ``training`` where the plan gives it one.

    Args:
        value: what the plan says under ``models``.
        root: package folder in which short names are looked up; None is this package.

    Raises:
        ConfigError: if an entry cannot be used or stands twice.
    """
    found = [_entry("models", entry, root, ("training",)) for entry in entries(value, "models")]
    named = []
    for component, fields in found:
        recipe = training(fields.get("training"), f"training of {component.name}")
        label = str(fields.get("name") or component.name)
        named.append(NetworkChoice(component.class_path, fields["init_args"], label, recipe))
    _distinct("models", [choice.label for choice in named])
    return tuple(named)


def _scenario(entry: Any, root: Path | None) -> ScenarioChoice:
    component, fields = _entry("scenarios", entry, root, ("targets",))
    targets = entries(fields.get("targets"), f"targets of {component.name}")
    known = component.arguments
    if known is not None and ("dataset" not in known or not {"forget", "fraction"} & set(known)):
        raise ConfigError(f"Scenario {component.name} cannot stand in a plan: it takes no dataset and target.")
    argument = "fraction" if (component.random if known is None else "fraction" in known) else "forget"
    for target in targets:
        _check_target(component.name, target, argument == "fraction")
    return ScenarioChoice(
        component.class_path,
        fields["init_args"],
        str(fields.get("name") or component.name),
        targets=tuple(targets),
        target_argument=argument,
        draws="draw_seed" in (known or ()) and "draw_seed" not in fields["init_args"],
        random=component.random,
    )


def _check_target(scenario: str, target: Any, fraction: bool) -> None:
    items = target if isinstance(target, list) and target and not fraction else [target]
    for item in items:
        right = isinstance(item, int | float) and 0 < item < 1 if fraction else isinstance(item, int | str)
        if not right or isinstance(item, bool):
            wanted = "a fraction inside (0, 1)" if fraction else "a class name, a class index or a list of them"
            raise ConfigError(f"Expected {wanted} as a target of {scenario}, got {target!r}.")


def _distinct(kind: str, labels: list[str]) -> None:
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ConfigError(f"'{twice[0]}' stands twice in {kind}; give each entry a 'name' of its own.")


def _entry(
    kind: Kind, entry: Any, root: Path | None, further: tuple[str, ...] = ()
) -> tuple[Component, dict[str, Any]]:
    """The component that an entry names, and the entry as a mapping."""
    if isinstance(entry, str):
        entry = {"class_path": entry}
    fields = mapping(entry, kind, ("class_path", "init_args", "name", *further))
    if not isinstance(fields.get("class_path"), str):
        raise ConfigError(f"Expected a class name or a mapping with class_path in {kind}, got {entry!r:.80}.")
    if kind == "models":
        fields = _network(fields)
    component = describe(kind, fields["class_path"], root)
    given = _GIVEN_BY_THE_RUN[kind]
    known = None if component.arguments is None else [name for name in component.arguments if name not in given]
    fields["init_args"] = mapping(fields.get("init_args"), f"init_args of {component.name}", known)
    taken = [name for name in fields["init_args"] if name in given]
    if taken:
        raise ConfigError(f"Leave '{taken[0]}' out of the init_args of {component.name}; the run gives it.")
    return component, fields


def _network(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a network; a HuggingFace checkpoint is named by its last part."""
    name = str(fields["class_path"])
    arguments = mapping(fields.get("init_args"), f"init_args of {name}")
    class_path, arguments = written_out(name, arguments)
    label = {} if class_path == name else {"name": fields.get("name") or Path(name).name}
    return {**fields, **label, "class_path": class_path, "init_args": arguments}


def target_text(target: Any) -> str:
    """A forget target as records show it.

    Example:
        >>> target_text([3, 8]), target_text(0.05)
        ('3+8', '0.05')
    """
    return "+".join(map(str, target)) if isinstance(target, list) else str(target)
