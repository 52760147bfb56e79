import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from supreme.errors import DataError
from supreme.report.outputs import Outputs, log_softmax, read_outputs, roc


def test_loss_entropy_and_classes_are_those_of_torch():
    rng = np.random.default_rng(3)
    logits, target = rng.normal(size=(50, 7)) * 20, rng.integers(0, 7, 50)
    outputs = Outputs(np.arange(50) % 4, target, log_softmax(logits))
    wanted = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(target), reduction="none")
    assert np.allclose(outputs.loss, wanted.numpy(), rtol=1e-12, atol=1e-12)
    entropy = torch.distributions.Categorical(logits=torch.tensor(logits)).entropy()
    assert np.allclose(outputs.entropy, entropy.numpy(), atol=1e-12)
    assert (outputs.predicted == logits.argmax(1)).all()
    assert {name: int(rows.sum()) for name, rows in outputs.sets.items()} == {"forget": 12, "retain": 12, "test": 13}


def test_a_certain_model_has_entropy_zero():
    outputs = Outputs(np.zeros(1, int), np.zeros(1, int), log_softmax(np.array([[2000.0, 0.0]])))
    assert outputs.entropy.tolist() == [0.0]
    assert outputs.loss.tolist() == [0.0]


@pytest.mark.parametrize("digits", [8, 1])
def test_the_curve_is_that_of_scikit_learn(digits):
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.4, 1, 80).round(digits), rng.normal(0, 1, 60).round(digits)
    label, score = np.r_[np.ones(80), np.zeros(60)], np.r_[members, others]
    false, true, _ = roc_curve(label, score, drop_intermediate=False)
    ours = roc(members, others)
    assert np.allclose(ours[0], false)
    assert np.allclose(ours[1], true)
    assert np.trapezoid(ours[1], ours[0]) == pytest.approx(roc_auc_score(label, score))


def test_reading(plan, tmp_path):
    record = plan.outputs(tmp_path, plan.records(methods=("SSD",), seeds=(1,), targets=("3",)))[0]
    found = read_outputs(tmp_path, record)
    assert found.log_p.shape == (120, 4)
    assert np.allclose(np.exp(found.log_p).sum(axis=1), 1)
    assert read_outputs(tmp_path / "other", record) is None
    file = tmp_path / "stages" / "evaluate" / record["key"] / "outputs.safetensors"
    file.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"outputs\.safetensors"):
        read_outputs(tmp_path, record)


def test_reading_imports_no_torch(plan, tmp_path):
    record = plan.outputs(tmp_path, plan.records(methods=("SSD",), seeds=(1,), targets=("3",)))[0]
    read = f"read_outputs(Path({str(tmp_path)!r}), {{'stages': {{'evaluate': {record['key']!r}}}}})"
    imports = "from pathlib import Path; import sys; from supreme.report.outputs import *"
    code = f"{imports}; print({read} is None, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["False", "False"]
