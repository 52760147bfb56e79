"""SSDDet: selective synaptic dampening with the importances of single samples."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import Batch, ForgetRequest
from supreme.distributed import all_sum, is_split, local_piece, pieces, rank
from supreme.functional.dampening import select
from supreme.functional.importance import SampleGradientSums
from supreme.methods.base import check_positive
from supreme.methods.ssd import SSD
from supreme.outline import whole_copy

BATCH_SIZE = 256  # rows that are read at a time; a result does not depend on it


class SSDDet(SSD):
    """Selective synaptic dampening with true per-sample importances, which no batch size or order can change.

    As :class:`SSD` with importances I = (1/N) sum over samples of the squared gradient of the sample's cross-entropy.
    Since D contains D_f, I_f / I_D is at most abs(D) / abs(D_f): no weight can be selected from that alpha on, and
    the alphas that suit :class:`SSD`, whose batches even out most of I_D, are too large here.

    Args:
        original: M_o.
        selection_weight: alpha > 0; larger selects fewer weights.
        dampening: lambda >= 0, finite; smaller shrinks more.
        full_importance: importances of D by parameter name, as in :class:`SSD`; saves the pass over D.
        chunk_size: samples whose gradients are in memory at a time, at least 1; None takes what fits.
        seed: has no effect, as nothing is drawn.

    Attributes:
        importances: after the fit, this rank's pieces of I_D (``"full"``) and I_f (``"forget"``) by parameter name,
            summed in float64 and kept in the precision of the weights, at least float32.

    Raises:
        ConfigError: if ``selection_weight`` <= 0, ``dampening`` < 0, ``chunk_size`` < 1, or ``full_importance`` does
            not fit the network.

    Needs: D_f, D_r and labels; the gradient of each sample of D and D_f. Every process holds one whole copy of the
    weights, whatever the strategy, and the gradients of a chunk; importances are split as the weights are.

    Reference: Foster, Schoepf, Brintrup 2023, arXiv:2308.07707, equations 4 to 7, read sample by sample.

    Differs from the published code in: with several processes each sample counts once by its own gradient (published:
    the first sample of each batch counts by a mean over ranks). It warns where nothing is selected.

    Example:
        >>> SSDDet(nn.Linear(2, 2), selection_weight=5.0, chunk_size=8).chunk_size
        8
    """

    paper: ClassVar[str] = "Foster et al. 2023, arXiv:2308.07707"
    power: ClassVar[Literal[1, 2]] = 2
    compiles: ClassVar[bool] = False
    shared_importances: ClassVar[Mapping[str, Any]] = {
        "class_path": "supreme.methods.ssd_det.SSDDet",
        "arguments": ("chunk_size",),
    }

    def __init__(
        self,
        original: nn.Module,
        selection_weight: float = 10.0,
        dampening: float = 1.0,
        full_importance: Mapping[str, Tensor] | None = None,
        chunk_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(original, selection_weight, dampening, full_importance, batch_size=BATCH_SIZE, seed=seed)
        if chunk_size is not None:
            check_positive(chunk_size=chunk_size)
        self.chunk_size = chunk_size
        self._copy: list[nn.Module] = []  # in a list, so as to be no submodule
        self._gradients: SampleGradientSums | None = None
        self._rows: dict[str, int] = {}

    @staticmethod
    def sample_loss(logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of each row, float (n,), of logits (n, K) and classes (n,)."""
        return functional.cross_entropy(logits, target, reduction="none")

    def loss(self, batch: Batch) -> Tensor:
        """The sample loss of each row, float (n,)."""
        return self.sample_loss(self.model(batch.image), batch.target)

    def prepare(self, request: ForgetRequest) -> None:
        """Start from empty importances and take the copy of the weights before a strategy can split them."""
        super().prepare(request)
        self._rows = {}
        self._copy = [whole_copy(self.model).eval()]

    def on_train_start(self) -> None:
        """Move the copy to the device, in the wider precision of M_o and of this fit, at least float32."""
        super().on_train_start()
        network = self._copy.pop()
        wide = torch.float32
        for parameter in (*network.parameters(), *self.model.parameters()):
            wide = torch.promote_types(wide, parameter.dtype)
        network = network.to(self.device, wide)
        self._gradients = SampleGradientSums(network, self.sample_loss, self.power, self.chunk_size)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Add the rows of this rank; several ranks pass one row through M_u, because strategies wait for gradients."""
        with torch.autocast(self.device.type, enabled=False):
            self._add(batch)
            if isinstance(self.trainer.strategy, SingleDeviceStrategy):
                return 0 * next(p for p in self.model.parameters() if p.requires_grad).flatten()[0]
            first = batch._replace(image=batch.image[:1], target=batch.target[:1], weight=batch.weight[:1])
            return 0 * self.mean_loss(self.loss(first), first)

    def _add(self, batch: Batch) -> None:
        assert self._gradients is not None
        part, real = self._plan[batch.step.phase].data, slice(0 if batch.step.filler else None)
        sums = self.importances.setdefault(part, {})
        found = self._gradients(batch.image[real], batch.target[real])
        for name, parameter in pieces(self.model):
            value = found.pop(name)
            if is_split(parameter):
                value = local_piece(parameter, all_sum(value))
            if name not in sums:
                sums[name] = torch.zeros_like(value)
            sums[name].add_(value)
        self._rows[part] = self._rows.get(part, 0) + batch.step.size

    def on_after_backward(self) -> None:
        """Nothing: these gradients are those of no sample."""

    def end_phase(self, phase: int) -> None:
        """Turn the sum over samples into a mean."""
        part = self._plan[phase].data
        sums = self.importances[part]
        for name, parameter in pieces(self.model):
            value = sums[name] if is_split(parameter) else all_sum(sums[name])
            sums[name] = (value / self._rows[part]).to(torch.promote_types(parameter.dtype, torch.float32))
        self._check_finite(part)

    def finish(self) -> None:
        """Dampen the selected weights and let go of the copy; warn if none was selected."""
        super().finish()
        self._gradients = None
        if self.importances.keys() == {"full", "forget"} and not self._selected():
            warnings.warn(self._nothing_selected(), stacklevel=2)

    def _selected(self) -> int:
        """Number of selected weights of the whole network."""
        count = torch.zeros((), dtype=torch.int64, device=self.device)
        full, forget = self.importances["full"], self.importances["forget"]
        for name, parameter in pieces(self.model):
            if is_split(parameter) or rank() == 0:
                count += select(forget[name], full[name], self.selection_weight).sum()
        return int(all_sum(count))

    def _nothing_selected(self) -> str:
        text = f"{type(self).__name__} selected no weight at selection_weight={self.selection_weight:g}, so M_u is M_o"
        if "full" not in self._rows:
            return f"{text}; choose a smaller selection_weight."
        largest = self._rows["full"] / self._rows["forget"]
        return (
            f"{text}; I_f / I_D is at most |D| / |D_f| = {largest:.4g} because D contains D_f, so choose a "
            f"selection_weight well below that."
        )
