"""FineTune against stored results."""

import pytest
import torch

from supreme.errors import ConfigError
from supreme.methods import FineTune


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["finetune", "finetune_batches"])
def test_published_weights(case, name, dtype):
    golden = case(name, dtype)
    golden.check(golden.unlearn("FineTune").model.state_dict())


def test_seed_drives_the_order(tiny, fit, same_weights):
    runs = [fit(FineTune(tiny.network(), epochs=1, seed=seed), tiny.scenario()).model for seed in (1, 1, 2)]
    assert same_weights(runs[0], runs[1])
    assert not same_weights(runs[0], runs[2])


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"lr": float("nan")}])
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=f"Expected {next(iter(wrong))} > 0"):
        FineTune(tiny.network(), **wrong)
