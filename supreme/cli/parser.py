"""The parser of the Trainer's commands: one clear sentence in place of a usage and nested messages."""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from supreme.cli.words import COMPONENTS, no_argument
from supreme.components import Kind, listing, load
from supreme.errors import SupremeError, UnknownNameError

# options that take a class which is no component of ours -> packages that hold such classes
_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "model": ("supreme",),
    "trainer.callbacks": ("supreme.callbacks", "lightning.pytorch.callbacks"),
    "trainer.logger": ("lightning.pytorch.loggers",),
    "trainer.profiler": ("lightning.pytorch.profilers",),
    "trainer.strategy": ("lightning.pytorch.strategies",),
}


class SupremeParser(LightningArgumentParser):
    """A Lightning parser that says in one sentence what is wrong, naming what is near, and ends with exit code 2.

    Args:
        command: the command that it parses, "" for the parser above all commands.
        arguments: as for the Lightning parser.

    Attributes:
        known: keys of all options of the command at hand, for the parser above all commands.
    """

    def __init__(self, *positional: Any, command: str = "", **arguments: Any) -> None:
        super().__init__(*positional, **arguments)
        self.command = command
        self.known: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report an error; parsers of classes inside this one pass it on to this one instead."""
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            super().error(message, ex)
        sys.stderr.write(f"error: {foreseen(ex) or sentence(message, self.known)}\n")
        self.exit(2)


def foreseen(error: BaseException | None) -> SupremeError | None:
    """The error of this package that led to another one, None if there is none.

    Args:
        error: what the parser or the Trainer raised.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, SupremeError):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def sentence(message: str, options: Sequence[str] = ()) -> str:
    """A message of the parser in one sentence.

    Args:
        message: what jsonargparse says, on one or many lines.
        options: keys of all options.

    Example:
        >>> sentence("the following arguments are required: unlearn.method")
        "Missing --method; 'supreme list methods' shows all of them."
        >>> sentence("Subcommand 'fit' does not accept option 'trainer.max_epoch'", ["trainer.max_epochs"])
        "Unknown key 'trainer.max_epoch'; did you mean 'trainer.max_epochs'?"
    """
    key = ".".join(re.findall(r'Parser key "([^"]*)"', message)).replace(".init_args", "")
    for explain in (_required, _unknown_argument, _unknown_class, _wrong_class, _wrong_value):
        text = explain(message, key)
        if text:
            return text
    found = re.search(r"does not accept option '([^']+)'", message)
    if found:
        return str(UnknownNameError("key", found[1].partition(".class_path")[0], options))
    found = re.search(r"unrecognized arguments: (\S+)", message)
    if found:
        return f"Unexpected word '{found[1]}'; an option starts with two dashes."
    return " ".join(re.sub(r'Parser key "config":', "", message).split())


def _required(message: str, key: str) -> str | None:
    found = re.search(r"arguments are required: ([^\s,]+)|[Kk]ey \"(\S+)\" is required", message)
    if not found:
        return None
    name = next(filter(None, found.groups()))
    name = re.sub(r"^(unlearn|evaluate|fit|validate|test|predict)\.", "", name).replace(".init_args", "")
    full = f"{key}.{name}" if key else name
    hint = f"; 'supreme list {COMPONENTS[full]}' shows all of them" if full in COMPONENTS else ""
    return f"Missing --{full}{hint}."


def _unknown_argument(message: str, _key: str) -> str | None:
    found = re.search(r"Option '([^']+)' is not accepted", message)
    owner = re.findall(r"given class_path '([^']+)'", message) or re.findall(r"class_path='([^']+)'", message)
    if not found or not owner:
        return None
    return no_argument(owner[-1].rpartition(".")[2], found[1], _arguments(owner[-1]))


def _unknown_class(message: str, key: str) -> str | None:
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    if not found:
        return None
    kind = COMPONENTS.get(key)
    if kind:
        known = [word for component in listing(kind) for word in (component.name, *component.aliases)]
        return str(UnknownNameError(kind.removesuffix("s"), found[1], known, f"'supreme list {kind}' shows them all."))
    names = [name for package in _PACKAGES.get(key, ()) for name in dir(importlib.import_module(package))]
    classes = [name for name in dict.fromkeys(names) if name[:1].isupper()]
    word = key.rpartition(".")[2].removesuffix("s") or "class"
    return str(UnknownNameError(word, found[1], classes, "A dotted path works too."))


def _wrong_class(message: str, key: str) -> str | None:
    found = re.search(r"does not correspond to a subclass of (\w+)", message)
    value = re.search(r"Given value: (\S+)$", message, flags=re.MULTILINE)
    if not found or not value:
        return None
    return f"Expected {_article(found[1])} for --{key}, got '{value[1]}'; give the name or dotted path of one."


def _wrong_value(message: str, key: str) -> str | None:
    values = re.search(r"Given value: (.*)$|Got value: (.*?)\.?$", message, flags=re.MULTILINE)
    nested = re.search(r"Given value: NestedArg\(.*val='(.*)'\)$", message, flags=re.MULTILINE)
    wanted = list(dict.fromkeys(_wanted(message)))
    if not key or not values or not wanted:
        return None
    value = nested[1] if nested else next(filter(None, values.groups()), "")
    return f"Expected {' or '.join(wanted)} for --{key}, got '{value}'."


def _wanted(message: str) -> Iterator[str]:
    """The types in the innermost complaints, in words."""
    for line in message.splitlines():
        text = line.strip().removeprefix("- ").partition(". Got value")[0]
        found = re.match(r"Expected an? <class '(?:[\w.]*\.)?(\w+)'>", text)
        choice = re.match(r"Expected a typing\.Literal\[(.*)\]", text)
        if choice:
            yield f"one of {choice[1]}"
        elif found and found[1] != "NoneType":
            yield _article(found[1])


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiu' else 'a'} {name}"


def _arguments(class_path: str) -> list[str]:
    """What a class takes, through ``**kwargs`` up to the ancestor that takes no more."""
    try:
        owner = load(class_path)
    except SupremeError:
        return []
    names: list[str] = []
    for step in inspect.getmro(owner) if inspect.isclass(owner) else [owner]:
        parameters = inspect.signature(step).parameters.values()
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(dict.fromkeys(names))


def import_components(kinds: Iterable[Kind]) -> None:
    """Import every component of some kinds, so that configuration files may name them by class name alone.

    Args:
        kinds: which; a plug-in that cannot be imported is left out.
    """
    for component in (component for kind in kinds for component in listing(kind)):
        with suppress(SupremeError) if component.plugin else nullcontext():
            load(component.class_path)
