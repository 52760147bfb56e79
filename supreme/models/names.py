"""What the name of a network means: a component, a function of torchvision, or a HuggingFace checkpoint."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supreme.components import listing
from supreme.errors import ConfigError

HUGGING_FACE = "supreme.models.hugging_face.HuggingFace"
_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def checkpoint_of(name: str) -> str | None:
    """The HuggingFace checkpoint that a name of a network means, None if it means something else.

    A folder with a ``config.json`` is a checkpoint, and so is an id of the hub, which is told by its slash. Nothing is
    fetched. The name of a component is never a checkpoint.

    Args:
        name: what the user calls the network.

    Raises:
        ConfigError: if it is a path and no such folder is there, or one without ``config.json``.

    Example:
        >>> checkpoint_of("google/vit-base-patch16-224"), checkpoint_of("resnet50"), checkpoint_of("my_pkg.Net")
        ('google/vit-base-patch16-224', None, None)
    """
    folder = Path(name).expanduser()
    path = "/" in name or "\\" in name
    if folder.is_dir() and (path or not _is_component(name)):
        if (folder / "config.json").is_file():
            return str(folder)
        if path:
            raise ConfigError(f"Expected a HuggingFace checkpoint in '{name}', but the folder holds no config.json.")
    if _HUB_ID.fullmatch(name) and not folder.exists():
        return name
    if path:
        raise ConfigError(f"There is no folder '{name}'; give that of a HuggingFace checkpoint or an id of the hub.")
    return None


def written_out(name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Class path and arguments of a network; other names than those of checkpoints stay as they are.

    Args:
        name: class name, dotted path, folder or id of the hub.
        arguments: its arguments.

    Raises:
        ConfigError: if it is a path that leads nowhere, or the arguments name a checkpoint once more.

    Example:
        >>> written_out("google/vit-base-patch16-224", {"pretrained": False})[1]
        {'checkpoint': 'google/vit-base-patch16-224', 'pretrained': False}
    """
    checkpoint = checkpoint_of(name)
    if checkpoint is None:
        return name, dict(arguments)
    if "checkpoint" in arguments:
        raise ConfigError(f"'{name}' is a checkpoint already; leave the argument 'checkpoint' out.")
    return HUGGING_FACE, {"checkpoint": checkpoint, **arguments}


def _is_component(name: str) -> bool:
    return any(name in (component.name, *component.aliases) for component in listing("models"))
