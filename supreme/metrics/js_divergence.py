"""JS divergence: how different two networks' outputs are as distributions."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from supreme.errors import ConfigError
from supreme.functional.divergence import js_divergence, published_js_divergence
from supreme.metrics.base import SampleMean, chosen

UNDERFLOW = "the network has diverged, or probabilities of both networks underflow, so use definition='true'"


class JSDivergence(SampleMean):
    """Mean over samples of the Jensen-Shannon divergence between the softmax outputs of M_u and M_r, in [0, 1].

    Args:
        base: base of the logarithm; 2 gives [0, 1], ``math.e`` nats in [0, ln 2], reported as ``js_divergence_nats``.
        definition: ``"true"`` is 0.5 KL(p, m) + 0.5 KL(q, m); ``"published"`` is the quantity of the published code,
            reported as ``js_divergence_published``, always in nats and float32.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ConfigError: if the base is not above 1.
        UnknownNameError: if the definition is neither.

    Example:
        >>> metric = JSDivergence()
        >>> metric.update(torch.tensor([[99.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 99.0], [1.0, 2.0]]))
        >>> round(float(metric.compute()), 4)
        0.5

    Reference:
        Chundawat et al. 2023, Can Bad Teaching Induce Forgetting?, arXiv:2205.08096.

    Differs from the published code in: it puts the mixture first in both divergences and divides by samples x classes,
    is infinite or NaN where a probability underflows, leaves M_r in train mode and averages over ranks.
    ``definition="published"`` gives its formula with all networks in evaluation mode.
    """

    key: str = "js_divergence"
    inputs: tuple[str, ...] = ("unlearned", "retrained")
    needs: ClassVar[tuple[str, ...]] = ("retrained",)
    paper: ClassVar[str] = "Chundawat et al. 2023, arXiv:2205.08096"
    best: Literal["retrained", "low", "high"] = "low"
    higher_is_better: bool | None = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def __init__(self, base: float = 2.0, definition: Literal["true", "published"] = "true", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.base = base
        self.definition = chosen("definition", definition, ("true", "published"))
        self.key = f"{self.key}{suffix(base, definition)}"
        if definition == "published":
            self._nan_cause = UNDERFLOW

    def update(self, unlearned: Tensor, retrained: Tensor) -> None:
        """Count a batch.

        Args:
            unlearned: float (n, K), logits of M_u.
            retrained: float (n, K), logits of M_r on the same samples.
        """
        self._add(divergence(self._wide(unlearned), self._wide(retrained), self.base, self.definition))


def divergence(p_logits: Tensor, q_logits: Tensor, base: float, definition: str) -> Tensor:
    """Per-sample divergence by one of the two definitions, float64 (n,)."""
    if definition == "published":
        return published_js_divergence(p_logits.float(), q_logits.float()).to(torch.float64)
    return js_divergence(p_logits, q_logits, base)


def suffix(base: float, definition: str) -> str:
    """What a key gets appended, so that numbers of different definition or unit never share one.

    Raises:
        ConfigError: if the base is not above 1.

    Example:
        >>> suffix(2.0, "true"), suffix(math.e, "true"), suffix(2.0, "published")
        ('', '_nats', '_published')
    """
    if not base > 1:
        raise ConfigError(f"Expected a base above 1 for the logarithm, got {base}; use 2 or math.e.")
    if definition == "published":
        return "_published"
    if base == 2:
        return ""
    return "_nats" if base == math.e else f"_base_{base:g}"
