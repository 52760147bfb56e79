"""Components: which methods, metrics, scenarios, datasets and models exist, found without importing any of them.

A component is a public class in its kind's folder (for models also a function), found by reading the files' syntax
trees: nothing is registered and nothing is imported. A component is named by its class name, by an alias or by its
dotted path; a dotted path may lead to any installed package. Packages that announce a module in the entry-point group
``supreme.plugins`` are read in the same way, after which their short names work as well.

A class is a component of a kind when its name is public, its file is not ``base.py``, it derives from the kind's base
class and it is not abstract: it neither names ``ABC`` as a base nor has abstract methods, and a class that other
classes of its folder derive from counts only when it states its own ``paper``. A scenario takes ``dataset`` and
``forget`` or ``fraction``. A model is a function that is named like a class and takes ``num_classes``, or a class that
takes ``num_classes`` and states ``paper``.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from supreme.errors import ConfigError, UnknownNameError
from supreme.syntax import Definition, bound_names, definitions, locate

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = Literal["methods", "metrics", "scenarios", "datasets", "models"]

KINDS: tuple[Kind, ...] = ("methods", "metrics", "scenarios", "datasets", "models")
PLUGIN_GROUP = "supreme.plugins"
_BASES: Mapping[Kind, frozenset[str]] = {
    "methods": frozenset({"UnlearningMethod"}),
    "metrics": frozenset({"EvaluationMetric"}),
    "scenarios": frozenset({"Scenario"}),
    "datasets": frozenset({"ImageDataset"}),
    "models": frozenset(),
}
_PACKAGE = Path(__file__).resolve().parent
# Packages whose functions go by their short names too -> arguments that mark those that are meant.
_ELSEWHERE: Mapping[Kind, tuple[str, frozenset[str]]] = {
    "models": ("torchvision.models", frozenset({"weights", "progress"}))
}


@dataclass(frozen=True)
class Component:
    """What a component's file says about it.

    Attributes:
        kind: the kind, for example ``"methods"``.
        name: short name: the name of its class or function.
        class_path: dotted path that imports it.
        summary: first line of its docstring.
        paper: authors, year and arXiv number, "" if none.
        needs: what it cannot work without, in the words of its kind.
        precisions: kinds of precision in which a method works; empty where its file does not tell.
        aliases: further short names.
        arguments: names that its constructor takes, None when its file does not tell them all.
        plugin: entry point that announced it, "" for a component of this package.
        random: whether a scenario draws the samples to forget at random.
        shared_importances: which importances of D a method can take over; see
            :attr:`supreme.methods.base.UnlearningMethod.shared_importances`. Empty where its own class says nothing.
    """

    kind: Kind
    name: str
    class_path: str
    summary: str = ""
    paper: str = ""
    needs: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    arguments: tuple[str, ...] | None = None
    plugin: str = ""
    random: bool = False
    shared_importances: Mapping[str, Any] = field(default_factory=dict, hash=False)


def lazy(module_name: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make a package import its names when they are first used (PEP 562).

    Args:
        module_name: ``__name__`` of the package.
        names: public name -> module that defines it, relative to the package; "" for a name that is a module itself.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.

    Example:
        >>> __getattr__, __dir__, __all__ = lazy("supreme", {"ConfigError": "errors", "errors": ""})
        >>> __getattr__("ConfigError").__name__
        'ConfigError'
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module_name!r} has no attribute {name!r}")
        source = names[name]
        module = importlib.import_module(f"{module_name}.{source or name}")
        value = getattr(module, name) if source else module
        setattr(sys.modules[module_name], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[module_name]), *names}), sorted(names)


def listing(kind: Kind, root: Path | None = None, plugins: bool = True) -> list[Component]:
    """All components of a kind: those of this package by name, then those of plug-ins.

    Args:
        kind: ``"methods"``, ``"metrics"``, ``"scenarios"``, ``"datasets"`` or ``"models"``.
        root: package folder that holds the kinds' folders; None is this package.
        plugins: whether to look at installed plug-ins as well.

    Raises:
        UnknownNameError: if there is no such kind.

    Example:
        >>> "ResNet18" in [component.name for component in listing("models")]
        True
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of component", kind, KINDS)
    own = _folder(kind, root)
    found = _components(kind, own, {})
    for entry in _entry_points(tuple(sys.path)) if plugins else ():
        try:
            announced = list(_plugin_definitions(entry.value.partition(":")[0].strip()))
        except (OSError, SyntaxError, ValueError) as exc:
            warnings.warn(f"Plug-in '{entry.name}' is not listed: {exc}", stacklevel=2)
            continue
        found += [replace(component, plugin=entry.name) for component in _components(kind, announced, _by_name(own))]
    return found


def resolve(kind: Kind, name: str, root: Path | None = None) -> str:
    """Dotted path of a component that is named by class name, alias or dotted path.

    Args:
        kind: its kind.
        name: ``"FineTune"``, ``"FT"`` or ``"my_pkg.MyMethod"``; an unlisted dotted path is returned as it is.
        root: package folder that holds the kinds' folders; None is this package.

    Raises:
        UnknownNameError: if the name is neither known nor a dotted path.
    """
    known = listing(kind, root)
    short = name.removeprefix(f"{(root or _PACKAGE).name}.{kind}.")
    for component in known:
        if short in (component.name, *component.aliases):
            return component.class_path
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        return name
    further = elsewhere(kind)
    if name in further:
        return further[name]
    names = [word for component in known for word in (component.name, *component.aliases)]
    same = {word.lower() for word in names}  # torchvision's resnet18 must not hide our ResNet18 among the near names
    names += [word for word in further if word not in same]
    raise UnknownNameError(kind.removesuffix("s"), name, names, f"'supreme list {kind}' shows all of them.")


@lru_cache(maxsize=len(KINDS))
def elsewhere(kind: Kind) -> dict[str, str]:
    """Functions of other installed packages that go by their short names: name -> dotted path.

    Args:
        kind: the kind; only networks have such functions.

    Example:
        >>> elsewhere("models")["resnet50"]
        'torchvision.models.resnet50'
    """
    package, marks = _ELSEWHERE.get(kind, ("", frozenset[str]()))
    file = locate(package) if package else None
    files = sorted(file.parent.glob("*.py")) if file else []
    found = [d for path in files for d in definitions(path, package) if not d.is_class and d.name[0] != "_"]
    return {d.name: d.path for d in found if marks <= set(d.arguments or ())}


def describe(kind: Kind, name: str, root: Path | None = None) -> Component:
    """What is known of a component without importing it, also when only a dotted path names it.

    Args:
        kind: its kind.
        name: class name, alias or dotted path.
        root: package folder that holds the kinds' folders; None is this package.

    Raises:
        UnknownNameError: if the name is unknown, or the module of the dotted path has no such name.
        ConfigError: if the module of the dotted path is not found.
    """
    path = resolve(kind, name, root)
    for component in listing(kind, root):
        if component.class_path == path:
            return component
    module, _, attribute = path.rpartition(".")
    file = locate(module)
    if file is None:
        raise ConfigError(f"Module '{module}' of '{path}' is not found; install it or put its folder on PYTHONPATH.")
    found = _by_name(definitions(file, module))
    if attribute in found:
        return _component(kind, found[attribute], {**_by_name(_folder(kind, root)), **found})
    bound = bound_names(file)
    if bound is not None and attribute not in bound:
        raise UnknownNameError(f"name in module '{module}'", attribute, sorted(bound))
    return Component(kind, attribute, path)


def load(class_path: str) -> Any:
    """Import what a dotted path names.

    Args:
        class_path: ``"package.module.Class"``; ``"package.module:Class"`` works too.

    Raises:
        ConfigError: if a module is missing or fails while it is imported.
        UnknownNameError: if the module has no such name.

    Example:
        >>> load("supreme.errors.ConfigError").__name__
        'ConfigError'
    """
    parts = class_path.replace(":", ".").split(".")
    if len(parts) < 2 or not all(parts):
        raise ConfigError(f"Expected a dotted path such as 'package.module.Class', got '{class_path}'.")
    value, depth = None, len(parts)
    while value is None and depth > 1:
        depth -= 1
        value = _import(".".join(parts[:depth]), class_path)
    if value is None:
        module = ".".join(parts[:-1])
        raise ConfigError(f"Module '{module}' of '{class_path}' is not found; install it or put it on PYTHONPATH.")
    for position, name in enumerate(parts[depth:], depth):
        if not hasattr(value, name):
            public = [word for word in dir(value) if not word.startswith("_")]
            raise UnknownNameError(f"name in '{'.'.join(parts[:position])}'", name, public)
        value = getattr(value, name)
    return value


def _import(module: str, class_path: str) -> Any:
    """The module, or None when it does not exist; a failure inside it is reported."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name and (module == exc.name or module.startswith(exc.name + ".")):
            return None
        raise ConfigError(f"Importing '{class_path}' failed: it needs the module '{exc.name}'; install that.") from exc
    except Exception as exc:
        raise ConfigError(
            f"Importing '{class_path}' failed with {type(exc).__name__}: {exc}; correct module '{module}'."
        ) from exc


def _folder(kind: Kind, root: Path | None) -> list[Definition]:
    """Everything that the files of a kind's folder define."""
    folder = (root or _PACKAGE) / kind
    files = sorted(folder.glob("*.py")) if folder.is_dir() else []
    return [d for f in files if f.stem != "__init__" for d in definitions(f, f"{folder.parent.name}.{kind}.{f.stem}")]


@lru_cache(maxsize=4)
def _entry_points(_path: tuple[str, ...]) -> "list[EntryPoint]":
    """Plug-ins that are installed on the import path; looked up once for each path."""
    from importlib.metadata import entry_points

    return sorted(entry_points(group=PLUGIN_GROUP), key=lambda entry: entry.name)


def _plugin_definitions(module: str) -> Iterator[Definition]:
    """Everything that a plug-in's module, or each module of its package, defines."""
    file = locate(module)
    if file is None:
        raise ConfigError(f"its module '{module}' is not found.")
    yield from definitions(file, module)
    for path in sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else ():
        parts = path.relative_to(file.parent).with_suffix("").parts
        if path.name != "__init__.py" and all(part.isidentifier() for part in parts):
            yield from definitions(path, ".".join((module, *parts)))


def _by_name(found: Iterable[Definition]) -> dict[str, Definition]:
    return {definition.name: definition for definition in found}


def _components(kind: Kind, found: list[Definition], inherited: Mapping[str, Definition]) -> list[Component]:
    """The components among definitions, which may derive from inherited ones."""
    known = {**inherited, **_by_name(found)}
    roots = _BASES[kind] | {d.name for d in known.values() if d.in_base and d.is_class and d.bases}
    parents = {base for definition in found for base in definition.bases}
    chosen = [
        definition
        for definition in found
        if not (definition.name.startswith("_") or definition.in_base or definition.abstract)
        and (_is_model(definition) if kind == "models" else _derives(definition, known, roots))
        and (kind != "scenarios" or _takes_target(_arguments(_ancestry(definition, known))))
        and (definition.name not in parents or "paper" in (definition.literals or {}))
    ]
    return sorted((_component(kind, d, known) for d in chosen), key=lambda component: component.name.lower())


def _is_model(definition: Definition) -> bool:
    if "num_classes" not in (definition.arguments or ()):
        return False
    if definition.is_class:
        return "paper" in (definition.literals or {})
    return definition.name[0].isupper()


def _takes_target(arguments: tuple[str, ...] | None) -> bool:
    """Whether a scenario is built from a dataset and a forget target; one that says less is taken to be."""
    return arguments is None or ("dataset" in arguments and not {"forget", "fraction"}.isdisjoint(arguments))


def _derives(definition: Definition, known: Mapping[str, Definition], roots: frozenset[str]) -> bool:
    return any(roots.intersection(ancestor.bases) for ancestor in _ancestry(definition, known))


def _ancestry(definition: Definition, known: Mapping[str, Definition]) -> list[Definition]:
    """The definition and those that it derives from, as far as they are known, nearest first."""
    found: list[Definition] = []
    queue = [definition]
    while queue:
        current = queue.pop(0)
        if current not in found:
            found.append(current)
            queue += [known[base] for base in current.bases if base in known]
    return found


def _component(kind: Kind, definition: Definition, known: Mapping[str, Definition]) -> Component:
    ancestry = _ancestry(definition, known)
    literals = {name: value for ancestor in reversed(ancestry) for name, value in (ancestor.literals or {}).items()}
    return Component(
        kind=kind,
        name=definition.name,
        class_path=definition.path,
        summary=definition.summary,
        paper=str(literals.get("paper", "")),
        needs=_words(literals.get("needs", ())),
        precisions=_words(literals.get("precisions", ())),
        aliases=_words((definition.literals or {}).get("aliases", ())),
        arguments=_arguments(ancestry),
        random=bool(literals.get("random", False)),
        shared_importances=(definition.literals or {}).get("shared_importances", {}),
    )


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _arguments(ancestry: list[Definition]) -> tuple[str, ...] | None:
    """Constructor arguments, through ``**kwargs`` up to the ancestor that takes no more; None if none does."""
    names: list[str] = []
    for ancestor in ancestry:
        names += ancestor.arguments or ()
        if not ancestor.open_ended:
            return tuple(dict.fromkeys(names))
    return None
