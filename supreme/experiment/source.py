"""Hash of the code that a result depends on, so that a changed component is computed again.

The hash covers a component's file and every file of its own package and of supreme that this file imports, directly or
through others. It is taken over the syntax trees without docstrings: comments, layout and documentation do not count.
Nothing is imported: imports are read from the files.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from supreme.syntax import locate, read_tree

SUPREME = "supreme"
WITHOUT_INFLUENCE = frozenset({"supreme", "supreme.errors", "supreme.components", "supreme.syntax"})


class _File(NamedTuple):
    """What one file contributes: the digest of its code, the modules it may import, and a lazy package's names."""

    digest: str
    imports: tuple[tuple[str, tuple[str, ...]], ...]
    lazy_names: dict[str, str] | None


class Sources:
    """Hashes of code, as the files are now: what it has read once it does not read again.

    Example:
        >>> sources = Sources()
        >>> sources.hash(["supreme.batch"]) == sources.hash(["supreme.batch.Batch"])
        True
    """

    def __init__(self) -> None:
        self._paths: dict[str, Path | None] = {}
        self._targets: dict[tuple[str, str], tuple[str, ...]] = {}

    def hash(self, names: Iterable[str]) -> str:
        """First 16 hex digits of a SHA-256 over the code behind modules or dotted paths of classes.

        Args:
            names: ``"supreme.methods.ssd.SSD"`` or ``"supreme.evaluation"``; one whose file is not found counts by
                its name.
        """
        digests: dict[str, str] = {}
        for name in names:
            files = self.files(name)
            digests.update({module: _read(path, module).digest for module, path in files.items()} or {name: "absent"})
        text = "\n".join(f"{module} {digest}" for module, digest in sorted(digests.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def files(self, name: str) -> dict[str, Path]:
        """Modules and files that a result depends on through one name, itself first.

        Args:
            name: a module or the dotted path of a class.
        """
        parts = name.split(".")
        candidates = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        queue = [next((candidate for candidate in candidates if self._path(candidate)), name)]
        family = queue[0].partition(".")[0]
        found: dict[str, Path] = {}
        while queue:
            module = queue.pop(0)
            path = self._path(module)
            if path is not None and module not in found and (not found or module not in WITHOUT_INFLUENCE):
                found[module] = path
                queue += self._reached(module, path, family)
        return found

    def _path(self, module: str) -> Path | None:
        if module not in self._paths:
            self._paths[module] = locate(module)
        return self._paths[module]

    def _reached(self, module: str, path: Path, family: str) -> tuple[str, ...]:
        """Modules of the family, and of supreme, that a file imports."""
        if (module, family) not in self._targets:
            imports = [
                (m, names) for m, names in _read(path, module).imports if m.partition(".")[0] in (SUPREME, family)
            ]
            reached = [target for source, names in imports for target in self._imported(source, names)]
            self._targets[module, family] = tuple(dict.fromkeys(reached))
        return self._targets[module, family]

    def _imported(self, module: str, names: tuple[str, ...]) -> Iterator[str]:
        """Modules behind ``from module import names``; lazy packages are followed to the files of the names."""
        path = self._path(module)
        lazy_names = None if path is None else _read(path, module).lazy_names
        if lazy_names is None:
            yield module
        for name in names:
            inside = (lazy_names or {}).get(name) or name
            if self._path(f"{module}.{inside}") is not None:
                yield f"{module}.{inside}"


def _read(path: Path, module: str) -> _File:
    stat = path.stat()
    return _read_version(path, module, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _read_version(path: Path, module: str, _changed: int, _size: int) -> _File:
    tree = read_tree(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    relevant = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom | ast.Call)]
    shape: list[str] = []
    _shape(tree, shape)
    digest = hashlib.sha256("".join(shape).encode()).hexdigest()
    return _File(digest, tuple(_imports(relevant, package)), _lazy_names(relevant))


def _imports(nodes: Iterable[ast.AST], package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module, tuple(alias.name for alias in node.names)


def _lazy_names(nodes: Iterable[ast.AST]) -> dict[str, str] | None:
    """Name -> module of a package whose names are imported lazily by :func:`supreme.components.lazy`."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy":
            return {
                str(key.value): str(value.value)
                for mapping in node.args
                if isinstance(mapping, ast.Dict)
                for key, value in zip(mapping.keys, mapping.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
    return None


def _shape(node: ast.AST, parts: list[str]) -> None:
    """Text of a syntax tree without docstrings and positions; empty fields are left out, as Python versions differ."""
    parts.append(f"{type(node).__name__}(")
    for name, value in ast.iter_fields(node):
        items = _without_docstring(node, value) if isinstance(value, list) else [value]
        if value is None or not items:
            continue
        parts.append(f"{name}=")
        for item in items:
            if isinstance(item, ast.AST):
                _shape(item, parts)
            else:
                parts.append(f"{item!r},")
    parts.append(")")


def _without_docstring(node: ast.AST, body: list[ast.AST]) -> list[ast.AST]:
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return body[1:]
    return body
