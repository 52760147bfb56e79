"""Plan files: read strictly, so that a slip is found before any work starts."""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from supreme.errors import ConfigError, UnknownNameError, nearest
from supreme.experiment.stage import digest

FOLDER = "configs"


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads ``1e-3`` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.MarkedYAMLError(problem=f"key '{twice[0]}' is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_INTEGER = "tag:yaml.org,2002:int"
_Loader.yaml_implicit_resolvers = {
    first: [
        *(item for item in resolvers if item[0] == _INTEGER),
        *((tag, _FLOAT if tag.endswith(":float") else pattern) for tag, pattern in resolvers if tag != _INTEGER),
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_plan_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: if the file is missing, is no YAML, gives a key twice or holds no mapping of plain values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"Plan '{path}'{place} is not valid YAML: {exc.problem}; correct the file.") from exc
    except (OSError, ValueError, yaml.YAMLError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigError(f"Cannot read the plan '{path}': {reason}; give the path of a YAML file.") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"Expected keys such as 'datasets' and 'methods' in the plan '{path}', got {content!r:.60}.")
    try:
        json.dumps(content)
    except (TypeError, ValueError) as exc:
        raise ConfigError(
            f"Expected numbers, texts, lists and mappings in the plan '{path}': {exc}; put other values in quotes."
        ) from exc
    return content


def plan_hash(content: Mapping[str, Any], name: str) -> str:
    """16 hex digits of what a plan says; comments, layout and the order of its keys do not count.

    Args:
        content: the mapping in the plan's file.
        name: name of the plan, which that of the file gives where the content does not.

    Example:
        >>> plan_hash({"seeds": [1], "threads": 2}, "a") == plan_hash({"name": "a", "threads": 2, "seeds": [1]}, "a")
        True
    """
    return digest({**content, "name": name})


def config_folders() -> Iterator[Path]:
    """Where shipped plans and fragments are: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("supreme")))
    for folder in (package / FOLDER, package.parent / FOLDER):
        if folder.is_dir() and (folder / "quickstart.yaml").is_file():
            yield folder


def mapping(value: Any, where: str, allowed: Iterable[str] | None = None) -> dict[str, Any]:
    """A mapping whose keys are known; None counts as an empty one.

    Args:
        value: what the file says.
        where: which part of the plan, for the message.
        allowed: known keys; None allows any text.

    Raises:
        UnknownNameError: if a key is unknown.
        ConfigError: if it is no mapping of texts.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"Expected a mapping of names to values in {where}, got {value!r:.80}.")
    known = list(value if allowed is None else allowed)
    for key in value:
        if key not in known:
            raise UnknownNameError(f"key in {where}:", key, known, _all(key, known))
    return dict(value)


def entries(value: Any, where: str) -> list[Any]:
    """A list with at least one item.

    Raises:
        ConfigError: if it is not.
    """
    if not isinstance(value, list) or not value:
        raise ConfigError(f"Expected a list with at least one item in {where}, got {value!r:.80}.")
    return value


def integer(value: Any, where: str, least: int) -> int:
    """A whole number that is not too small.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"Expected a whole number >= {least} in {where}, got {value!r}.")
    return value


def _all(key: str, known: list[str]) -> str:
    """The short list of known keys after a near one was named."""
    return f"Known: {', '.join(known)}." if nearest(key, known) else ""
