"""The rules that keep the package walkable, read from the syntax trees."""

import ast
import importlib
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "supreme"
FILES = sorted(PACKAGE.rglob("*.py"))
COMPONENTS = ("methods", "metrics", "scenarios", "datasets", "models", "callbacks", "functional", "transforms")

# Who may import whom: lower levels only. A new file beside batch.py belongs to the foundation unless it is named here.
LEVELS = {
    **dict.fromkeys(("functional", "models", "datasets", "transforms"), 1),
    "classifier": 2,
    **dict.fromkeys(("methods", "metrics", "scenarios", "callbacks"), 3),
    "evaluation": 4,
    "api": 5,
    "experiment": 5,
    "report": 6,
    "cli": 7,
    "testing": 8,
    "__main__": 8,
    "__init__": 0,
}
SAME_LEVEL = {("datasets", "transforms"), ("experiment", "api")}

# What belongs to lightning, torch or torchmetrics and begins with an underscore, and why it is used all the same.
PRIVATE = {
    "_BatchNorm": "the public base class of all BatchNorm layers has no public name",
    "_apply": "torchmetrics moves states in it; without it a change of dtype would round float64 sums",
    "_plot": "torchmetrics' own way to write plot()",
    "_sync_dist": "ranks without rows have to take part; torchmetrics has no public hook",
    "_generate_state_key": "Lightning documents it for state_key",
    "_data_parallel_size": "ModelParallelStrategy takes sizes in its constructor only, before they are known",
    "_tensor_parallel_size": "as _data_parallel_size",
    "_hp_mapping": "how DeepSpeed marks parameters with a master copy; there is no public mark",
    "_computed": "torchmetrics caches compute() in it",
    "_update_count": "torchmetrics warns by it",
    "_exit": "public, with an underscore against mistakes; ranks must not wait for each other at their end",
    "_modules": "whether a network has been built; hasattr would raise on a module without it",
}

# Which strategy runs is asked in distributed.py and the two files that it is made of; how many processes run, in a few.
STRATEGY = {
    *("DTensor", "FSDPModule", "FSDPStrategy", "FullyShardedDataParallel", "ModelParallelStrategy", "DDPStrategy"),
    *("DeepSpeedStrategy", "fully_shard", "deepspeed", "ds_id", "_hp_mapping", "device_mesh", "DeviceMesh"),
}
STRATEGY_FILES = {"distributed.py", "sharding.py", "strategies.py"}
STRATEGY_FILES |= {"precision.py", "experiment/trainer_settings.py"}  # which ones there are, and what they can take
PROCESSES = {
    *("get_world_size", "get_rank", "is_initialized", "all_reduce", "all_gather", "all_gather_object", "broadcast"),
    *("gather_all_tensors", "world_size", "global_rank"),
}
PROCESS_FILES = {
    "distributed.py": "the place for it",
    "sharding.py": "sums over ranks, and whose piece is whose",
    "strategies.py": "joins the process group under DeepSpeed",
    "ranks.py": "starts processes and ends them",
    "batch_norm.py": "statistics of the global batch",
    "scenarios/base.py": "tells the loaders which share is theirs",
    "metrics/table.py": "rows of all ranks",
    "callbacks/": "maxima over ranks; they stand beside methods and know none",
    "experiment/": "ranks of a stage are started and met there",
    "testing/": "starts ranks itself",
    "cli/": "one rank prints",
}
BASES = {"Procedure"}  # bases that are tested through all classes that derive from them
NAMED_TUPLE = {"_asdict", "_replace", "_fields", "_make"}  # public, with an underscore so as not to clash with fields
BANNED = {"utils", "util", "helpers", "helper", "manager", "handler", "engine", "common", "misc", "core"}


@cache
def tree(path):
    return ast.parse(path.read_text())


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def unit(path):
    """The package or the module that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Dotted names that a file imports, however deep in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_units(path):
    """Packages and modules of this package that a file imports."""
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "supreme" and len(parts) > 1:
            known = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").exists()
            yield parts[1] if known else "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_who_may_import_whom(path):
    own = unit(path)
    level = LEVELS.get(own, 0)
    for other in own_units(path):
        allowed = other == own or LEVELS.get(other, 0) < level or (own, other) in SAME_LEVEL
        foundation = level == LEVELS.get(other, 0) == 0
        assert allowed or foundation, f"{name_of(path)} must not import supreme.{other}; see LEVELS above"


def test_functions_know_torch_alone():
    for path in sorted((PACKAGE / "functional").glob("*.py")):
        others = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
        assert others <= {"torch", "supreme"}, f"{name_of(path)} imports {others}"


def test_the_levels_name_what_exists():
    units = {unit(path) for path in FILES}
    assert set(LEVELS) <= units
    assert {one for pair in SAME_LEVEL for one in pair} <= units


def test_the_rule_finds_a_breach(tmp_path, monkeypatch):
    broken = tmp_path / "methods" / "greedy.py"
    broken.parent.mkdir()
    broken.write_text("def f():\n    from supreme.metrics import Accuracy\n    import supreme.api\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    for name in ("metrics", "api"):
        (tmp_path / name).mkdir()
    assert unit(broken) == "methods"
    assert sorted(own_units(broken)) == ["api", "metrics"]


# --- private names of other packages ---------------------------------------------------------------------------------


def private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


@cache
def defined_here():
    """Private names that this package defines somewhere."""
    names = set()
    for path in FILES:
        names |= {name for node in ast.walk(tree(path)) for name in bound(node)}
    return names


def bound(node):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr


def test_no_private_name_of_a_dependency_is_imported():
    for path in FILES:
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "supreme":
                bad = [part for part in parts if private(part) and part not in PRIVATE]
                assert not bad, f"{name_of(path)} imports {name}; give a reason in PRIVATE or find a public way"


def test_no_private_attribute_of_a_dependency_is_used():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in PRIVATE:
                known = node.attr in defined_here() or node.attr in NAMED_TUPLE
                assert known, f"{name_of(path)}:{node.lineno} uses {node.attr}, which is not of this package"


def foreign_private_names():
    """Class -> private names of lightning, torch or torchmetrics classes that it inherits."""
    for path in FILES:
        if "torch" not in "".join(imported(path)) or path.name == "__main__.py":
            continue
        module = importlib.import_module(".".join(("supreme", *path.relative_to(PACKAGE).with_suffix("").parts)))
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                bases = getattr(module, node.name).__mro__[1:]
                foreign = [
                    base for base in bases if base.__module__.split(".")[0] in ("lightning", "torch", "torchmetrics")
                ]
                yield path, node, {name for base in foreign for name in vars(base) if private(name)}


def test_no_private_method_of_a_dependency_is_called_or_overridden():
    checked = 0
    for path, node, names in foreign_private_names():
        used = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute) and private(inner.attr)}
        used |= {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
        found = sorted(used & names - set(PRIVATE))
        assert not found, f"{name_of(path)}: {node.name} uses or overrides {found} of its bases"
        checked += bool(names)
    assert checked > 15


# --- strategies ------------------------------------------------------------------------------------------------------


def identifiers(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias):
            yield node.name.split(".")[-1], getattr(node, "lineno", 0)
        elif isinstance(node, ast.Constant) and node.value in ("deepspeed", "ds_id", "_hp_mapping", "device_mesh"):
            yield node.value, node.lineno


def test_one_file_asks_which_strategy_runs():
    for path in FILES:
        if name_of(path) in STRATEGY_FILES or unit(path) == "testing" or name_of(path) == "callbacks/environment.py":
            continue  # the last lists versions of installed packages
        bad = sorted({name for name, _ in identifiers(path) if name in STRATEGY})
        assert not bad, f"{name_of(path)} asks for {bad}; that is the business of distributed.py"


def test_few_files_ask_how_many_processes_run():
    for path in FILES:
        if name_of(path).startswith(tuple(PROCESS_FILES)):
            continue
        ours = {
            n.split(".")[-1] for n in imported(path) if n.startswith(("supreme.distributed.", "supreme.batch_norm."))
        }
        bad = sorted({name for name, _ in identifiers(path) if name in PROCESSES} - ours)
        assert not bad, f"{name_of(path)} asks for {bad}; use a function of distributed.py"


# --- names, sizes, documents -----------------------------------------------------------------------------------------


def words(name):
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_names_say_something():
    for folder in ("supreme", "tests", "benchmarks", "configs"):
        for path in sorted((ROOT / folder).rglob("*")):
            assert not words(path.stem) & BANNED, f"{path.relative_to(ROOT)} has a name that says nothing"
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                assert not words(node.name) & BANNED, f"{name_of(path)}: class {node.name} has a name that says nothing"


@pytest.mark.parametrize(
    ("name", "found"), [("image_utils", {"utils"}), ("HTTPManager", {"manager"}), ("score", set())]
)
def test_words_of_a_name(name, found):
    assert words(name) & BANNED == found


def functions():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}:{node.name}", length(node)


def length(node):
    """Lines of a function without its docstring."""
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def test_files_are_short():
    long = {name_of(path): count for path in FILES if (count := len(path.read_text().splitlines())) > 400}
    assert not long, f"over 400 lines, so split: {long}"


def test_functions_are_short():
    lengths = dict(functions())
    long = {name: count for name, count in lengths.items() if count > 60}
    assert not long, f"over 60 lines, so split: {long}"
    assert statistics.quantiles(lengths.values(), n=10)[-1] < 30


def public(body):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_public_name_has_a_docstring(path):
    assert ast.get_docstring(tree(path)), f"{name_of(path)} needs a docstring"
    for node in public(tree(path).body):
        members = public(node.body) if isinstance(node, ast.ClassDef) else []
        for item in (node, *members):
            assert ast.get_docstring(item), f"{name_of(path)}:{item.lineno} {item.name} needs a docstring"


def exported(package):
    """Public names of a package; functional/ has no list of its own, so all of its functions."""
    if package == "functional":
        return {node.name for path in (PACKAGE / package).glob("*.py") for node in public(tree(path).body)}
    return set(importlib.import_module(f"supreme.{package}").__all__)


@pytest.mark.parametrize("package", COMPONENTS)
def test_every_public_component_is_in_some_test(package):
    text = "\n".join(path.read_text() for path in sorted((ROOT / "tests").rglob("*.py")))
    missing = sorted(exported(package) - BASES - set(re.findall(r"\w+", text)))
    assert not missing, f"no test names {missing} of {package}"


# --- what starts at once ---------------------------------------------------------------------------------------------

ASK = """
import runpy, sys
sys.argv = ["supreme", *sys.argv[1:]]
try:
    runpy.run_module("supreme", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "lightning", "torchvision", "torchmetrics", "transformers"} & set(sys.modules)
assert not heavy, f"imported {heavy}"
"""


def run(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_importing_the_package_imports_no_torch():
    code = "import sys, supreme, supreme.components, supreme.testing, supreme.report; assert 'torch' not in sys.modules"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["list", "methods"],
        ["list", "models"],
        ["report", "--help"],
        ["run", "--help"],
    ],
    ids=" ".join,
)
def test_the_command_line_answers_without_torch(words):
    done = run("-c", ASK, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
