"""The training loss of every pass over the data."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from supreme.callbacks.procedure import unmeasured
from supreme.distributed import all_sum, world_size


class LossCurve(Callback):
    """Mean over the global batches of each pass of the loss that was trained, read from the device once per pass.

    Args:
        passes: passes over the data in one Lightning epoch: 1 for a classifier, all of them for the method Retrain.

    Attributes:
        values: one loss per finished pass.

    Example:
        >>> LossCurve(passes=20).values
        []
    """

    def __init__(self, passes: int = 1) -> None:
        self.passes = passes
        self.values: list[float] = []
        self._sum: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch; close the pass after its last one."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if self._sum is None:
            self._sum = torch.zeros((), dtype=torch.float32, device=loss.device)
        self._sum += loss.detach()
        steps = int(trainer.num_training_batches) // self.passes
        if (batch_idx + 1) % steps == 0:
            with unmeasured(trainer):
                self.values.append(float(all_sum(self._sum)) / (steps * world_size()))
            self._sum = None
