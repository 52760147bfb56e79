"""Selective synaptic dampening: which weights a forget set owns, and by how much they shrink."""

import torch
from torch import Tensor


def select(importance_forget: Tensor, importance_full: Tensor, selection_weight: float) -> Tensor:
    """Weights that matter to the forget set more than ``selection_weight`` times as much as to all data.

    Args:
        importance_forget: I_f, float, any shape, >= 0.
        importance_full: I_D, same shape.
        selection_weight: alpha > 0.

    Returns:
        bool, same shape: I_f > alpha * I_D (Foster et al. 2023, arXiv:2308.07707, equation 6). NaN selects nothing.

    Example:
        >>> select(torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]), 2.0)
        tensor([ True, False, False])
    """
    return importance_forget > selection_weight * importance_full


def dampen(
    weight: Tensor,
    importance_forget: Tensor,
    importance_full: Tensor,
    selection_weight: float,
    dampening: float,
) -> Tensor:
    """Shrink the selected weights by beta = min(lambda * I_D / I_f, 1).

    A weight with I_D = 0 < I_f becomes exactly 0; one that is not selected keeps its value bit for bit.

    Args:
        weight: float, any shape.
        importance_forget: I_f, same shape.
        importance_full: I_D, same shape.
        selection_weight: alpha > 0.
        dampening: lambda >= 0.

    Returns:
        The new weights (Foster et al. 2023, arXiv:2308.07707, equations 6 and 7).

    Example:
        >>> dampen(torch.tensor([2.0, 2.0]), torch.tensor([4.0, 1.0]), torch.tensor([1.0, 1.0]), 2.0, 1.0)
        tensor([0.5000, 2.0000])
    """
    chosen = select(importance_forget, importance_full, selection_weight)
    factor = (dampening * importance_full / importance_forget).clamp(max=1.0).to(weight.dtype)
    return torch.where(chosen, weight * factor, weight)
