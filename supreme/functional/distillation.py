"""Losses that pull a student towards a teacher; one value per sample."""

from torch import Tensor
from torch.nn import functional


def divergence_from_teacher(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of temperature-scaled softmax outputs, in nats.

    Args:
        student: logits, float (n, K).
        teacher: logits, float (n, K).
        temperature: T > 0; both logits are divided by it.

    Returns:
        float (n,), >= 0 (Hinton et al. 2015, arXiv:1503.02531, without the factor T^2).

    Example:
        >>> import torch
        >>> divergence_from_teacher(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([0.])
    """
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)


def two_teachers(
    student: Tensor, competent: Tensor, incompetent: Tensor, forget: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL to the incompetent teacher on forget samples and to the competent one on the others, in nats.

    Args:
        student: logits, float (n, K).
        competent: logits of M_o, float (n, K).
        incompetent: logits of the incompetent teacher, float (n, K).
        forget: bool (n,).
        temperature: T > 0.

    Returns:
        float (n,) (Chundawat et al. 2023, arXiv:2205.08096, equation 3).
    """
    mask = forget[:, None].to(student.dtype)
    target = mask * functional.softmax(incompetent / temperature, dim=1)
    target = target + (1 - mask) * functional.softmax(competent / temperature, dim=1)
    log_student = functional.log_softmax(student / temperature, dim=1)
    return functional.kl_div(log_student, target, reduction="none").sum(dim=1)
