"""Original: the model as it is, the lower anchor of every table."""

from typing import ClassVar

from supreme.methods.base import UnlearningMethod


class Original(UnlearningMethod):
    """Do nothing: M_u is M_o. The row that every method has to beat.

    It has no phases and is never fitted; plans evaluate M_o itself.

    Args:
        original: M_o.
        seed: has no effect.

    Example:
        >>> from torch import nn
        >>> Original(nn.Linear(2, 2)).phases
        []
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def phases(self) -> list[object]:  # type: ignore[override]
        """Nothing to read."""
        return []
