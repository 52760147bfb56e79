"""ASSD: selective synaptic dampening that finds its threshold in the data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn

from supreme.batch import Batch, Phase
from supreme.distributed import all_sum, is_split, pieces, rank
from supreme.errors import ConfigError, DataError
from supreme.functional.quantiles import adaptive_rank, percentile
from supreme.methods.ssd import SSD

Reference = Literal["full", "retain"]


class ASSD(SSD):
    """Adaptive SSD: as SSD, with alpha from the ratios of importances, so that only lambda is left to choose.

    alpha is the percentile 100 - ln(1 + 100 abs(D_f) / abs(D)) of I_f / I_D over all weights; ratios that are no
    number or infinite are left out. The smaller the forget set, the fewer weights are dampened.

    Args:
        original: M_o.
        dampening: lambda >= 0, finite; smaller shrinks more.
        reference: what I_D is taken over, ``"full"`` (D) or ``"retain"`` (D_r, as the authors' own code, with
            ``dampening=0.1``).
        full_importance: importances of D by parameter name, as in :class:`SSD`; saves the pass over D.
        batch_size: rows of a global batch, whose mean gradient counts once, at least 1; None takes the scenario's.
        seed: has no effect, as nothing is drawn.

    Attributes:
        selection_weight: after the fit, alpha; 99 if there was no ratio at all, NaN before the fit.
        importances: after the fit, this rank's pieces of I_D (``"full"``) and I_f (``"forget"``) by parameter name.

    Raises:
        ConfigError: if ``dampening`` < 0, ``batch_size`` < 1, ``reference`` is neither of the two, or
            ``full_importance`` is given with ``reference="retain"`` or does not fit the network.

    Needs: D_f, D_r and labels; one forward and backward pass over D and D_f.

    Reference: Schoepf, Foster, Brintrup 2024, arXiv:2402.10098.

    Differs from the published code in: the percentile is taken over the weights of all ranks where they lie
    (published: on one rank); batches come in dataset order, as in :class:`SSD`.

    Example:
        >>> ASSD(nn.Linear(2, 2), dampening=0.5).dampening
        0.5
    """

    paper: ClassVar[str] = "Schoepf et al. 2024, arXiv:2402.10098"
    fallback: ClassVar[float] = 99.0
    shared_importances: ClassVar[Mapping[str, Any]] = {
        "class_path": "supreme.methods.ssd.SSD",
        "arguments": ("batch_size",),
        "where": {"reference": "full"},
    }

    def __init__(
        self,
        original: nn.Module,
        dampening: float = 1.0,
        reference: Reference = "full",
        full_importance: Mapping[str, Tensor] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            original, dampening=dampening, full_importance=full_importance, batch_size=batch_size, seed=seed
        )
        if reference not in get_args(Reference):
            raise ConfigError(f'Expected reference "full" or "retain", got {reference!r}.')
        if full_importance and reference != "full":
            raise ConfigError('Expected reference "full" where full_importance is given, got "retain"; leave one out.')
        self.reference = reference
        self.selection_weight = math.nan
        self._rows: dict[str, int] = {}

    @property
    def phases(self) -> Sequence[Phase]:
        """D (or D_r), then D_f; D is left out where its importances are given."""
        return super().phases if self.reference == "full" else [self._pass_over("retain"), self._pass_over("forget")]

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """As ever; counts the samples of each set."""
        part = self._plan[batch.step.phase].data
        self._rows[part] = self._rows.get(part, 0) + batch.step.size
        return super().training_step(batch, batch_idx)

    def finish(self) -> None:
        """Find alpha, then dampen."""
        self.importances = {"full" if part != "forget" else part: sums for part, sums in self.importances.items()}
        if self.importances.keys() == {"full", "forget"}:
            self.selection_weight = self._alpha()
        super().finish()

    def _alpha(self) -> float:
        try:
            return percentile(self._ratios(), adaptive_rank(self._rows["forget"] / self._size()), all_sum)
        except DataError:
            return self.fallback

    def _size(self) -> int:
        """abs(D): as counted, or as the request says where D was not read."""
        read = self._rows.get(self.reference)
        if read is not None:
            return read + (self._rows["forget"] if self.reference == "retain" else 0)
        size = self.request.train_size if self.request else None
        if size is None:
            raise ConfigError("Expected a request that tells train_size; leave full_importance out, so that D is read.")
        return size

    def _ratios(self) -> list[Tensor]:
        """This rank's share of the finite I_f / I_D; what every rank holds counts on the first."""
        ratios = []
        for name, parameter in pieces(self.model):
            ratio = self.importances["forget"][name] / self.importances["full"][name]
            counted = is_split(parameter) or rank() == 0
            ratios.append(ratio[ratio.isfinite()] if counted else ratio.flatten()[:0])
        return ratios
