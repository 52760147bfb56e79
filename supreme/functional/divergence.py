"""How far apart the outputs of two networks are, sample by sample."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from supreme.errors import ConfigError, DataError


def js_divergence(p_logits: Tensor, q_logits: Tensor, base: float = 2.0) -> Tensor:
    """Jensen-Shannon divergence of two softmax outputs, per sample: 0.5 KL(p, m) + 0.5 KL(q, m) with m = (p + q) / 2.

    It is computed from log-probabilities through log(p / m) = min(d, 0) - log((1 + exp(-abs(d))) / 2) with
    d = log p - log q. No probability can underflow into an infinite value, and equal logits give exactly 0.

    Args:
        p_logits: float (n, K), logits of one network; a class may be masked with -inf.
        q_logits: float (n, K), logits of the other network; swapping both changes no bit of the result.
        base: base of the logarithm, above 1; 2 gives values in [0, 1], ``math.e`` nats in [0, ln 2].

    Returns:
        float (n,), in float32 or wider; NaN only where logits are NaN or +inf.

    Raises:
        ConfigError: if the base is not above 1.
        DataError: if the shapes do not fit.

    Reference:
        J. Lin 1991, Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37(1).

    Example:
        >>> p, q = torch.tensor([[0.7, 0.1, 0.1, 0.1]]), torch.tensor([[0.1, 0.1, 0.1, 0.7]])
        >>> js_divergence(p.log(), q.log(), base=math.e)
        tensor([0.2531])
        >>> js_divergence(torch.tensor([[900.0, 0.0]]), torch.tensor([[0.0, 900.0]]))
        tensor([1.])
    """
    if not base > 1:
        raise ConfigError(f"Expected a base above 1 for the logarithm, got {base}; use 2 or math.e.")
    log_p, log_q = (F.log_softmax(logits, dim=-1) for logits in _pair(p_logits, q_logits))
    difference = log_p - log_q
    excess = -torch.log1p(torch.expm1(-difference.abs()) / 2)
    of_p = _expectation(log_p.exp(), difference.clamp(max=0) + excess)
    of_q = _expectation(log_q.exp(), (-difference).clamp(max=0) + excess)
    scale = math.log(base)
    return (0.5 * (of_p + of_q).sum(dim=-1) / scale).clamp(0.0, math.log(2.0) / scale)


def published_js_divergence(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """The quantity that published unlearning code reports as JS divergence, per sample, in nats.

    It is 0.5 [KL(m, p) + KL(m, q)] / K: the mixture m is the first argument of both terms, and the sum is divided by
    the number of classes K. It is no Jensen-Shannon divergence: it has no upper bound, shrinks with K, is infinite
    where the probability of one network underflows to 0 and NaN where both do. Kept for comparison with published
    numbers; :func:`js_divergence` is the definition.

    Args:
        p_logits: float (n, K), logits of one network.
        q_logits: float (n, K), logits of the other network.

    Returns:
        float (n,), in the precision of the logits (at least float32), on which underflow depends.

    Raises:
        DataError: if the shapes do not fit.

    Example:
        >>> p, q = torch.tensor([[0.7, 0.1, 0.1, 0.1]]), torch.tensor([[0.1, 0.1, 0.1, 0.7]])
        >>> published_js_divergence(p.log(), q.log())
        tensor([0.0827])
    """
    p, q = (F.softmax(logits, dim=-1) for logits in _pair(p_logits, q_logits))
    mixture = (p + q) / 2
    terms = mixture * (mixture.log() - p.log()) + mixture * (mixture.log() - q.log())
    return 0.5 * terms.sum(dim=-1) / p.shape[-1]


def activation_distance(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """L2 norm of the difference of two softmax outputs, per sample, in [0, sqrt 2].

    Args:
        p_logits: float (n, K), logits of one network.
        q_logits: float (n, K), logits of the other network.

    Returns:
        float (n,), in float32 or wider; exactly 0 for equal logits.

    Raises:
        DataError: if the shapes do not fit.

    Example:
        >>> activation_distance(torch.tensor([[90.0, 0.0]]), torch.tensor([[0.0, 90.0]]))
        tensor([1.4142])
    """
    p, q = (F.softmax(logits, dim=-1) for logits in _pair(p_logits, q_logits))
    return (p - q).square().sum(dim=-1).sqrt()


def agreement(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Whether two networks predict the same class, per sample.

    Args:
        p_logits: float (n, K), logits of one network.
        q_logits: float (n, K), logits of the other network.

    Returns:
        bool (n,); the first of several largest logits is the prediction.

    Raises:
        DataError: if the shapes do not fit.

    Example:
        >>> agreement(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 9.0], [0.0, 1.0]]))
        tensor([ True, False])
    """
    p_wide, q_wide = _pair(p_logits, q_logits)
    return p_wide.argmax(dim=-1) == q_wide.argmax(dim=-1)


def _pair(p_logits: Tensor, q_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Both logits in float32 or wider, after a check of their shapes."""
    if p_logits.dim() != 2 or p_logits.shape != q_logits.shape:
        raise DataError(
            f"Expected the logits of both networks in one shape (n, K), got {tuple(p_logits.shape)} and "
            f"{tuple(q_logits.shape)}; pass the same samples through both."
        )
    dtype = torch.promote_types(torch.promote_types(p_logits.dtype, q_logits.dtype), torch.float32)
    return p_logits.to(dtype), q_logits.to(dtype)


def _expectation(probability: Tensor, values: Tensor) -> Tensor:
    """Products with 0 log 0 = 0; NaN probabilities stay NaN."""
    return torch.where(probability == 0, torch.zeros_like(probability), probability * values)
