"""Every public function of the folder is a name of the package."""

import importlib
import inspect
from pathlib import Path

import supreme.functional


def test_the_list_is_complete():
    found = set()
    for path in Path(supreme.functional.__file__).parent.glob("[a-z]*.py"):
        module = importlib.import_module(f"supreme.functional.{path.stem}")
        own = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and (inspect.isfunction(value) or inspect.isclass(value))
            and value.__module__ == module.__name__
        }
        assert own, path
        found |= own
    assert found == set(supreme.functional.__all__)
    assert all(callable(getattr(supreme.functional, name)) for name in found)
