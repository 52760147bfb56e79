"""FineTune: go on training on the retain set."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from supreme.batch import Phase
from supreme.distributed import sgd
from supreme.methods.base import UnlearningMethod, check_positive


class FineTune(UnlearningMethod):
    """Fine-tuning on D_r: forgetting by drift alone.

    Args:
        original: M_o.
        epochs: passes over D_r, at least 1.
        lr: learning rate of SGD, > 0, constant.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 term of SGD.
        augment: whether D_r is augmented as in training.
        seed: unlearning seed s_u; drives the order.

    Raises:
        ConfigError: if ``epochs`` or ``lr`` is not above 0.

    Needs: D_r and labels; never reads D_f.

    Reference: the usual baseline; settings of Foster et al. 2023, arXiv:2308.07707.

    Differs from the published code in nothing but the per-epoch evaluation that it runs inside the timed region.

    Example:
        >>> FineTune(nn.Linear(2, 2), epochs=3).phases[0].passes
        3
    """

    paper: ClassVar[str] = "baseline; Foster et al. 2023, arXiv:2308.07707"
    needs: ClassVar[tuple[str, ...]] = ("retain",)
    aliases: ClassVar[tuple[str, ...]] = ("FT",)

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 5,
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs, lr=lr)
        self.epochs, self.lr, self.momentum, self.weight_decay = epochs, lr, momentum, weight_decay
        self.augment = augment

    @property
    def phases(self) -> Sequence[Phase]:
        """Passes over D_r."""
        return [Phase("retain", passes=self.epochs, augment=self.augment)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with a constant learning rate."""
        return sgd(self.model.parameters(), self.lr, self.momentum, self.weight_decay)
