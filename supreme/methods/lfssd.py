"""LFSSD: loss-free selective synaptic dampening."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from supreme.batch import Batch
from supreme.methods.ssd import SSD


class LFSSD(SSD):
    """Loss-free SSD: dampening by how much a weight moves the length of the logits, so no label is read.

    As :class:`SSD` with importances I = mean over batches of the absolute gradient of the batch's mean squared L2 norm
    of the logits.

    Args:
        original: M_o.
        selection_weight: alpha > 0; larger selects fewer weights.
        dampening: lambda >= 0, finite; smaller shrinks more.
        full_importance: importances of D by parameter name, as in :class:`SSD`; saves the pass over D.
        batch_size: rows of a global batch, whose mean gradient counts once, at least 1; None takes the scenario's. The
            smaller, the nearer to the importances of single samples.
        seed: has no effect, as nothing is drawn.

    Raises:
        ConfigError: if ``selection_weight`` <= 0, ``dampening`` < 0, ``batch_size`` < 1, or ``full_importance`` does
            not fit the network.

    Needs: D_f and D_r without labels; one forward and backward pass over D and D_f.

    Reference: Foster, Fogarty, Schoepf, Oztireli, Brintrup 2024, arXiv:2402.19308, section 3.

    Differs from the published code as :class:`SSD` does.

    Example:
        >>> from torch import nn
        >>> LFSSD(nn.Linear(2, 2)).power
        1
    """

    paper: ClassVar[str] = "Foster et al. 2024, arXiv:2402.19308"
    power: ClassVar[int] = 1
    shared_importances: ClassVar[Mapping[str, Any]] = {
        "class_path": "supreme.methods.lfssd.LFSSD",
        "arguments": ("batch_size",),
    }

    def loss(self, batch: Batch) -> Tensor:
        """Squared L2 norm of the logits, float (n,)."""
        logits: Tensor = self.model(batch.image)
        wide = logits if logits.dtype == torch.float64 else logits.float()  # squares overflow float16
        return wide.square().sum(dim=1)
