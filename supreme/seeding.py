"""Seeds: what is random, what each seed drives, and draws that do not depend on the number of devices.

Three seeds exist. The training seed ``s_t`` drives the original model (initial weights, order, augmentation). The
unlearning seed ``s_u`` drives the retrained model and every method. The evaluation seed ``s_e`` drives what metrics
draw: the attack's folds. The bootstrap of a report has a fixed seed of its own. Every draw is keyed by (seed, purpose,
pass, sample), never by rank, worker or batch.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

_MASK_63 = (1 << 63) - 1


def derive(*parts: object) -> int:
    """A 63-bit seed from any plain values; equal on every rank, machine and Python version.

    Example:
        >>> derive(260, "order", 0) == derive(260, "order", 0) != derive(260, "order", 1)
        True
    """
    text = json.dumps(parts, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & _MASK_63


def generator(*parts: object) -> torch.Generator:
    """A CPU random generator of its own, seeded by :func:`derive`."""
    return torch.Generator().manual_seed(derive(*parts))


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and torch inside the block and put every global generator back afterwards."""
    with isolate_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries called inside the block read the global state
        torch.manual_seed(seed)
        yield


def uniform(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Uniform draws in [0, 1), ``count`` per sample, that depend on (seed, epoch, sample index) only.

    A counter-based hash (the finaliser of SplitMix64; Steele, Lea, Flood 2014) replaces a stateful generator, so the
    numbers are the same whatever the batch, worker, device or rank.

    Args:
        seed: any integer.
        epoch: pass number.
        index: int64 (n,), sample indices.
        count: draws per sample.

    Returns:
        float32 (n, count), on the device of ``index``.

    Example:
        >>> a = uniform(0, 0, torch.tensor([3, 5]), 2)
        >>> bool((a[1] == uniform(0, 0, torch.tensor([5]), 2)[0]).all())
        True
    """
    key = derive(seed, "uniform", epoch)
    column = torch.arange(count, device=index.device, dtype=torch.int64)
    state = _mix(_mix(index[:, None] * _signed(0x9E3779B97F4A7C15) + key) + (column + 1) * _signed(0xD1B54A32D192ED03))
    return ((state >> 40) & 0xFFFFFF).to(torch.float32) * (1.0 / (1 << 24))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _mix(x: Tensor) -> Tensor:
    """SplitMix64 finaliser on int64 with wrap-around."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & ((1 << 33) - 1))
