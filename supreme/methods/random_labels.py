"""RandomLabels: train the forget samples towards wrong labels."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import Batch, ForgetRequest, Phase
from supreme.distributed import fused
from supreme.errors import ConfigError
from supreme.methods.base import UnlearningMethod, check_positive
from supreme.seeding import derive, uniform


class RandomLabels(UnlearningMethod):
    """Random labelling: D_f with wrong labels and D_r with its own, trained together.

    Every forget sample gets one label, drawn once and uniformly from the classes that are not to be forgotten (class
    requests) or from all classes but its own (random requests).

    Args:
        original: M_o.
        epochs: passes over D, at least 1.
        lr: learning rate of Adam, > 0.
        batch_size: rows of a global batch; None takes the scenario's.
        labels: int64 (n_f,), the labels to use instead of drawn ones, in the order of D_f.
        seed: unlearning seed s_u; drives labels and order.

    Raises:
        ConfigError: if ``epochs`` or ``lr`` is not above 0, ``labels`` does not have one label in [0, K) per forget
            sample, or no class is left to draw.

    Needs: D_f, D_r and labels.

    Reference: Golatkar, Achille, Soatto 2020, arXiv:1911.04933 (random labels); settings of Foster et al. 2023.

    Differs from the published code in nothing but the per-epoch evaluation that it runs inside the timed region.

    Example:
        >>> RandomLabels(nn.Linear(2, 2)).phases[0].batch_size
        128
    """

    paper: ClassVar[str] = "Golatkar et al. 2020, arXiv:1911.04933"
    aliases: ClassVar[tuple[str, ...]] = ("RL",)

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 3,
        lr: float = 1e-4,
        batch_size: int | None = 128,
        labels: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs, lr=lr)
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.labels = None if labels is None else torch.as_tensor(labels)
        self._left: Tensor | None = None  # the classes that may be drawn for a class request

    @property
    def phases(self) -> Sequence[Phase]:
        """Passes over D."""
        return [Phase("full", passes=self.epochs, batch_size=self.batch_size)]

    def prepare(self, request: ForgetRequest) -> None:
        """Check the given labels, or that there is a class to draw."""
        classes, count = request.num_classes, len(request.forget_index)
        self._left = None
        if self.labels is None:
            if len(request.forget_classes or (0,)) >= classes:
                raise ConfigError(f"RandomLabels has no class left to draw: {classes} classes, all to be forgotten.")
            return
        given = self.labels
        whole = not (given.is_floating_point() or given.dtype == torch.bool)
        if not whole or given.shape != (count,) or bool(((given < 0) | (given >= classes)).any()):
            raise ConfigError(
                f"Expected {count} whole numbers in [0, {classes}) as labels, one per forget sample, got "
                f"{given.dtype} of shape {tuple(given.shape)}; give them in the order of D_f."
            )

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy with the wrong labels on forget samples and the true ones elsewhere, float (n,)."""
        target = torch.where(batch.forget, self.wrong_labels(batch.index, batch.target), batch.target)
        return functional.cross_entropy(self.model(batch.image), target, reduction="none")

    def wrong_labels(self, index: Tensor, target: Tensor) -> Tensor:
        """The label that each sample would get, int64 (n,); meaningful for forget samples.

        Args:
            index: int64 (n,), positions in D.
            target: int64 (n,), true classes.
        """
        if self.request is None:
            raise RuntimeError("labels exist once the method has been set up")
        if self.labels is not None:
            where = torch.searchsorted(self.request.forget_index.to(index.device), index)
            given = self.labels.to(index.device, torch.int64)
            return given[where.clamp(max=len(given) - 1)]
        draw = uniform(derive(self.seed, "random labels"), 0, index, 1)[:, 0]
        if self.request.forget_classes is None:
            label = (draw * (self.request.num_classes - 1)).long()
            return label + (label >= target).long()
        if self._left is None or self._left.device != index.device:
            left = [k for k in range(self.request.num_classes) if k not in self.request.forget_classes]
            self._left = torch.tensor(left, device=index.device)
        return self._left[(draw * len(self._left)).long()]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay."""
        return torch.optim.Adam(self.model.parameters(), lr=self.lr, fused=fused(self.model.parameters()))
