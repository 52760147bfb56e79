"""NegGrad: gradient ascent on the forget set."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from supreme.batch import Batch, Phase
from supreme.distributed import sgd
from supreme.errors import ConfigError
from supreme.functional.classification import neg_grad
from supreme.methods.base import UnlearningMethod, check_positive


class NegGrad(UnlearningMethod):
    """Negative gradient: SGD on D_f with the sign of the loss turned round.

    The loss has no bound, so many or long steps destroy the network; ``max_loss`` bounds it.

    Args:
        original: M_o.
        epochs: passes over D_f, at least 1.
        lr: learning rate of SGD, > 0, constant.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 term of SGD.
        max_loss: samples whose cross-entropy is above it give no gradient; None sets no bound.
        mode: ``"train"`` or ``"eval"``: mode of the network; ``"eval"`` leaves BatchNorm statistics as they are.
        seed: unlearning seed s_u; drives the order.

    Raises:
        ConfigError: if an argument is outside its range.

    Needs: D_f and labels; never reads D_r.

    Reference: Golatkar, Achille, Soatto 2020, arXiv:1911.04933 (the "negative gradient" baseline).

    Differs from the published code in: a learning rate of 1e-3, at the upper end of what is usual, as the published
    one (``lr=0.02``) destroys most networks.

    Example:
        >>> NegGrad(nn.Linear(2, 2), epochs=3).phases[0].passes
        3
    """

    paper: ClassVar[str] = "Golatkar et al. 2020, arXiv:1911.04933"
    needs: ClassVar[tuple[str, ...]] = ("forget",)
    aliases: ClassVar[tuple[str, ...]] = ("GA",)

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 5,
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        max_loss: float | None = None,
        mode: Literal["train", "eval"] = "train",
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs, lr=lr, max_loss=1 if max_loss is None else max_loss)
        if mode not in ("train", "eval"):
            raise ConfigError(f"Expected mode 'train' or 'eval', got {mode!r}.")
        self.epochs, self.lr, self.momentum, self.weight_decay = epochs, lr, momentum, weight_decay
        self.max_loss, self.mode = max_loss, mode

    @property
    def phases(self) -> Sequence[Phase]:
        """Passes over D_f."""
        return [Phase("forget", passes=self.epochs, mode=self.mode)]

    def loss(self, batch: Batch) -> Tensor:
        """Minus the cross-entropy of each row, float (n,)."""
        return neg_grad(self.model(batch.image), batch.target, self.max_loss)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with a constant learning rate."""
        return sgd(self.model.parameters(), self.lr, self.momentum, self.weight_decay)
