"""Features by which a membership attack tells training samples from others, sample by sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from supreme.errors import DataError


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the softmax output in nats, per sample, with 0 log 0 = 0.

    A network tends to be surer of samples it was trained on, so that a low entropy speaks for membership.

    Args:
        logits: float (n, K); a class may be masked with -inf.

    Returns:
        float (n,) in [0, ln K], in float32 or wider; NaN only where logits are NaN or +inf.

    Raises:
        DataError: if the logits are not of shape (n, K).

    Reference:
        Salem et al. 2019, ML-Leaks, arXiv:1806.01246 (statistics of the posterior as membership features).

    Example:
        >>> entropy(torch.tensor([[0.0, 0.0], [800.0, 0.0]]))
        tensor([0.6931, 0.0000])
    """
    if logits.dim() != 2:
        raise DataError(f"Expected logits of shape (n, K), got {tuple(logits.shape)}; pass one row per sample.")
    log_p = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    p = log_p.exp()
    return torch.where(p == 0, torch.zeros_like(p), -p * log_p).sum(dim=-1)
