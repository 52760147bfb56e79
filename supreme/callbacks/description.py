"""Objects in plain words: class path and arguments, for records that anyone can read without our code."""

import dataclasses
import enum
import functools
import hashlib
import inspect
import math
import os
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch


def describe(value: Any) -> dict[str, Any]:
    """Class path and arguments of an object, in the form that a configuration file has.

    Arguments come from ``config()`` where the object has it; else from the attributes that carry the names of the
    constructor's arguments, and Lightning's saved hyper-parameters over them. Arguments that left no trace are absent.

    Args:
        value: any object, usually a LightningModule, a data module or a dataset.

    Returns:
        ``{"class_path": ..., "init_args": {...}}`` of JSON types.

    Example:
        >>> layer = torch.nn.Dropout(p=0.25)
        >>> describe(layer)
        {'class_path': 'torch.nn.modules.dropout.Dropout', 'init_args': {'p': 0.25, 'inplace': False}}
    """
    kind = type(value)
    if callable(getattr(value, "config", None)):
        arguments = dict(value.config())
    else:
        attributes = {**getattr(value, "__dict__", {}), **getattr(value, "_modules", {})}
        private = {name: attributes[f"_{name}"] for name in _names(kind) if f"_{name}" in attributes}
        public = {name: attributes[name] for name in _names(kind) if name in attributes}
        saved = dict(getattr(value, "hparams", None) or {})
        arguments = {**private, **public, **{key: item for key, item in saved.items() if key[:1] != "_"}}
    return {"class_path": _path(kind), "init_args": plain(arguments)}


def plain(value: Any) -> Any:
    """The same in JSON types; arrays become a checksum and unknown objects their class path.

    Example:
        >>> plain({"lr": 0.1, "betas": (0.9, float("inf")), "dtype": torch.float32})
        {'lr': 0.1, 'betas': [0.9, 'inf'], 'dtype': 'torch.float32'}
    """
    if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, (list, tuple, range)):
        return [plain(item) for item in value]
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _array(value)
    return _object(value)


def _object(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return plain(value.value) if isinstance(value.value, bool | int | float | str) else value.name
    if isinstance(value, (os.PathLike, torch.dtype, torch.device)):
        return str(value)
    if isinstance(value, functools.partial):
        return {"class_path": _path(value.func), "init_args": plain(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class_path": _path(type(value)), "init_args": plain(fields)}
    if isinstance(value, type) or inspect.isroutine(value):
        return _path(value)
    spec = getattr(value, "spec", None)
    if dataclasses.is_dataclass(spec):
        return _object(spec)
    return describe(value) if callable(getattr(value, "config", None)) else {"class_path": _path(type(value))}


def _array(value: Any) -> Any:
    """A single number as it is, else type, shape and checksum."""
    if isinstance(value, np.generic) or value.ndim == 0:
        return plain(value.item())
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().view(torch.uint8).numpy()
    else:
        raw = np.ascontiguousarray(value)
    return {
        "class_path": _path(type(value)),
        "dtype": str(value.dtype),
        "shape": list(value.shape),
        "sha256": hashlib.sha256(raw.tobytes()).hexdigest()[:16],
    }


def _path(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _names(kind: type) -> list[str]:
    """Names of the constructor's arguments, through ``**kwargs`` up to the class that takes no more."""
    names: list[str] = []
    for owner in kind.__mro__:
        if owner is object or not inspect.isfunction(vars(owner).get("__init__")):
            continue
        arguments = list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        names += [item.name for item in arguments if item.kind not in open_ended]
        if not any(item.kind in open_ended for item in arguments):
            break
    return list(dict.fromkeys(names))
