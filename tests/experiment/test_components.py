"""Components are found by reading files; nothing is imported."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from supreme import components
from supreme.errors import ConfigError, UnknownNameError

FILES = {
    "fake/__init__.py": "raise RuntimeError('must not be imported')",
    "fake/methods/__init__.py": "raise RuntimeError('must not be imported')",
    "fake/methods/base.py": """
        from abc import ABC, abstractmethod
        class UnlearningMethod(ABC):
            '''Base.'''
            paper = ""
            needs: tuple[str, ...] = ("forget",)
            def __init__(self, original, *, seed=0): ...
        class OneShot(UnlearningMethod):
            '''Second base.'''
        """,
    "fake/methods/ssd.py": """
        import torch.does_not_exist
        from .base import OneShot
        class SSD(OneShot):
            '''Dampen what matters to the forget set.

            More text.
            '''
            paper: ClassVar[str] = "Foster et al. 2024, " "arXiv:2308.07707"
            needs: ClassVar[tuple[str, ...]] = ("forget", "retain")
            def __init__(self, original, selection_weight=10.0, **kwargs): ...
        class LFSSD(SSD):
            '''Without labels.'''
            paper = "Foster et al. 2024, arXiv:2402.19308"
        class _Private(SSD):
            paper = "x"
        class Unrelated:
            '''Not a method.'''
            paper = "x"
        def SSDLike(num_classes): ...
        """,
    "fake/methods/tuning.py": """
        class Tuning(UnlearningMethod):
            '''Shared by others and without a paper: not a component.'''
        class FineTune(Tuning):
            '''Train on the retain set.'''
            aliases: ClassVar[tuple[str, ...]] = ("FT",)
            needs = ("retain",) + EXTRA
        class Halfway(Tuning):
            '''Abstract.'''
            @property
            @abstractmethod
            def loss(self): ...
        class Formal(Tuning, ABC): ...
        class Declared(Tuning, metaclass=ABCMeta): ...
        """,
    "fake/models/resnet.py": """
        class BasicBlock(nn.Module):
            '''A block.'''
            def __init__(self, width): ...
        class ResNet(nn.Module):
            '''The network behind the functions.'''
            def __init__(self, num_classes, blocks): ...
        class Net(nn.Module):
            '''A network.'''
            paper: ClassVar[str] = "He et al. 2016"
            def __init__(self, num_classes: int = 10) -> None: ...
        def ResNet18(num_classes: int = 10, width: int = 64) -> nn.Module:
            '''Eighteen layers.'''
        """,
    "fake/models/build.py": "def build(spec, num_classes: int, seed: int) -> nn.Module: ...",
    "fake/metrics/broken.txt": "not python",
}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, FILES)
    return tmp_path / "fake"


def test_listing_finds_concrete_public_subclasses_only(root: Path) -> None:
    assert [c.name for c in components.listing("methods", root)] == ["FineTune", "LFSSD", "SSD"]
    assert [c.name for c in components.listing("models", root)] == ["Net", "ResNet18"]
    assert components.listing("metrics", root) == []
    assert components.listing("datasets", root) == []


def test_component_tells_what_its_file_says(root: Path) -> None:
    fine_tune, lfssd, ssd = components.listing("methods", root)
    assert ssd.class_path == "fake.methods.ssd.SSD"
    assert ssd.summary == "Dampen what matters to the forget set."
    assert ssd.paper == "Foster et al. 2024, arXiv:2308.07707"
    assert ssd.needs == ("forget", "retain")
    assert ssd.arguments == ("original", "selection_weight", "seed")
    assert lfssd.needs == ("forget", "retain")  # inherited
    assert lfssd.paper.endswith("2402.19308")
    assert fine_tune.aliases == ("FT",)
    assert fine_tune.needs == ("forget",)  # its own is no literal
    assert fine_tune.arguments == ("original", "seed")


def test_listing_follows_a_changed_file(root: Path) -> None:
    components.listing("methods", root)
    write(root.parent, {"fake/methods/new.py": "class New(UnlearningMethod):\n    '''New.'''"})
    assert "New" in [c.name for c in components.listing("methods", root)]


def test_unknown_kind() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'methods'"):
        components.listing("method")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["FT", "FineTune", "fake.methods.FineTune", "fake.methods.tuning.FineTune"])
def test_resolve_known_names(root: Path, name: str) -> None:
    assert components.resolve("methods", name, root) == "fake.methods.tuning.FineTune"


def test_resolve_returns_other_dotted_paths(root: Path) -> None:
    assert components.resolve("methods", "my_pkg.MyMethod", root) == "my_pkg.MyMethod"


@pytest.mark.parametrize(("name", "text"), [("LFSDD", "did you mean 'LFSSD'"), ("a..b", "'supreme list methods'")])
def test_resolve_names_near_ones(root: Path, name: str, text: str) -> None:
    with pytest.raises(UnknownNameError, match=text):
        components.resolve("methods", name, root)


def test_describe_reads_a_dotted_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root.parent))
    write(
        root.parent,
        {
            "elsewhere/__init__.py": "raise RuntimeError('must not be imported')",
            "elsewhere/mine.py": "from x import Other\nclass Mine(LFSSD):\n    '''Mine.'''\n    needs = ('class',)\n",
        },
    )
    mine = components.describe("methods", "elsewhere.mine.Mine", root)
    assert (mine.name, mine.needs, mine.summary) == ("Mine", ("class",), "Mine.")
    assert mine.arguments == ("original", "selection_weight", "seed")  # through LFSSD and SSD
    assert components.describe("methods", "elsewhere.mine.Other", root).arguments is None
    with pytest.raises(UnknownNameError, match="did you mean 'Mine'"):
        components.describe("methods", "elsewhere.mine.Mien", root)
    with pytest.raises(ConfigError, match=r"Module 'elsewhere\.yours' of 'elsewhere\.yours\.Mine' is not found"):
        components.describe("methods", "elsewhere.yours.Mine", root)
    with pytest.raises(ConfigError, match="Module 'nowhere_at_all' of"):
        components.describe("methods", "nowhere_at_all.Mine", root)


def plugin(path: Path, name: str, value: str) -> None:
    info = path / f"{name}-1.0.dist-info"
    write(
        path,
        {
            f"{info.name}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info.name}/entry_points.txt": f"[supreme.plugins]\n{name} = {value}\n",
        },
    )


def test_plugins_are_read_not_imported(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    write(
        site,
        {
            "forgetful/__init__.py": "raise RuntimeError('must not be imported')",
            "forgetful/parts/more.py": "class Extra(SSD):\n    '''Extra.'''\nclass Score(EvaluationMetric): ...\n",
            "forgetful/parts/__init__.py": "def Tiny(num_classes=3): ...\nclass Faces(ImageDataset): ...\n",
        },
    )
    plugin(site, "forgetful", "forgetful.parts")
    monkeypatch.syspath_prepend(str(site))
    found = {c.name: c for c in components.listing("methods", root)}
    assert found["Extra"].class_path == "forgetful.parts.more.Extra"
    assert found["Extra"].plugin == "forgetful"
    assert found["SSD"].plugin == ""
    assert components.resolve("methods", "Extra", root) == "forgetful.parts.more.Extra"
    assert "Extra" not in [c.name for c in components.listing("methods", root, plugins=False)]
    assert [c.name for c in components.listing("metrics", root)] == ["Score"]
    assert [c.name for c in components.listing("datasets", root)] == ["Faces"]
    assert [c.name for c in components.listing("models", root) if c.plugin] == ["Tiny"]
    assert "forgetful" not in sys.modules


def test_unreadable_plugin_is_named_and_left_out(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    write(site, {"bad_syntax.py": "class :"})
    plugin(site, "bad", "bad_syntax")
    plugin(site, "gone", "gone_module:attribute")
    monkeypatch.syspath_prepend(str(site))
    with pytest.warns(UserWarning) as caught:  # noqa: PT030 - two different warnings, matched below
        assert len(components.listing("methods", root)) == 3
    texts = " ".join(str(w.message) for w in caught)
    assert "'bad' is not listed" in texts
    assert "'gone' is not listed: its module 'gone_module' is not found" in texts


def test_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        {
            "loadable/__init__.py": "",
            "loadable/mod.py": "class Thing:\n    class Inner: ...\n",
            "loadable/lacking.py": "import no_such_dependency\n",
            "loadable/failing.py": "raise ValueError('odd')\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert components.load("loadable.mod.Thing").__name__ == "Thing"
    assert components.load("loadable.mod:Thing").__name__ == "Thing"
    assert components.load("loadable.mod.Thing.Inner").__name__ == "Inner"
    for path, error, text in [
        ("Thing", ConfigError, "Expected a dotted path"),
        ("no_such_package_x.Thing", ConfigError, "Module 'no_such_package_x' of"),
        ("loadable.mod.Thnig", UnknownNameError, "did you mean 'Thing'"),
        ("loadable.mood.Thing", UnknownNameError, "'mood'"),
        ("loadable.lacking.Thing", ConfigError, "needs the module 'no_such_dependency'"),
        ("loadable.failing.Thing", ConfigError, "failed with ValueError: odd"),
    ]:
        with pytest.raises(error, match=text):
            components.load(path)


def test_lazy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        {
            "idle/__init__.py": """
                from supreme.components import lazy
                __getattr__, __dir__, __all__ = lazy(__name__, {"Thing": "sub.mod", "sub": ""})
                """,
            "idle/sub/__init__.py": "",
            "idle/sub/mod.py": "class Thing: ...\n",
        },
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import idle

    assert "idle.sub" not in sys.modules
    assert idle.__all__ == ["Thing", "sub"]
    assert {"Thing", "sub", "__name__"} <= set(dir(idle))
    from idle import Thing

    assert Thing.__module__ == "idle.sub.mod"
    assert idle.sub.mod.Thing is Thing
    assert vars(idle)["Thing"] is Thing  # the second look-up costs nothing
    with pytest.raises(AttributeError, match="module 'idle' has no attribute 'Thin'"):
        _ = idle.Thin


def test_real_listing_is_quick_and_imports_no_torch() -> None:
    code = """
        import sys, time
        from supreme import components
        best = {}
        for kind in components.KINDS:
            components.listing(kind)
            started = time.perf_counter()
            components.listing(kind)
            best[kind] = time.perf_counter() - started
        assert not {"torch", "lightning", "torchmetrics"} & set(sys.modules)
        assert max(best.values()) < 0.05, best
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=200)


def test_every_real_component_has_a_summary_and_a_file() -> None:
    for kind in components.KINDS:
        for component in components.listing(kind, plugins=False):
            assert component.summary.endswith("."), component
            assert component.class_path.startswith(f"supreme.{kind}.")
