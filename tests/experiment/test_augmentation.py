"""A plan's augmentation: M_o and M_r are trained with it, and nothing else is."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from supreme.experiment.plan import Run, load_plan
from supreme.experiment.scheduler import run_plan
from supreme.experiment.store import Store

PLAN = {
    "datasets": ["Digits"],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "scenarios": [{"class_path": "FullClass", "targets": [1]}],
    "methods": ["Original"],
    "seeds": [5],
    "trainer": {"accelerator": "cpu"},
    "output": "runs",
}


def weights(name: str, **training: object) -> list[dict[str, torch.Tensor]]:
    """M_o and M_r of a plan with another augmentation."""
    content = {**PLAN, "name": name, "training": {"epochs": 1, "lr": 0.01, **training}}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    plan = load_plan(f"{name}.yaml")
    assert run_plan(plan).failed == ()
    store = Store(plan.output)
    run: Run = plan.runs()[0]
    stages = [run.stage.inputs["unlearned"], run.stage.inputs["retrained"]]
    return [load_file(store.path(stage) / "model.safetensors") for stage in stages]


def test_both_models_are_trained_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = weights("plain")
    same = weights("same", augmentation={"flip": False})  # the digits' own: nothing at all
    other = weights("other", augmentation={"flip": True})
    for a, b, c in zip(plain, same, other, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert not any(torch.equal(a[name], c[name]) for name in a if name.endswith("conv1.weight"))
