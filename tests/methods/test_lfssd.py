"""LFSSD against stored results; it never looks at a label."""

import pytest
import torch
from torch.utils.data import TensorDataset

from supreme.api import unlearn
from supreme.methods import LFSSD


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_weights_and_importances(case, dtype):
    golden = case("lfssd", dtype)
    values = golden.meta["hyperparameters"]
    method = LFSSD(golden.network(), values["selection_weighting_alpha"], values["dampening_constant_lambda"])
    golden.check(golden.unlearn(method).model.state_dict())
    if not golden.double:
        found = {f"importance_{part}.{k}": v for part, sums in method.importances.items() for k, v in sums.items()}
        golden.check(found, "intermediate", relative=True)


def test_labels_have_no_effect(tiny, same_weights):
    forget, retain = tiny.sets()
    other = [TensorDataset(part.tensors[0], torch.zeros_like(part.tensors[1])) for part in (forget, retain)]
    runs = [
        unlearn(tiny.network(), "LFSSD", forget=f, retain=r, batch_size=8, accelerator="cpu", selection_weight=1.1)
        for f, r in ((forget, retain), other)
    ]
    assert same_weights(runs[0].model, runs[1].model)
    assert not same_weights(runs[0].model, tiny.network())
