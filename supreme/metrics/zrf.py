"""ZRF: how close a network is to one that knows nothing."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from supreme.metrics.base import SampleMean, chosen
from supreme.metrics.js_divergence import UNDERFLOW, divergence, suffix


class ZRF(SampleMean):
    """Zero retrain forgetting: 1 - mean JS divergence between a network and an untrained one on the forget set.

    1 means as ignorant as the untrained (incompetent) teacher. The value of M_r is the one to reach; above it the
    network forgets more than retraining would.

    Args:
        model: ``"unlearned"`` is reported as ``zrf``; ``"original"`` and ``"retrained"`` (the values before unlearning
            and of the gold standard) as ``zrf_original`` and ``zrf_retrained``.
        base: base of the logarithm; 2 gives values in [0, 1].
        definition: ``"true"`` or ``"published"``, as in ``JSDivergence``.
        kwargs: arguments of ``torchmetrics.Metric``.

    Raises:
        ConfigError: if the base is not above 1.
        UnknownNameError: if the model or the definition is not known.

    Example:
        >>> import torch
        >>> metric = ZRF()
        >>> metric.update(torch.tensor([[99.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 99.0], [1.0, 2.0]]))
        >>> round(float(metric.compute()), 4)
        0.5

    Reference:
        Chundawat et al. 2023, Can Bad Teaching Induce Forgetting?, arXiv:2205.08096, the ZRF metric.

    Differs from the published code in: its divergence (see ``JSDivergence``), whose division by the number of classes
    pushes every value close to 1; ``definition="published"`` gives its formula (``initial_zrf`` with
    ``model="original"``, ``final_zrf`` with ``model="unlearned"``), with all networks in evaluation mode.
    """

    key: str = "zrf"
    sets: tuple[str, ...] = ("forget",)
    inputs: tuple[str, ...] = ("unlearned", "incompetent")
    needs: ClassVar[tuple[str, ...]] = ("incompetent",)
    paper: ClassVar[str] = "Chundawat et al. 2023, arXiv:2205.08096"
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    def __init__(
        self,
        model: Literal["unlearned", "original", "retrained"] = "unlearned",
        base: float = 2.0,
        definition: Literal["true", "published"] = "true",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = (chosen("model", model, ("unlearned", "original", "retrained")), "incompetent")
        self.base = base
        self.definition = chosen("definition", definition, ("true", "published"))
        self.key = f"{self.key}{'' if model == 'unlearned' else f'_{model}'}{suffix(base, definition)}"
        if definition == "published":
            self._nan_cause = UNDERFLOW

    def update(self, model: Tensor, incompetent: Tensor) -> None:
        """Count a batch.

        Args:
            model: float (n, K), logits of the evaluated network.
            incompetent: float (n, K), logits of the untrained network on the same samples.
        """
        self._add(divergence(self._wide(model), self._wide(incompetent), self.base, self.definition))

    def compute(self) -> Any:
        """1 - mean divergence, a float64 scalar.

        Raises:
            DataError: if there was no sample, or if the outputs of a network were NaN.
        """
        return 1.0 - self._mean()
