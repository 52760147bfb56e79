"""Lipschitz regularisation: how much the logits move when the image does."""

import torch
from torch import Tensor


def perturb(
    images: Tensor, noise: Tensor, noise_std: float, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    """Add noise to images and clamp the sum to the range of the batch.

    Args:
        images: float (n, C, H, W).
        noise: standard-normal draws, float (n, C, H, W) or (S, n, C, H, W).
        noise_std: sigma > 0.
        low: smallest value that may come out; None takes the smallest of ``images``.
        high: largest value that may come out; None takes the largest of ``images``.

    Returns:
        Images of the shape of ``noise``.

    Example:
        >>> perturb(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[2.0, 2.0]]]]), 0.1)
        tensor([[[[0.2000, 1.0000]]]])
    """
    low = images.amin() if low is None else low
    high = images.amax() if high is None else high
    return torch.minimum(torch.maximum(images + noise_std * noise, low.to(images)), high.to(images))


def lipschitz_ratio(logits: Tensor, perturbed_logits: Tensor, images: Tensor, perturbed_images: Tensor) -> Tensor:
    """Distance of the logits divided by the distance of the images, both Euclidean.

    Args:
        logits: float (n, K).
        perturbed_logits: float (n, K) or (S, n, K).
        images: float (n, ...).
        perturbed_images: float (n, ...) or (S, n, ...).

    Returns:
        float (n,) or (S, n), >= 0, at least float32: ||z(x) - z(x')|| / ||x - x'|| (Foster et al. 2024,
        arXiv:2402.01401, algorithm 1); 0 where x' = x.

    Example:
        >>> x = torch.tensor([[0.0, 0.0]])
        >>> lipschitz_ratio(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 3.0]]), x, x + torch.tensor([[3.0, 4.0]]))
        tensor([0.4000])
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    change = (perturbed_images - images).flatten(perturbed_images.dim() - images.dim() + 1)
    moved = torch.linalg.vector_norm(change.to(wide), dim=-1)
    distance = torch.linalg.vector_norm(logits.to(wide) - perturbed_logits.to(wide), dim=-1)
    return torch.where(moved > 0, distance, 0.0) / torch.where(moved > 0, moved, 1.0)
