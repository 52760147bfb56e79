"""Layer-wise distance: how far the weights of two networks are apart."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from supreme.distributed import is_split, local_piece, local_weight
from supreme.errors import DataError
from supreme.metrics.base import DIVERGED, EvaluationMetric


class LayerwiseDistance(EvaluationMetric):
    """L2 distance between the learnable parameters of M_u and M_r, all layers together.

    Parameters are matched by name; buffers (running statistics of BatchNorm) do not count. A parameter frozen in both
    networks is left out, unless everything is frozen in both, as in networks frozen for evaluation. A parameter that
    the forward pass never reaches keeps its random start and would add a constant: name it in ``exclude``. Two networks
    trained independently are far apart too, so compare with the distance between two retrained networks.

    Args:
        exclude: beginnings of parameter names to leave out, for example ``("backbone.pooler.",)``.
        kwargs: arguments of ``torchmetrics.Metric``.

    Example:
        >>> metric = LayerwiseDistance()
        >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> for network, value in ((a, 1.0), (b, 0.0)):
        ...     _ = [nn.init.constant_(parameter, value) for parameter in network.parameters()]
        >>> metric.update(a, b)
        >>> round(float(metric.compute()), 4)
        1.7321

    Reference:
        Nguyen et al. 2022, A Survey of Machine Unlearning, arXiv:2209.02299 (table of evaluation metrics).

    Differs from the published code in: nothing in the formula, but its ViT carries a pooler that the forward pass never
    uses, which adds about 21.7 in quadrature to every ViT value; ``exclude`` leaves such a part out, ``()`` keeps it.
    """

    key: str = "layerwise_distance"
    sets: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("unlearned_model", "retrained_model")
    needs: ClassVar[tuple[str, ...]] = ("retrained",)
    paper: ClassVar[str] = "Nguyen et al. 2022, arXiv:2209.02299"
    best: Literal["retrained", "low", "high"] = "low"
    higher_is_better: bool | None = False
    plot_lower_bound: float | None = 0.0

    whole: Tensor
    split: Tensor
    updates: Tensor

    def __init__(self, exclude: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.add_state("whole", torch.zeros((), dtype=torch.float64), dist_reduce_fx="max")
        self.add_state("split", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("updates", torch.zeros((), dtype=torch.float64), dist_reduce_fx="max")

    def update(self, unlearned_model: nn.Module, retrained_model: nn.Module) -> None:
        """Compare two networks; a later pair replaces an earlier one.

        Whole parameters, equal on every rank, are counted once; of split ones each rank counts its own piece.

        Args:
            unlearned_model: M_u.
            retrained_model: M_r, of the same architecture and split over the ranks in the same way.

        Raises:
            DataError: if names or shapes differ or nothing is left to compare.
        """
        whole, split = torch.zeros_like(self.whole), torch.zeros_like(self.split)
        for name, ours, theirs in self._pairs(unlearned_model, retrained_model):
            a, b = self._wide(local_weight(ours)), self._wide(local_piece(ours, theirs))
            if a.shape != b.shape:
                raise DataError(
                    f"Expected parameter '{name}' to have one shape in both networks, got {tuple(a.shape)} and "
                    f"{tuple(b.shape)}; compare networks of the same architecture."
                )
            square = (a - b).square().sum()
            if is_split(ours):
                split = split + square
            else:
                whole = whole + square
        self.whole, self.split, self.updates = whole, split, torch.ones_like(self.updates)

    def compute(self) -> Any:
        """The distance, a float64 scalar.

        Raises:
            DataError: if no pair was compared or a weight is NaN.
        """
        distance = (self.whole + self.split).sqrt()
        if not self.updates:
            raise DataError(f"Expected a pair of networks for {self.key}, got none; call update with both first.")
        if distance.isnan():
            raise DataError(f"Expected finite weights for {self.key}, got NaN; {DIVERGED}.")
        return distance

    def _pairs(self, ours: nn.Module, theirs: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
        """Parameters to compare, in the order of the first network."""
        first, second = self._named(ours), self._named(theirs)
        if first.keys() != second.keys():
            odd = sorted(first.keys() ^ second.keys())
            raise DataError(
                f"Expected the same parameter names in both networks, got {len(odd)} that only one has, such as "
                f"'{odd[0]}'; compare networks of the same architecture or exclude them."
            )
        learning = [name for name, p in first.items() if p.requires_grad or second[name].requires_grad]
        names = learning or list(first)
        if not names:
            raise DataError(f"Expected parameters to compare for {self.key}, got none; check exclude={self.exclude}.")
        return ((name, first[name], second[name]) for name in names)

    def _named(self, network: nn.Module) -> dict[str, nn.Parameter]:
        return {name: p for name, p in network.named_parameters() if not name.startswith(self.exclude)}
