"""Losses of classification; one value per sample."""

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each sample, in nats.

    Args:
        logits: float (n, K).
        target: int64 (n,).

    Returns:
        float (n,), >= 0.

    Example:
        >>> import torch
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([1]))
        tensor([0.6931])
    """
    return functional.cross_entropy(logits, target, reduction="none")


def neg_grad(logits: Tensor, target: Tensor, max_loss: float | None = None) -> Tensor:
    """Minus the cross-entropy of each sample, in nats: to minimise it is to ascend the loss.

    Args:
        logits: float (n, K).
        target: int64 (n,).
        max_loss: samples whose cross-entropy is above it have this value and no gradient; None sets no bound.

    Returns:
        float (n,), <= 0 (Golatkar et al. 2020, arXiv:1911.04933, the "negative gradient" baseline).

    Example:
        >>> import torch
        >>> neg_grad(torch.zeros(1, 2), torch.tensor([1]))
        tensor([-0.6931])
    """
    losses = cross_entropy(logits, target)
    return -(losses if max_loss is None else losses.clamp(max=max_loss))
