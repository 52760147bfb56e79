"""What a Python file says without being run: its classes, functions and literal class attributes."""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent
_DECLARED = ("paper", "needs", "precisions", "aliases", "random", "shared_importances")


@dataclass(frozen=True)
class Definition:
    """One top-level class or function of a file, as far as its syntax tells.

    Attributes:
        name: its name.
        module: dotted path of its module.
        is_class: whether it is a class.
        summary: first line of its docstring.
        arguments: names that it (or its own ``__init__``) takes, the fields of a dataclass, else None.
        open_ended: whether further names pass, through ``**kwargs`` or to an inherited ``__init__``.
        bases: last names of a class's bases.
        literals: literal values of the class attributes that components declare.
        abstract: whether a class names ``ABC`` or has abstract methods of its own.
    """

    name: str
    module: str
    is_class: bool
    summary: str
    arguments: tuple[str, ...] | None
    open_ended: bool
    bases: tuple[str, ...] = ()
    literals: Mapping[str, Any] | None = None
    abstract: bool = False

    @property
    def path(self) -> str:
        """Dotted path that imports it."""
        return f"{self.module}.{self.name}"

    @property
    def in_base(self) -> bool:
        """Whether it stands in a file ``base.py``."""
        return self.module.endswith(".base")


def locate(module: str) -> Path | None:
    """File of a module, found without importing its packages; None if there is none.

    Example:
        >>> locate("supreme.errors").name
        'errors.py'
    """
    top, *rest = module.split(".")
    if top == _PACKAGE.name:
        return _below([_PACKAGE], rest)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        return _below([Path(folder) for folder in spec.submodule_search_locations], rest)
    return Path(spec.origin) if not rest and spec.origin and spec.origin.endswith(".py") else None


def _below(folders: list[Path], parts: list[str]) -> Path | None:
    """File of a submodule below package folders (several for a namespace package)."""
    for folder in folders:
        base = folder.joinpath(*parts)
        for file in (base / "__init__.py", base.with_name(base.name + ".py")):
            if file.is_file() and (parts or file.name == "__init__.py"):
                return file
    return None


def read_tree(file: Path) -> ast.Module:
    """Syntax tree of a file.

    Raises:
        SyntaxError: if it is not Python.
    """
    return ast.parse(file.read_bytes(), filename=str(file))


def definitions(file: Path, module: str) -> tuple[Definition, ...]:
    """Top-level classes and functions of a file, kept in memory until the file changes.

    Args:
        file: the file.
        module: dotted path of its module.
    """
    stat = file.stat()
    return _definitions(file, module, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _definitions(file: Path, module: str, _changed: int, _size: int) -> tuple[Definition, ...]:
    return tuple(_read_definitions(read_tree(file), module))


def _read_definitions(tree: ast.Module, module: str) -> Iterator[Definition]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield _read_class(node, module)
        elif isinstance(node, ast.FunctionDef):
            names, open_ended = _argument_names(node, skip=0)
            yield Definition(node.name, module, False, _summary(node), names, open_ended)


def bound_names(file: Path) -> set[str] | None:
    """Names that a module binds; None when it may bind further ones (star import, ``__getattr__``)."""
    names: set[str] = set()
    for node in ast.walk(read_tree(file)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return None if names & {"*", "__getattr__"} else names


def _read_class(node: ast.ClassDef, module: str) -> Definition:
    bases = tuple(_last_name(base) for base in node.bases)
    metaclasses = [_last_name(keyword.value) for keyword in node.keywords if keyword.arg == "metaclass"]
    functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    marks = [_last_name(decorator) for function in functions for decorator in function.decorator_list]
    inits = [_argument_names(function, skip=1) for function in functions if function.name == "__init__"]
    if not inits and "dataclass" in [_last_name(decorator) for decorator in node.decorator_list]:
        inits = [(tuple(_fields(node)), False)]
    names, open_ended = inits[-1] if inits else (None, True)
    literals = {name: value for item in node.body for name, value in _literal(item)}
    abstract = "ABC" in bases or "ABCMeta" in metaclasses or "abstractmethod" in marks
    return Definition(
        node.name, module, True, _summary(node), names, open_ended, bases=bases, literals=literals, abstract=abstract
    )


def _argument_names(node: ast.FunctionDef, skip: int) -> tuple[tuple[str, ...], bool]:
    spec = node.args
    positional = [argument.arg for argument in (*spec.posonlyargs, *spec.args)][skip:]
    return (*positional, *(argument.arg for argument in spec.kwonlyargs)), spec.kwarg is not None


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """Names of a dataclass's fields."""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and _last_name(item.annotation) != "ClassVar":
            yield _last_name(item.target)


def _literal(item: ast.stmt) -> Iterator[tuple[str, Any]]:
    """``name = literal`` or ``name: type = literal``, when the name is one that components declare."""
    if not isinstance(item, ast.AnnAssign | ast.Assign):
        return
    targets: list[ast.expr] = item.targets if isinstance(item, ast.Assign) else [item.target]
    value, name = item.value, _last_name(targets[0])
    if name in _DECLARED and value is not None:
        try:
            yield name, ast.literal_eval(value)
        except ValueError:
            return


def _last_name(node: ast.expr) -> str:
    """``torch.nn.Module`` -> ``Module``; ``Base[int]`` -> ``Base``."""
    if isinstance(node, ast.Subscript):
        return _last_name(node.value)
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _summary(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0].strip()
