"""Fits of a tiny vision transformer, done alone or as one of several ranks; results are plain tensors."""

import torch
from torch.utils.data import TensorDataset

from supreme.api import make_method
from supreme.distributed import full_state_dict, hushed, quiet_trainer
from supreme.models.build import NetworkSpec, build
from supreme.scenarios import GivenSets

SIZES = {"pretrained": False, "image_size": 8, "patch_size": 4, "hidden_size": 8, "layers": 2, "heads": 2}
FITS = {"SSD": {"selection_weight": 1.1}, "FineTune": {"epochs": 2}, "Retrain": {"epochs": 1}}


def original():
    """M_o in float64."""
    return build(NetworkSpec("ViT", SIZES), 3, seed=0).double()


def sets():
    """D_f and D_r, of 10 and 21 images: the last batches are uneven."""
    images = torch.randn(31, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(31) % 3
    mask = labels == 2
    return TensorDataset(images[mask], labels[mask]), TensorDataset(images[~mask], labels[~mask])


def unlearned(method, devices=1, strategy="auto"):
    """State of M_u."""
    module = make_method(method, original(), {**FITS[method], "seed": 3})
    scenario = GivenSets(*sets(), 3, forget_classes=[2], batch_size=8)
    with hushed():
        quiet_trainer("cpu", devices, strategy, max_epochs=1).fit(module, datamodule=scenario)
        return full_state_dict(module.model)


def all_unlearned(strategy, devices):
    """States of M_u by method, one after another."""
    return {method: unlearned(method, devices, strategy) for method in FITS}
