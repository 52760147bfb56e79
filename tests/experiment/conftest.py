"""A package of fake components and an executor that does next to nothing, for plans that take milliseconds."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from supreme.experiment.plan import Plan, load_plan

COMPONENTS = {
    "methods/methods.py": """
        class Original(UnlearningMethod):
            '''As it was.'''
            def __init__(self, original, seed=0): ...
        class Retrain(UnlearningMethod):
            '''From scratch.'''
            def __init__(self, original, epochs=1, seed=0): ...
        class FineTune(UnlearningMethod):
            '''Trains on.'''
            aliases = ("FT",)
            def __init__(self, original, act="", seconds=0.0, seed=0): ...
        class SSD(UnlearningMethod):
            '''Dampens.'''
            def __init__(self, original, act="", seconds=0.0, selection_weight=10.0, seed=0): ...
        class UNSIR(UnlearningMethod):
            '''Impairs and repairs.'''
            needs = ("forget", "retain", "class")
            def __init__(self, original, seed=0): ...
        """,
    "scenarios/scenarios.py": """
        class FullClass(Scenario):
            '''Whole classes.'''
            def __init__(self, dataset=None, forget=0, batch_size=64): ...
        class RandomSample(Scenario):
            '''At random.'''
            random = True
            def __init__(self, dataset=None, fraction=0.1, draw_seed=0, batch_size=64): ...
        class GivenSets(Scenario):
            '''No dataset.'''
            def __init__(self, forget, retain): ...
        """,
    "datasets/datasets.py": """
        class Digits(ImageDataset):
            '''Digits.'''
            def __init__(self, split_seed=0, root=None): ...
        class Faces(ImageDataset):
            '''Faces.'''
            def __init__(self, path, root=None): ...
        """,
    "models/models.py": "def ResNet18(num_classes=10, width=64) -> nn.Module:\n    '''Eighteen layers.'''",
    "metrics/metrics.py": """
        class Accuracy(EvaluationMetric):
            '''Share of right answers.'''
        class MIA(EvaluationMetric):
            '''Attack.'''
            def __init__(self, folds=5): ...
        """,
}

EXECUTOR = """
    import json, os, signal, sys, time
    from supreme.errors import DataError

    def execute(stage, store):
        for source in stage.inputs.values():
            assert store.has(source), source.label
        assert store.leases.holder(stage.key) is not None
        note(store, "begin", stage)
        method = stage.config.get("method", {"init_args": {}})["init_args"]
        act = method.get("act", "") if stage.kind == "unlearn" else ""
        time.sleep(method.get("seconds", 0.0) if stage.kind == "unlearn" else 0.0)
        if act == "say":
            print("said in python", flush=True)
            os.system("echo said by a child")
        if act == "raise":
            raise ValueError("weights are not finite")
        if act == "refuse":
            raise DataError("Nothing to forget; choose another target.")
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "leave":
            sys.exit(3)
        if act == "lightning":
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                sys.exit(1)
        if act == "nothing":
            return
        if act == "once" and not (store.root.parent / "tried").exists():
            (store.root.parent / "tried").touch()
            raise RuntimeError("first try")

        def write(folder):
            (folder / "weights").write_text(stage.label)
            (folder / "result.json").write_text(json.dumps({"metrics": {"forget/accuracy": 0.5}, "contended": False}))
            return {"hardware": {"threads": os.environ.get("OMP_NUM_THREADS", "")}}

        store.commit(stage, write)
        note(store, "end", stage)

    def note(store, what, stage):
        line = f"{what} {stage.key} {stage.kind} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\\n"
        descriptor = os.open(store.root.parent / "calls", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, line.encode())
        os.close(descriptor)
    """

PLAN = """
    name: tiny
    datasets: [Digits]
    models: [ResNet18]
    training: {epochs: 2}
    scenarios: [{class_path: FullClass, targets: [3, 8]}]
    methods: [FineTune, SSD]
    seeds: [1, 2]
    """


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the fake package ``fake``; it and the executor ``tiny_executor`` can be imported."""
    for name, text in COMPONENTS.items():
        path = tmp_path / "code" / "fake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (tmp_path / "code" / "tiny_executor.py").write_text(textwrap.dedent(EXECUTOR))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    return tmp_path / "code" / "fake"


@pytest.fixture
def make_plan(package: Path, tmp_path: Path) -> Callable[..., Plan]:
    """Write a plan (or the small one, with some text replaced) and load it; its output is ``out``."""

    def make(text: str = PLAN, **replacements: str) -> Plan:
        lines = [line for line in textwrap.dedent(text).splitlines() if line.partition(":")[0] not in replacements]
        lines += [f"{key}: {value}" for key, value in replacements.items() if value]
        if "output" not in replacements:
            lines.append(f"output: {tmp_path / 'out'}")
        path = tmp_path / "tiny.yaml"
        path.write_text("\n".join(lines))
        return load_plan(path, package)

    return make
