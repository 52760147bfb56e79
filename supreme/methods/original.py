"""Original: the model as it is, the lower anchor of every table."""

from collections.abc import Sequence
from typing import ClassVar

from supreme.batch import Phase
from supreme.distributed import NoStep
from supreme.methods.base import UnlearningMethod


class Original(UnlearningMethod):
    """Do nothing: M_u is M_o. The row that every method has to beat.

    It has no phases, so a fit does nothing; plans evaluate M_o itself.

    Args:
        original: M_o.
        seed: has no effect.

    Example:
        >>> from torch import nn
        >>> Original(nn.Linear(2, 2)).phases
        []
    """

    needs: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]] = ("float", "fp8", "int8-training", "quantised")

    @property
    def phases(self) -> Sequence[Phase]:
        """Nothing to read."""
        return []

    def configure_optimizers(self) -> NoStep:
        """No weight moves."""
        return NoStep(self.model.parameters())
