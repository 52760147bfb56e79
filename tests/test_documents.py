"""What the documents say is executed: every command, every Python block, every generated table."""

import csv
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import supreme
from supreme.__main__ import main
from supreme.classifier import Recipe
from supreme.cli.list import corrections
from supreme.components import KINDS, describe, listing, load
from supreme.experiment import load_plan
from supreme.transforms import Augment

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
STUDY = ROOT / "benchmarks" / "results" / "cifar10_study" / "report" / "tables.csv"

# Set-up and checks: what runs these very tests. The first two are also what `.ci/run` and test_package.py do.
SET_UP = {
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest -n 2",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'",
    ".venv/bin/pytest -n 2",
    ".venv/bin/ruff check . && .venv/bin/ruff format --check .",
    ".venv/bin/mypy",
}
FIRST = "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/supreme run configs/quickstart.yaml"

# Commands, and what is added to them so that they take seconds.
QUICK = ["--network.width=8", "--training.epochs=1", "--trainer.accelerator=cpu"]
COMMANDS = {
    "supreme unlearn --method LFSSD": QUICK,
    "supreme unlearn --method my_methods.Ascent": QUICK,
    "supreme run quickstart --dry_run": [],
    "supreme list methods": [],
    "supreme run plan.yaml": ["--workers=1"],
}


def beside(name):
    """A module of this folder; the one of conftest.py keeps its own outcomes."""
    spec = importlib.util.spec_from_file_location(f"supreme_{name}_of_documents", ROOT / "tests" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def commands(path):
    return [line for block in blocks(path, "bash") for line in block.splitlines() if line and not line.startswith("#")]


def block_with(path, language, text):
    return next(block for block in blocks(path, language) if text in block)


def part(text, name):
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL).group(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory that holds the modules that the documents tell the reader to write."""
    (tmp_path / "my_methods.py").write_text(block_with(README, "python", "class Ascent"))
    (tmp_path / "my_components.py").write_text(block_with(CONTRIBUTING, "python", "class OneStep"))
    (tmp_path / "plan.yaml").write_text(block_with(CONTRIBUTING, "yaml", "my_components"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["supreme"])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_methods", "my_components"):
        sys.modules.pop(name, None)


def test_every_command_is_known_here():
    found = {*commands(README), *commands(CONTRIBUTING)}
    assert found == SET_UP | {FIRST} | set(COMMANDS)


def test_the_set_up_works_where_python_is_called_python3():
    for command in (*commands(README), *commands(CONTRIBUTING)):
        assert not re.search(r"(^|\s)python\s", command)


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert next(command for command in commands(README) if "bin/pytest" in command) in script


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work(command, folder, capsys):
    assert main([*command.split()[1:], *COMMANDS[command]]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.filterwarnings("ignore")
def test_the_first_table_of_a_reduced_plan(folder, capsys):
    """The quickstart with one seed, one class, one epoch and a narrow network."""
    plan = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    plan["models"][0]["init_args"]["width"] = 8
    plan["training"]["epochs"] = 1
    plan["scenarios"] = [{"class_path": "FullClass", "targets": [3]}]
    plan["seeds"] = {"training": [260]}
    plan["trainer"] = {"accelerator": "cpu"}
    (folder / "configs").mkdir()
    (folder / "configs" / "quickstart.yaml").write_text(yaml.safe_dump(plan))
    assert main([*FIRST.rpartition("bin/supreme ")[2].split(), "--workers=1"]) == 0
    shown = capsys.readouterr().out
    names = [method if isinstance(method, str) else method["class_path"] for method in plan["methods"]]
    known = {name: (name, *describe("methods", name).aliases) for name in names}
    missing = [name for name, words in known.items() if not set(words) & set(re.findall(r"\w+", shown))]
    assert len(names) >= 8
    assert not missing, shown
    assert (folder / "runs" / "quickstart" / "report" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_first_table(folder, capsys):
    assert main(["run", str(ROOT / "configs" / "quickstart.yaml")]) == 0
    assert "UNSIR" in capsys.readouterr().out


def test_the_readme_describes_the_shipped_plan():
    plan = load_plan(ROOT / "configs" / "quickstart.yaml")
    assert len(plan.seeds) == 3
    assert [len(scenario.targets) for scenario in plan.scenarios] == [2, 1]
    assert plan.scenarios[1].targets == (0.05,)
    assert plan.output == Path("runs/quickstart")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [README, CONTRIBUTING], ids=lambda path: path.name)
def test_python_blocks_work(path, folder, capsys):
    """The blocks of one file, one after another in one namespace, as a reader would paste them."""
    namespace = {"__name__": "blocks"}
    for number, block in enumerate(blocks(path, "python")):
        module = {"class Ascent": "my_methods", "class OneStep": "my_components"}
        name = next((name for text, name in module.items() if text in block), None)
        if name is None:
            exec(compile(block, f"{path.name}, Python block {number}", "exec"), namespace)
        else:
            namespace |= vars(__import__(name))


def test_the_method_of_the_readme_keeps_the_contract(folder):
    load("supreme.testing.check_method")(load("my_methods.Ascent"))


def test_the_entry_point_of_the_documents_is_read_as_written():
    tomllib = pytest.importorskip("tomllib")
    content = tomllib.loads(blocks(CONTRIBUTING, "toml")[0])
    assert content["project"]["entry-points"]["supreme.plugins"] == {"mine": "my_components"}


def test_arguments_that_restore_published_numbers_exist():
    calls = [call for row in corrections() for call in re.findall(r"`(\w+)\(([^`]*)\)`", row["restore"])]
    others = {"Augment": Augment, "Recipe": Recipe}
    assert len(calls) >= 8
    for name, arguments in calls:
        signature = inspect.signature(others.get(name) or component(name)).parameters
        for argument in re.findall(r"(\w+)=", arguments):
            assert argument in signature, f"{name} has no argument {argument}"


def component(name):
    kind = next(kind for kind in KINDS if any(name == found.name for found in listing(kind, plugins=False)))
    return load(describe(kind, name).class_path)


def gaps_of_the_study():
    """Accuracy gaps by method, from the tables that the report wrote: forget and retain, in points."""
    chosen, found = ("forget/accuracy_gap", "retain/accuracy_gap"), {}
    with STUDY.open() as file:
        for row in csv.DictReader(file):
            if row["scenario"] == "FullClass" and row["metric"] in chosen:
                text = f"{100 * float(row['mean']):.1f} ± {100 * float(row['std']):.1f}"
                found.setdefault(row["method"], {})[row["metric"]] = text
    return {method: [values[name] for name in chosen] for method, values in found.items()}


def components_table():
    """All components, as `supreme list` finds them, with the gaps of the study."""
    lines = ["| Component | What it is | Paper | Gap: forget | Gap: retain |", "|---|---|---|--:|--:|"]
    gaps = gaps_of_the_study()
    for component in listing("methods", plugins=False):
        name, measured = ", ".join((component.name, *component.aliases)), " | ".join(gaps[component.name])
        lines.append(f"| {name} | {component.summary.rstrip('.')} | {component.paper} | {measured} |")
    for kind in KINDS[1:]:
        names = ", ".join(component.name for component in listing(kind, plugins=False))
        lines.append(f"| *{kind}* | {names} | `supreme list {kind}` | | |")
    return "\n".join(lines) + "\n"


def corrections_table():
    """All corrections, as `supreme list corrections` prints them, but for the reasons."""
    shown = {"what": "What", "published": "Published code", "here": "Here", "restore": "To get the published one"}
    rows = [shown, *corrections()]
    lines = [f"| {' | '.join(row[name] or '-' for name in shown)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(shown) + "|", *lines[1:]]) + "\n"


@pytest.mark.parametrize(
    ("path", "name", "table"),
    [(README, "components", components_table), (CONTRIBUTING, "corrections", corrections_table)],
    ids=["components", "corrections"],
)
def test_the_document_lists_what_there_is(path, name, table):
    text, expected = path.read_text(), table()
    if os.environ.get("SUPREME_WRITE_DOCUMENTS"):
        pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"
        path.write_text(text := re.sub(pattern, lambda _: expected, text, flags=re.DOTALL))
    assert part(text, name) == expected, f"the table has to be\n{expected}"


def test_the_readme_claims_what_tests_have_run():
    """Its table is that of the stored outcomes, and each of them is of tests that are marked so."""
    matrix = beside("matrix")
    rows = matrix.stored()
    assert {row["accelerator"] for row in rows} >= {"cpu"}
    assert part(README.read_text(), "strategies") == matrix.table(rows)
    for row in rows:
        for file in row["tests"]:
            assert f'runs_on("{row["accelerator"]}"' in (ROOT / file).read_text(), file


def test_outcomes_of_tests_become_the_table(tmp_path, monkeypatch):
    matrix = beside("matrix")
    outcomes = matrix.Outcomes()
    passed = {"when": "call", "failed": False, "outcome": "passed"}
    for place, changes in (
        (("cpu", "ddp", 2), {}),
        (("cuda", "fsdp", 1), {}),
        (("cuda", "fsdp", 1), {"outcome": "failed", "failed": True}),
        (("mps", "auto", 1), {"outcome": "skipped"}),
        (None, {}),
    ):
        properties = [("runs_on", place)] if place else []
        report = SimpleNamespace(nodeid="tests/test_x.py::test_y", user_properties=properties, **{**passed, **changes})
        outcomes.note(report)
    before = [{"accelerator": "cpu", "strategy": "auto", "processes": 1, "outcome": "passed", "tests": ["tests/a.py"]}]
    lines = matrix.table(outcomes.merged(before)).splitlines()
    assert lines[2].startswith("| CPU | [tested](tests/a.py) | [2 processes](tests/test_x.py) | untested |")
    assert lines[3].startswith("| CUDA | untested | untested | [fails](tests/test_x.py) |")
    assert set(lines[4].split("|")[2:-1]) == {" untested "}
    monkeypatch.setattr(matrix, "FILE", tmp_path / "runs_on.json")
    (tmp_path / "README.md").write_text("before\n<!-- strategies -->\nold\n<!-- /strategies -->\nafter\n")
    matrix.write(outcomes, tmp_path / "README.md")
    assert part((tmp_path / "README.md").read_text(), "strategies") == matrix.table(matrix.stored())


def test_the_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) < 150
    assert next(number for number, line in enumerate(lines) if "pip install" in line) < 30


def test_the_citation_file_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == supreme.__version__
    assert citation["preferred-citation"]["url"] in README.read_text()


def test_no_line_is_too_long():
    for path in (README, CONTRIBUTING, ROOT / "CHANGELOG.md"):
        prose = [line for line in path.read_text().splitlines() if not line.startswith("|")]
        assert max(map(len, prose)) <= 135, path.name
