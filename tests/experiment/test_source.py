"""The hash of the code follows what can change a result and nothing else."""

from pathlib import Path

import pytest

from supreme.experiment.source import Sources

FILES = {
    "own/__init__.py": "from supreme.components import lazy\nlazy(__name__, {'Third': 'lazy_part'})\n",
    "own/method.py": '''
        """Docs."""
        import json
        import torch
        from own import Third
        from . import sibling
        from .sub.deep import value
        from supreme.batch import Batch

        class Method:
            """Docs."""

            def loss(self, x):
                """Docs."""
                return x + 1  # one
        ''',
    "own/sibling.py": "from .method import Method\nfrom own.sub import deep\nA = 1\n",
    "own/sub/__init__.py": "B = 1\n",
    "own/sub/deep.py": "def value():\n    import own.late\n    return 1\n",
    "own/late.py": "C = 1\n",
    "own/lazy_part.py": "class Third: ...\n",
    "own/unrelated.py": "D = 1\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = text.lstrip("\n").splitlines(keepends=True)
        path.write_text("".join(line.removeprefix(" " * 8) for line in lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def hash_now() -> str:
    return Sources().hash(["own.method.Method"])


def test_imports_are_followed_in_the_package_and_in_supreme(folder: Path) -> None:
    files = Sources().files("own.method.Method")
    own = {"method", "sibling", "sub", "sub.deep", "late", "lazy_part"}
    assert {name for name in files if name.startswith("own")} == {f"own.{name}" for name in own}
    assert "supreme.batch" in files
    assert not {"supreme.errors", "supreme.components", "json", "torch"} & set(files)


@pytest.mark.parametrize("name", ["method", "sibling", "sub/__init__", "sub/deep", "late", "lazy_part"])
def test_changed_code_changes_the_hash(folder: Path, name: str) -> None:
    before = hash_now()
    path = folder / "own" / f"{name}.py"
    path.write_text(path.read_text() + "\nNEW = 2\n")
    assert hash_now() != before


def test_a_changed_number_or_operator_changes_the_hash(folder: Path) -> None:
    path = folder / "own/method.py"
    text = path.read_text()
    seen = {hash_now()}
    for line in ("return x - 1  # one", "return x + 2  # one", "return x + 1.0  # one", "return y + 1  # one"):
        path.write_text(text.replace("return x + 1  # one", line))
        seen.add(hash_now())
    assert len(seen) == 5


def test_documentation_layout_and_unrelated_files_do_not_count(folder: Path) -> None:
    before = hash_now()
    path = folder / "own/method.py"
    path.write_text(path.read_text().replace("Docs.", "More words.").replace("  # one", "\n\n# another line"))
    (folder / "own/unrelated.py").write_text("D = 2\n")
    assert hash_now() == before


def test_a_docstring_is_not_mistaken_for_an_expression(folder: Path) -> None:
    before = hash_now()
    path = folder / "own/method.py"
    path.write_text(path.read_text().replace('"""Docs."""\nimport json', "import json"))
    assert hash_now() == before


def test_names_without_a_file_count_by_name() -> None:
    assert Sources().hash(["no_such_package.A"]) != Sources().hash(["no_such_package.B"])
    assert Sources().hash([]) != Sources().hash(["no_such_package.A"])
    assert Sources().files("no_such_package.A") == {}


def test_order_does_not_count() -> None:
    names = ["supreme.batch", "supreme.seeding"]
    assert Sources().hash(names) == Sources().hash(reversed(names))
    assert len(Sources().hash(names)) == 16
