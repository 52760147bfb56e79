"""Results of many runs as tables, plots and one page; nothing here imports torch.

``read_records`` -> ``frame`` -> ``tables`` -> ``print_tables``; ``write_report`` does all of it and writes the files.
"""

import importlib
from typing import Any

_HOME = {
    "read_records": "records",
    "frame": "records",
    "Cell": "table",
    "Row": "table",
    "Table": "table",
    "tables": "table",
    "print_tables": "text",
    "write_report": "write",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import the module of a public name when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
