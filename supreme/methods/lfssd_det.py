"""LFSSDDet: loss-free selective synaptic dampening with the importances of single samples."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from supreme.methods.ssd_det import SSDDet


class LFSSDDet(SSDDet):
    """Loss-free SSD with true per-sample importances: no label is read, and no batch size or order matters.

    As :class:`SSDDet` with importances I = (1/N) sum over samples of the absolute gradient of the squared L2 norm of
    the sample's logits; here too I_f / I_D is at most abs(D) / abs(D_f).

    Args:
        original: M_o.
        selection_weight: alpha > 0; larger selects fewer weights.
        dampening: lambda >= 0, finite; smaller shrinks more.
        full_importance: importances of D by parameter name, as in :class:`SSD`; saves the pass over D.
        chunk_size: samples whose gradients are in memory at a time, at least 1; None takes what fits.
        seed: has no effect, as nothing is drawn.

    Raises:
        ConfigError: as :class:`SSDDet` does.

    Needs: D_f and D_r without labels; the gradient of each sample of D and D_f. Every process holds one whole copy of
    the weights, as in :class:`SSDDet`.

    Reference: Foster, Fogarty, Schoepf, Oztireli, Brintrup 2024, arXiv:2402.19308, section 3, read sample by sample.

    Differs from the published code as :class:`SSDDet` does.

    Example:
        >>> from torch import nn
        >>> LFSSDDet(nn.Linear(2, 2)).power
        1
    """

    paper: ClassVar[str] = "Foster et al. 2024, arXiv:2402.19308"
    power: ClassVar[Literal[1, 2]] = 1
    shared_importances: ClassVar[Mapping[str, Any]] = {
        "class_path": "supreme.methods.lfssd_det.LFSSDDet",
        "arguments": ("chunk_size",),
    }

    @staticmethod
    def sample_loss(logits: Tensor, target: Tensor) -> Tensor:
        """Squared L2 norm of each row of logits, float (n,)."""
        return logits.square().sum(dim=1)
