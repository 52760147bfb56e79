"""Presets: the settings that the papers use for a dataset, a network and a scenario, picked where nothing else is said.

A preset is a shipped fragment ``configs/method/<method>.<for>.<for>.yaml`` whose name lists the classes that it is for:
``ssd.PinsFaceRecognition.FullClass.yaml`` holds in full-class scenarios on that dataset, with any network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from supreme.experiment.plan_file import config_folders, mapping, read_plan_file


@dataclass(frozen=True, eq=False)
class Preset:
    """Settings of a method.

    Attributes:
        name: name of the fragment, without its ending.
        method: class name of the method.
        conditions: class names that have to be those of dataset, network or scenario.
        init_args: the settings.
    """

    name: str
    method: str
    conditions: tuple[str, ...]
    init_args: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The preset in words."""
        settings = ", ".join(f"{name} {value}" for name, value in self.init_args.items())
        return f"{self.method} for {' and '.join(self.conditions)}: {settings} (configs/method/{self.name}.yaml)"


@lru_cache(maxsize=1)
def presets() -> tuple[Preset, ...]:
    """All presets of this package, the most special first; every call gives the same objects.

    Example:
        >>> presets()[0].conditions
        ('CIFAR20', 'FullClass')
    """
    found = {}
    for folder in config_folders():
        for file in sorted((folder / "method").glob("*.*.yaml")):
            method = mapping(read_plan_file(file)["method"], str(file))
            conditions = tuple(file.stem.split(".")[1:])
            found[file.stem] = Preset(file.stem, method["class_path"], conditions, method["init_args"])
    return tuple(sorted(found.values(), key=lambda one: -len(one.conditions)))


def preset(method: str, dataset: str, model: str, scenario: str) -> Preset | None:
    """The preset for a method in one place, None where the method's own defaults hold.

    Args:
        method: class name.
        dataset: class name.
        model: class or function name.
        scenario: class name.

    Example:
        >>> dict(preset("LFSSD", "Digits", "ResNet18", "RandomSample").init_args)
        {'selection_weight': 3.5}
        >>> preset("LFSSD", "Digits", "ResNet18", "FullClass") is None
        True
    """
    place = {dataset, model, scenario}
    return next((one for one in presets() if one.method == method and place.issuperset(one.conditions)), None)
