"""What the words of a command line mention, and the names in it written out for the parser."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from supreme.cli.shipped import shipped_file
from supreme.components import Component, Kind, describe, listing, load, resolve
from supreme.errors import ConfigError, nearest
from supreme.models.names import HUGGING_FACE, checkpoint_of, written_out

# options that take a component -> its kind
COMPONENTS: Mapping[str, Kind] = {
    "method": "methods",
    "data": "scenarios",
    "data.dataset": "datasets",
    "network": "models",
}
NETWORK = "ResNet18"
# what would say a second time what is given once for the whole command -> how it is given
ONCE: Mapping[str, str] = {
    "model.seed": "--seed_everything",
    "method.seed": "--seed_everything",
    "model.network": "--network",
}
_GIVEN = ("original", "seed", "num_classes")  # the command gives these
_CONFIG = ("config", "c")


def check(words: Sequence[str]) -> None:
    """Refuse what is wrong without a doubt; nothing is imported for that.

    Args:
        words: the words after the command.

    Raises:
        UnknownNameError: if a component is neither known nor the dotted path of something.
        ConfigError: if a component has no such argument, a configuration file is missing or no YAML, or something is
            given in a second way.

    Example:
        >>> check(["--method", "SSD", "--method.selecton_weight", "2"])
        Traceback (most recent call last):
        supreme.errors.ConfigError: SSD has no argument 'selecton_weight'; did you mean 'selection_weight'?
    """
    for key in mentioned(words) & set(ONCE):
        raise ConfigError(f"Leave --{key} out: it is given once for all, as {ONCE[key]}.")
    chosen: dict[str, Component] = {}
    words = checkpoints_written_out(words)
    for option in _options(words):
        key = option.key.removesuffix(".help")
        if key in COMPONENTS and _is_name(option.value) and option.value not in _unlisted(COMPONENTS[key]):
            chosen[key] = describe(COMPONENTS[key], option.value)
    for option in _options(words):
        owner, _, argument = option.key.rpartition(".")
        known = chosen[owner].arguments if owner in chosen else None
        if known is not None and argument not in ("help", *known):
            raise ConfigError(no_argument(chosen[owner].name, argument, known))


def no_argument(owner: str, argument: str, known: Sequence[str]) -> str:
    """That a class has no such argument, with the nearest ones.

    Args:
        owner: name of the class.
        argument: what was written.
        known: what it takes.
    """
    shown = [name for name in known if name not in _GIVEN]
    near = nearest(argument, shown)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it takes {', '.join(shown) or 'none'}."
    return f"{owner} has no argument '{argument}'; {hint}"


def write_out(words: Sequence[str]) -> list[str]:
    """The words with short names as dotted paths, shipped configuration files as paths, and the network's default.

    Args:
        words: the words after the command.

    Raises:
        UnknownNameError: if a component is neither known nor the dotted path of something.
        ConfigError: if the module of a dotted path cannot be imported.

    Example:
        >>> write_out(["--method", "FT", "--method.lr=0.1"])
        ['--method', 'supreme.methods.fine_tune.FineTune', '--method.lr=0.1']
    """
    words = checkpoints_written_out(words)
    written = list(words)
    for option in _options(words):
        if option.place is None:
            continue
        key = option.key.removesuffix(".help")
        value = option.value
        if key in COMPONENTS and _is_name(value):
            value = _dotted(COMPONENTS[key], value)
        elif option.key in _CONFIG:
            file = value if Path(value).is_file() else str(shipped_file(value) or value)
            value = _with_network(_read(value)) or file
        written[option.place] = f"{option.head}{value}"
    keys = mentioned(words)
    if "network" not in keys and any(key.startswith("network.") for key in keys):
        written.insert(0, f"--network={resolve('models', NETWORK)}")
    return written


def checkpoints_written_out(words: Sequence[str]) -> list[str]:
    """The words with a network that is named by a HuggingFace checkpoint as ``HuggingFace`` and its argument.

    Args:
        words: the words after the command.

    Raises:
        ConfigError: if a network is named by a path that leads nowhere.

    Example:
        >>> checkpoints_written_out(["--network", "microsoft/resnet-50"])[1:]
        ['supreme.models.hugging_face.HuggingFace', '--network.checkpoint=microsoft/resnet-50']
    """
    written = list(words)
    for option in reversed(list(_options(words))):
        plain = option.key == "network" and option.place is not None and not Path(option.value).is_file()
        checkpoint = checkpoint_of(option.value) if plain and not option.value.startswith(("{", "[")) else None
        if option.place is not None and checkpoint is not None:
            replaced = [f"{option.head}{HUGGING_FACE}", f"--network.checkpoint={checkpoint}"]
            written[option.place : option.place + 1] = replaced
    return written


def _with_network(content: Any) -> str | None:
    """A configuration as JSON with its network written out; None where the parser knows the name, or there is none."""
    network = content.get("network") if isinstance(content, Mapping) else None
    fields = network if isinstance(network, Mapping) else {"class_path": network}
    name = fields.get("class_path")
    if not isinstance(name, str) or name in [component.name for component in listing("models")]:
        return None
    class_path, arguments = written_out(name, fields.get("init_args") or {})
    path = _dotted("models", class_path)
    if path == name:
        return None
    return json.dumps({**content, "network": {"class_path": path, "init_args": arguments}})


def component_of(words: Sequence[str], key: str) -> str | None:
    """Class name of the component that an option, or else the last configuration file, names; None without one.

    Args:
        words: the words after the command.
        key: the option, for example ``"data.dataset"``.

    Raises:
        UnknownNameError: if there is no such component.

    Example:
        >>> component_of(["--network", "google/vit-base-patch16-224"], "network")
        'HuggingFace'
    """
    options = [option for option in _options(words) if option.place is not None]
    said = [option.value for option in options if option.key == key]
    files = [_name_in(_read(option.value), key) for option in options if option.key in _CONFIG]
    name = next((name for name in reversed([*files, *said]) if name is not None), None)
    if name is None or name.startswith("{"):
        return None
    return resolve(COMPONENTS[key], written_out(name, {})[0]).rpartition(".")[2]


def _name_in(content: Any, key: str) -> str | None:
    """The class that a configuration names under a key, whether or not it writes ``init_args`` out."""
    for part in key.split("."):
        above = content if isinstance(content, Mapping) else {}
        content = above.get(part) or (above.get("init_args") or {}).get(part)
    name = content.get("class_path") if isinstance(content, Mapping) else content
    return name if isinstance(name, str) else None


def _dotted(kind: Kind, name: str) -> str:
    """The dotted path of a component, also of one that the list leaves out."""
    path = f"supreme.{kind}.{name}" if name in _unlisted(kind) else resolve(kind, name)
    found = load(path)
    if kind == "models" and inspect.isfunction(found):
        # The parser takes functions only that say that a module comes back; `build` checks what does.
        found.__annotations__.setdefault("return", import_module("torch.nn").Module)
    return path


def _unlisted(kind: Kind) -> set[str]:
    """Public names of a kind's package that are no components to choose from, such as WholeDataset."""
    names: set[str] = set(import_module(f"supreme.{kind}").__all__)
    return names - {component.name for component in listing(kind)}


def mentioned(words: Sequence[str]) -> set[str]:
    """Keys that the words or the configuration files in them mention, without ``init_args``.

    Args:
        words: the words after the command.

    Raises:
        ConfigError: if a configuration file is missing or is no YAML.

    Example:
        >>> sorted(mentioned(["--method", "SSD", "--method.init_args.seed=3"]))
        ['method', 'method.seed']
    """
    found = set()
    for option in _options(words):
        found.add(option.key)
        if option.key in _CONFIG and option.place is not None:
            found |= set(_keys(_read(option.value)))
    return found


def value_of(words: Sequence[str], key: str) -> str | None:
    """What an option is set to, the last one wins; else what the last configuration file says.

    Args:
        words: the words after the command.
        key: an option without dots.

    Example:
        >>> value_of(["--unlearned", "a", "--unlearned=b"], "unlearned")
        'b'
    """
    said = [option.value for option in _options(words) if option.key == key and option.place is not None]
    files = [_read(option.value) for option in _options(words) if option.key in _CONFIG and option.place is not None]
    read = [content[key] for content in files if isinstance(content, Mapping) and content.get(key) is not None]
    found = said or read
    return str(found[-1]) if found else None


def unknown_options(words: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Options that are neither known nor below a known one.

    Args:
        words: the words after the command.
        known: keys of all options.
    """
    for option in _options(words):
        parts = option.name.removesuffix("+").split(".")
        if not any(".".join(parts[:count]) in known for count in range(1, len(parts) + 1)):
            yield option.name


class _Option:
    """One option of a command line.

    Attributes:
        name: as written, without dashes.
        key: the same without ``init_args`` and ``+``.
        place: position of the word that holds the value, None without a value.
        head: what stands before the value in that word.
        value: the value as text.
    """

    def __init__(self, words: Sequence[str], number: int) -> None:
        head, equals, value = words[number].partition("=")
        self.name = head.lstrip("-")
        self.key = _plain(self.name)
        self.place: int | None = None
        self.head, self.value = "", ""
        if equals:
            self.place, self.head, self.value = number, f"{head}=", value
        elif number + 1 < len(words) and not words[number + 1].startswith("--"):
            self.place, self.value = number + 1, words[number + 1]


def _options(words: Sequence[str]) -> Iterator[_Option]:
    for number, word in enumerate(words):
        if word.startswith("--") or word.partition("=")[0] == "-c":
            yield _Option(words, number)


def _plain(name: str) -> str:
    return ".".join(part for part in name.removesuffix("+").split(".") if part not in ("init_args", "class_path"))


def _is_name(value: str) -> bool:
    """Whether a value is a name, and no mapping, file or null."""
    return value.replace(".", "").isidentifier() and value != "null" and not Path(value).is_file()


def _read(file: str) -> Any:
    """Content of a configuration file."""
    path = Path(file) if Path(file).is_file() else shipped_file(file)
    if path is None:
        raise ConfigError(f"There is no configuration file '{file}'; give the path of a YAML file.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise ConfigError(f"'{file}'{line} is not valid YAML: {error.problem}; correct the file.") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the configuration file '{file}': {error}.") from error


def _keys(content: Any, above: str = "") -> Iterator[str]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            key = _plain(f"{above}.{name}" if above else str(name))
            if value is not None:
                yield key
                yield from _keys(value, key)
