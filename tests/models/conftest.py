"""A tiny vision transformer, drawn, stored in a folder as transformers stores it, and one for two processes."""

import importlib
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
SIZES = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "layers": 2, "heads": 2}


@pytest.fixture(scope="session")
def tiny_sizes():
    """Arguments of a ViT of 2,000 weights that nothing has to be fetched for."""
    return {"pretrained": False, **SIZES}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of a ViT classifier for seven classes with its image processor."""
    import torch
    import transformers
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("checkpoint")
    config = ViTConfig(
        image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        num_labels=7,
    )  # fmt: skip
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    size, mean, std = {"height": 8, "width": 8}, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    ViTImageProcessor(size=size, image_mean=mean, image_std=std).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def transformer_work():
    """The module transformer_work.py, importable here and in the processes that are started from here."""
    sys.path.insert(0, HERE)
    try:
        yield importlib.import_module("transformer_work")
    finally:
        sys.path.remove(HERE)
