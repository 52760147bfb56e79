"""Retrain: the gold standard, a model trained on the retain set only."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import nn

from supreme.batch import ForgetRequest, Phase
from supreme.classifier import Recipe
from supreme.methods.base import UnlearningMethod, check_positive
from supreme.models.build import restart


class Retrain(UnlearningMethod):
    """Train from scratch on D_r by the recipe of M_o: the retrained model M_r.

    Nothing but the network's architecture is taken from M_o; a network with pretrained weights starts from them again,
    with a fresh head. With D_f put back it gives the same weights as ``fit`` with the same seed, bit for bit.

    Args:
        original: M_o.
        epochs: passes over D_r, at least 1; as many as M_o was trained for.
        recipe: how M_o was trained; a mapping of its arguments will do.
        seed: unlearning seed s_u; drives initial weights, order and augmentation.

    Raises:
        ConfigError: if ``epochs`` is below 1 or a parameter of the network cannot be initialised anew.

    Needs: D_r and labels; never reads D_f.

    Differs from the published code in: same recipe as M_o in full (published: batch size 128 in random requests, every
    drop of the learning rate one epoch later, best-on-test selection for M_o only).

    Example:
        >>> Retrain(nn.Linear(2, 2), epochs=3).phases[0].augment
        True
    """

    needs: ClassVar[tuple[str, ...]] = ("retain",)

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 20,
        recipe: Recipe | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs)
        self.epochs = epochs
        self.recipe = Recipe(**recipe) if isinstance(recipe, dict) else recipe or Recipe()

    @property
    def phases(self) -> Sequence[Phase]:
        """Augmented passes over D_r."""
        return [Phase("retain", passes=self.epochs, augment=True)]

    def prepare(self, request: ForgetRequest) -> None:
        """Start from fresh weights, or from the pretrained ones that M_o started from."""
        self.model = restart(self.model, self.seed)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe over the passes."""
        return self.recipe.optimizers(self.model.parameters(), self._steps_per_pass, self.epochs)

    def _steps_per_pass(self) -> int:
        return max(1, int(self.trainer.num_training_batches) // self.epochs)  # a trial run has fewer steps than passes
