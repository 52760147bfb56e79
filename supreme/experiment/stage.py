"""Stages: the units of work of a plan, each addressed by a hash of everything that determines its result.

A run is a chain of stages. ``train`` makes M_o; ``importances`` are those of D in M_o, which several methods need;
``unlearn`` makes M_r (method Retrain) or M_u; ``outputs`` are the logits of M_o on D and D', or of M_r on the parts of
a request; ``evaluate`` gives the metrics of one run. Two runs that need the same thing have stages of the same key, so
it is computed once.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Kind = Literal["train", "importances", "unlearn", "outputs", "evaluate"]

KINDS: tuple[Kind, ...] = ("train", "importances", "unlearn", "outputs", "evaluate")


@dataclass(frozen=True)
class Choice:
    """A class or function and its arguments, as a plan chooses them.

    Attributes:
        class_path: dotted path.
        init_args: arguments, plain values only.
        label: what it is called in records and tables.
    """

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """The choice as plain values, without the label."""
        return {"class_path": self.class_path, "init_args": dict(self.init_args)}


@dataclass(frozen=True, eq=False)
class Stage:
    """One unit of work: what to do, and the stages whose results it reads.

    Two stages are equal when their keys are.

    Attributes:
        kind: one of :data:`KINDS`.
        config: everything that determines the result, as plain values.
        inputs: role -> stage whose result is read.
        label: what it does, for people; not part of the key.

    Example:
        >>> first = Stage("train", {"seed": 260}, label="train")
        >>> second = Stage("unlearn", {"seed": 260}, {"original": first}, "SSD")
        >>> second.inputs["original"] == first, len(second.key)
        (True, 16)
    """

    kind: Kind
    config: Mapping[str, Any]
    inputs: Mapping[str, "Stage"] = field(default_factory=dict)
    label: str = ""

    @cached_property
    def key(self) -> str:
        """16 hex digits: hash of kind, configuration and the keys of the inputs."""
        inputs = {role: stage.key for role, stage in self.inputs.items()}
        return digest({"kind": self.kind, "config": _determining(self.config), "inputs": inputs})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def group(self) -> str:
        """Stages of one group take about the same time; see :func:`group_of`."""
        return group_of(self.kind, self.config, self.inputs)


def group_of(kind: str, config: Mapping[str, Any], roles: Collection[str]) -> str:
    """What a stage does, to which network, on which data; for how many epochs where the recipe says that.

    Args:
        kind: kind of the stage.
        config: its configuration.
        roles: roles of its inputs.

    Example:
        >>> group_of("train", {"network": {"class_path": "supreme.models.ResNet18"}, "training": {"epochs": 5}}, ())
        'train ResNet18 5 epochs'
    """
    names = ("dataset", "network", "method")
    words = [kind, *(config[name]["class_path"].rpartition(".")[2] for name in names if config.get(name))]
    if kind in ("train", "unlearn") and not roles and config.get("training"):
        words.append(f"{config['training'].get('epochs', 20)} epochs")
    return " ".join([*words, *(["again"] if "first" in roles else [])])


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of plain values; the order of mappings does not count.

    Example:
        >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _determining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what cannot change a result: the folder that a dataset is kept in."""
    dataset = config.get("dataset")
    if not dataset or "root" not in dataset["init_args"]:
        return dict(config)
    kept = {name: value for name, value in dataset["init_args"].items() if name != "root"}
    return {**config, "dataset": {**dataset, "init_args": kept}}
