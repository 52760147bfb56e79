"""SSD: selective synaptic dampening."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from supreme.batch import ForgetRequest, Part, Phase
from supreme.distributed import (
    NoStep,
    all_sum,
    check_gradients,
    local_gradient,
    local_piece,
    local_weight,
    loss_scale,
    pieces,
    set_weight,
    whole_piece,
)
from supreme.errors import ConfigError, DataError
from supreme.functional.dampening import dampen
from supreme.methods.base import UnlearningMethod, check_positive


class SSD(UnlearningMethod):
    """Selective synaptic dampening: shrink the weights that matter far more to D_f than to D.

    One pass over D and one over D_f, in evaluation mode, give the importances I = mean over batches of the squared
    gradient of the batch's mean cross-entropy. Weights with I_f > alpha I_D are multiplied by min(lambda I_D / I_f, 1).
    Nothing is trained; weights only shrink and buffers stay.

    Args:
        original: M_o.
        selection_weight: alpha > 0; larger selects fewer weights. The paper's 10.
        dampening: lambda >= 0, finite; smaller shrinks more. The paper's 1.
        full_importance: importances of D by parameter name (:meth:`whole_importances` of an earlier fit with the same
            model, data and batch size); saves the pass over D.
        batch_size: rows of a global batch, whose mean gradient counts once, at least 1; None takes the scenario's. The
            smaller, the nearer to the importances of single samples.
        seed: has no effect, as nothing is drawn.

    Attributes:
        importances: after the fit, this rank's pieces of I_D (``"full"``) and I_f (``"forget"``) by parameter name.

    Raises:
        ConfigError: if ``selection_weight`` <= 0, ``dampening`` < 0, ``batch_size`` < 1, or ``full_importance`` does
            not fit the network; in 16-mixed under DeepSpeed.
        DataError: if an importance is infinite or no number.

    Needs: D_f, D_r and labels; one forward and backward pass over D and D_f.

    Reference: Foster, Schoepf, Brintrup 2023, arXiv:2308.07707, equations 4 to 7.

    Differs from the published code in: batches come in dataset order, so that the importances of D belong to the
    model and the batch size alone (published: shuffled); sums are float32 or better whatever the precision, and the
    loss scale of 16-mixed is taken out (published: both left as the precision has them).

    Example:
        >>> SSD(nn.Linear(2, 2), selection_weight=5.0).selection_weight
        5.0
    """

    paper: ClassVar[str] = "Foster et al. 2023, arXiv:2308.07707"
    precisions: ClassVar[tuple[str, ...]] = ("float",)
    power: ClassVar[int] = 2
    resumes: ClassVar[bool] = False
    shared_importances: ClassVar[Mapping[str, Any]] = {
        "class_path": "supreme.methods.ssd.SSD",
        "arguments": ("batch_size",),
    }

    def __init__(
        self,
        original: nn.Module,
        selection_weight: float = 10.0,
        dampening: float = 1.0,
        full_importance: Mapping[str, Tensor] | None = None,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        if not selection_weight > 0 or not 0 <= dampening < math.inf:
            raise ConfigError(
                f"Expected selection_weight > 0 and a finite dampening >= 0, got {selection_weight} and {dampening}."
            )
        if batch_size is not None:
            check_positive(batch_size=batch_size)
        self.selection_weight, self.dampening, self.batch_size = selection_weight, dampening, batch_size
        self._given = full_importance
        self._full_alone = False
        self.importances: dict[str, dict[str, Tensor]] = {}
        self._batches = 0

    @property
    def phases(self) -> Sequence[Phase]:
        """D (unless its importances are given), then D_f."""
        full = [] if self._given else [self._pass_over("full")]
        return full if self._full_alone else [*full, self._pass_over("forget")]

    def measure_full_alone(self) -> None:
        """Have the coming fit compute the importances of D and nothing else; the weights stay as they are then."""
        self._full_alone = True

    def whole_importances(self, part: str = "full") -> dict[str, Tensor]:
        """Importances after the fit, by parameter name, whole and on the CPU; every rank has to call.

        Args:
            part: ``"full"`` (D; what the argument ``full_importance`` takes) or ``"forget"`` (D_f).
        """
        found = self.importances[part]
        return {name: whole_piece(parameter, found[name]).cpu() for name, parameter in pieces(self.model)}

    def _pass_over(self, part: Part) -> Phase:
        return Phase(part, batch_size=self.batch_size, shuffle=False, mode="eval", full_precision=True)

    def configure_optimizers(self) -> NoStep:
        """No weight moves by gradient."""
        return NoStep(self.model.parameters())

    def check(self, request: ForgetRequest, trainer: Trainer) -> None:
        """As every method; refuses a strategy whose gradients overflow too."""
        super().check(request, trainer)
        check_gradients(type(self).__name__, trainer)

    def prepare(self, request: ForgetRequest) -> None:
        """Start from empty importances; check those that are given."""
        self.importances, self._batches = {}, 0
        wanted = {name: tuple(parameter.shape) for name, parameter in pieces(self.model)}
        given = {name: tuple(value.shape) for name, value in self._given.items()} if self._given else wanted
        if given != wanted:
            name = next(name for name in (*wanted, *given) if wanted.get(name) != given.get(name))
            raise ConfigError(
                f"Expected full_importance of this network, but '{name}' has shape {given.get(name)} there and "
                f"{wanted.get(name)} in the network; compute it with the same model."
            )

    def release(self) -> None:
        """Let go of the importances too."""
        super().release()
        self.importances = {}

    def on_train_start(self) -> None:
        """Take this rank's pieces of the given importances."""
        if self._given:
            given = self._given
            self.importances["full"] = {name: local_piece(p, given[name]) for name, p in pieces(self.model)}

    def on_after_backward(self) -> None:
        """Add the batch's squared (or absolute) gradient to the importances of its set."""
        sums = self.importances.setdefault(self._plan[self._phase].data, {})
        scale = loss_scale(self)
        unscaled = not isinstance(scale, Tensor) and scale == 1
        self._batches += 1
        for name, parameter in pieces(self.model):
            gradient = local_gradient(parameter)
            gradient = gradient if gradient.dtype == torch.float64 else gradient.float()
            gradient = gradient if unscaled else gradient / scale
            if name not in sums:
                sums[name] = torch.zeros_like(gradient)
            if self.power == 2:
                sums[name].addcmul_(gradient, gradient)  # of the true gradient: a scaled one's square can overflow
            else:
                sums[name].add_(gradient.abs())

    def end_phase(self, phase: int) -> None:
        """Turn the sum over batches into a mean.

        Raises:
            DataError: if an importance is infinite or no number.
        """
        part = self._plan[phase].data
        for value in self.importances[part].values():
            value.div_(self._batches)
        self._batches = 0
        self._check_finite(part)

    def _check_finite(self, part: Part) -> None:
        """Refuse importances that overflowed; together with the other ranks, which hold other pieces."""
        bad = torch.zeros((), dtype=torch.int64, device=self.device)
        for value in self.importances[part].values():
            bad += value.numel() - value.isfinite().sum()
        if all_sum(bad):
            raise DataError(
                f"Expected finite importances, but {type(self).__name__} found weights whose gradients on the {part} "
                "set are infinite or no number; look at the images and the loss of M_o there, or choose a wider "
                "precision."
            )

    def finish(self) -> None:
        """Dampen the selected weights, piece by piece."""
        if self.importances.keys() != {"full", "forget"}:
            return  # a trial run that did not get so far
        for name, parameter in pieces(self.model):
            forget, full = self.importances["forget"][name], self.importances["full"][name]
            weight = local_weight(parameter)
            set_weight(parameter, dampen(weight, forget, full, self.selection_weight, self.dampening))
