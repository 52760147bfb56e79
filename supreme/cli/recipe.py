"""The recipe of a network on a dataset, taken where a command line names the network and no recipe."""

from collections.abc import Sequence

from supreme.cli.words import component_of, mentioned, value_of
from supreme.errors import SupremeError
from supreme.experiment.recipes import GROUP, recipe_for

DATASET = "Digits"


def with_recipe(command: str, words: Sequence[str]) -> tuple[list[str], str]:
    """The words, with the configuration file of a recipe before them, and what to tell the user about it.

    What the words say themselves wins over the file. M_o that is given is not trained, so it needs no recipe.

    Args:
        command: the command.
        words: the words after it.

    Example:
        >>> with_recipe("fit", ["--network", "ViT"])[0]
        ['--config=configs/recipe/ViT.yaml', '--network', 'ViT']
        >>> with_recipe("fit", ["--network", "ResNet18"])[0]
        ['--network', 'ResNet18']
    """
    keys = mentioned(words)
    given = "model.recipe" in keys or (command == "unlearn" and value_of(words, "original") is not None)
    if command not in ("fit", "unlearn") or "network" not in keys or given:
        return list(words), ""
    try:
        network = component_of(words, "network")
        name = recipe_for(network, component_of(words, "data.dataset") or DATASET) if network else None
    except SupremeError:  # the command line says so in its own place
        name = None
    if name is None:
        return list(words), ""
    file = f"configs/{GROUP}/{name}.yaml"
    return [f"--config={file}", *words], f"Recipe: {file}; what the command line says itself comes before it"
