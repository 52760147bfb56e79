"""Recipes: how a network is trained on a dataset, from shipped fragments, picked where nothing else is said.

A recipe is a fragment ``configs/recipe/<network>.<dataset>.yaml``, or ``<network>.yaml`` for all other datasets. It has
the form that ``supreme fit --config`` and ``supreme unlearn --config`` take; a plan takes its name as ``training``.
M_o and M_r are trained by it alike.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan_file import config_folders, integer, mapping, read_plan_file
from supreme.syntax import definitions, locate

GROUP = "recipe"
EPOCHS, BATCH_SIZE = 20, 64  # where a recipe says nothing
SELECTION = ("validation_fraction", "checkpoint")  # which of a network's passes is kept, and on which images


def recipe_for(network: str, dataset: str) -> str | None:
    """Name of the shipped recipe for a network on a dataset, None if there is none.

    Args:
        network: class name or dotted path.
        dataset: class name or dotted path.

    Example:
        >>> (
        ...     recipe_for("supreme.models.vit.ViT", "CIFAR20"),
        ...     recipe_for("ViT", "Digits"),
        ...     recipe_for("ResNet18", "Digits"),
        ... )
        ('ViT.CIFAR20', 'ViT', None)
    """
    name, kind = network.rpartition(".")[2], dataset.rpartition(".")[2]
    known = {file.stem for file in _files()}
    return next((stem for stem in (f"{name}.{kind}", name) if stem in known), None)


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe as the key ``training`` of a plan takes it: the fields of the recipe, ``epochs`` and ``batch_size``.

    Args:
        name: name of a shipped recipe, with or without ``recipe/`` before and ``.yaml`` after it, or path of a file of
            the same form.

    Raises:
        UnknownNameError: if there is no such recipe; the text names near ones.
        ConfigError: if the file is none.

    Example:
        >>> read_recipe("ResNet18.CIFAR10")["milestones"], read_recipe("recipe/ResNet18.CIFAR10")["epochs"]
        ([8, 12, 16], 20)
    """
    short = name.removeprefix("configs/").removeprefix(f"{GROUP}/").removesuffix(".yaml")
    shipped = {file.stem: file for file in _files()}
    path = Path(name) if Path(name).is_file() else shipped.get(short)
    if path is None:
        raise UnknownNameError("recipe", name, shipped, "The path of a file works too.")
    content = read_plan_file(path)
    try:
        found = dict(content["model"]["init_args"]["recipe"])
        found["epochs"] = content["trainer"]["max_epochs"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"Expected model.init_args.recipe and trainer.max_epochs in the recipe '{path}', as in the shipped ones."
        ) from error
    size = mapping(mapping(content.get("data"), str(path)).get("init_args"), str(path)).get("batch_size")
    return found | ({} if size is None else {"batch_size": size})


def training(value: Any, where: str = "training") -> dict[str, Any]:
    """What a plan says under ``training``, with the recipe that it names written out.

    Args:
        value: the name of a recipe, nothing, or a mapping: the fields of a recipe, ``epochs``, ``batch_size``,
            ``augmentation`` (arguments of Augment in place of the dataset's), ``validation_fraction`` (share of the
            training images that are held out), ``checkpoint`` (``"last"``, or ``"best"`` on those images), and
            ``recipe``, the name of one whose values the others replace.
        where: which part of the plan, for messages.

    Raises:
        ConfigError: if a value cannot be used.
        UnknownNameError: if a key or the recipe is unknown.
    """
    allowed = [*_fields("supreme.classifier", "Recipe"), "epochs", "batch_size", "augmentation", *SELECTION]
    given = mapping({"recipe": value} if isinstance(value, str) else value, where, ["recipe", *allowed])
    base = given.pop("recipe", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"Expected the name of a recipe in {where}, got {base!r:.60}.")
    found = mapping({**(read_recipe(base) if base else {}), **given}, where, allowed)
    if found.get("augmentation") is not None:
        mapping(found["augmentation"], f"{where}.augmentation", _fields("supreme.transforms.augment", "Augment"))
    for key in ("epochs", "batch_size"):
        if key in found:
            integer(found[key], f"{where}.{key}", 1)
    _check_selection(found, where)
    return found


def settled(
    own: Mapping[str, Any], common: Mapping[str, Any], network: str, dataset: str
) -> tuple[dict[str, Any], str | None]:
    """How a network of a plan is trained on a dataset, and the name of the recipe that was picked for it.

    Args:
        own: what the plan says for the network, empty if nothing.
        common: what it says for all networks, empty if nothing.
        network: class name or dotted path.
        dataset: class name or dotted path.
    """
    said = dict(own or common)
    picked = None if said.keys() - set(SELECTION) else recipe_for(network, dataset)
    return said if picked is None else {**read_recipe(picked), **said}, picked


def _check_selection(found: Mapping[str, Any], where: str) -> None:
    """Refuse a share outside (0, 1), an unknown checkpoint, and the best one on nothing."""
    fraction, checkpoint = (found.get(name) for name in SELECTION)
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool) and 0 < fraction < 1
    if fraction is not None and not number:
        raise ConfigError(f"Expected a share inside (0, 1) in {where}.validation_fraction, got {fraction!r:.60}.")
    if checkpoint not in (None, "last", "best"):
        raise ConfigError(f"Expected last or best in {where}.checkpoint, got {checkpoint!r:.60}.")
    if checkpoint == "best" and fraction is None:
        raise ConfigError(f"Expected validation_fraction beside checkpoint: best in {where}; 0.1 holds out 10 %.")


def _fields(module: str, name: str) -> tuple[str, ...]:
    """The fields of a dataclass, read from its file."""
    file = locate(module)
    found = [one.arguments or () for one in definitions(file, module) if one.name == name] if file else []
    if not found:
        raise ConfigError(f"Class {name} of module {module} is not found; install this package again.")
    return found[0]


def _files() -> Iterator[Path]:
    for folder in config_folders():
        yield from sorted((folder / GROUP).glob("*.yaml"))
