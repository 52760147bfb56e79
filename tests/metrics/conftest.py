"""The stored case of published metric values, read once."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"


@pytest.fixture(scope="session")
def golden():
    """Expected values, logits by "<network>.<set>", targets by set and the networks' weights."""
    data = np.load(GOLDEN / "data.npz")
    targets = {}
    for split in ("test", "train"):
        labels, forget = torch.from_numpy(data[f"labels_{split}"]), torch.from_numpy(data[f"forget_mask_{split}"])
        targets |= {f"{split}_whole": labels, f"{split}_retain": labels[~forget], f"{split}_forget": labels[forget]}
    return SimpleNamespace(
        expected=json.loads((GOLDEN / "expected.json").read_text()),
        logits=load_file(GOLDEN / "logits.safetensors"),
        targets=targets,
        weights={name: load_file(GOLDEN / f"{name}.safetensors") for name in ("unlearned", "retrained")},
        meta=json.loads((GOLDEN / "meta.json").read_text()),
    )


@pytest.fixture
def evaluate():
    """A metric's value on given columns, in batches of a given size."""

    def run(metric, *columns, batch_size=None):
        step = batch_size or len(columns[0])
        for start in range(0, len(columns[0]), step):
            metric.update(*(column[start : start + step] for column in columns))
        result = metric.compute()
        return {k: v.item() for k, v in result.items()} if isinstance(result, dict) else result.item()

    return run


@pytest.fixture
def sample_logits():
    """Reproducible logits."""

    def draw(seed, n=60, classes=5, scale=3.0):
        return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))

    return draw
