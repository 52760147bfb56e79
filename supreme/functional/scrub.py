"""Losses of SCRUB (Kurmanji et al. 2023, arXiv:2302.09880); one value per sample, but for the smoothing term."""

from collections.abc import Iterable

import torch
from torch import Tensor

from supreme.functional.classification import cross_entropy
from supreme.functional.distillation import divergence_from_teacher


def scrub_distillation(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """KD = T^2 KL(teacher || student) of temperature-scaled softmax outputs, in nats.

    Args:
        student: logits, float (n, K).
        teacher: logits of M_o, float (n, K).
        temperature: T > 0.

    Returns:
        float (n,), >= 0.
    """
    return temperature**2 * divergence_from_teacher(student, teacher, temperature)


def scrub_forget(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """-KD: what SCRUB minimises on forget samples.

    Args:
        student: logits, float (n, K).
        teacher: logits of M_o, float (n, K).
        temperature: T > 0.

    Returns:
        float (n,), <= 0.
    """
    return -scrub_distillation(student, teacher, temperature)


def scrub_retain(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    gamma: float = 1.0,
    alpha: float = 0.5,
    temperature: float = 2.0,
) -> Tensor:
    """Gamma CE + alpha KD: what SCRUB minimises on retain samples (equation 3).

    Args:
        student: logits, float (n, K).
        teacher: logits of M_o, float (n, K).
        target: int64 (n,).
        gamma: weight of the cross-entropy.
        alpha: weight of the distillation loss.
        temperature: T > 0.

    Returns:
        float (n,).
    """
    return gamma * cross_entropy(student, target) + alpha * scrub_distillation(student, teacher, temperature)


def scrub_smoothing(parameters: Iterable[Tensor], original: Iterable[Tensor], smoothing: float = 0.5) -> Tensor:
    """The published code's pull towards M_o: smoothing * sum over parameter tensors of ||theta - theta_o||_2.

    Args:
        parameters: parameter tensors of the student.
        original: those of M_o, in the same order.
        smoothing: weight of the term.

    Returns:
        A scalar, >= 0; the gradient of a tensor that has not moved is 0.

    Example:
        >>> scrub_smoothing([torch.tensor([3.0, 4.0])], [torch.zeros(2)], smoothing=0.5)
        tensor(2.5000)
    """
    norms = [torch.linalg.vector_norm(own - start) for own, start in zip(parameters, original, strict=True)]
    return smoothing * torch.stack(norms).sum()
