"""Wall-clock time of the procedure alone."""

import time
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer

from supreme.callbacks.procedure import Procedure, over_ranks, synchronise


class ElapsedTime(Procedure):
    """Wall-clock time of the procedure alone, in seconds; maximum over ranks.

    A monotonic clock, read after the device has done all its work, runs from the start of the module's
    ``on_train_start`` to the end of its last ``on_train_batch_end`` (see :class:`Procedure` for what is left out).
    Ranks start together. A compile warm-up or a teacher made in ``on_fit_start`` or earlier is not in the figure. A fit
    that is resumed from a checkpoint goes on from the time stored there; work after that checkpoint which was lost is
    not counted.

    Args:
        include_data: whether the time spent waiting for the next batch counts. Without it the device is synchronised
            before every fetch, so that loading never hides computation; the fit itself may take longer for it.

    Attributes:
        time_s: the result, None before the end of the fit; also in ``trainer.callback_metrics["time_s"]``, which is
            where it is found after strategies that run the fit in other processes (``ddp_spawn``, ``ddp_fork``).

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> clock = ElapsedTime()
        >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        >>> trainer = Trainer(accelerator="cpu", max_steps=2, enable_model_summary=False, callbacks=[clock], **quiet)
        >>> trainer.fit(BoringModel())
        >>> 0 < clock.time_s < 60
        True

    Differs from the published code: it reads the system clock, does not wait for the device, and includes validation,
    printing and the start of loader workers.
    """

    first_out: ClassVar[bool] = True

    def __init__(self, include_data: bool = True) -> None:
        super().__init__(include_data)
        self.time_s: float | None = None
        self._device = torch.device("cpu")
        self._elapsed_s = 0.0
        self._since_s = 0.0

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints; two clocks with different arguments may live in one trainer."""
        return self._generate_state_key(include_data=self.include_data)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier fit; a checkpoint, if any, is read after this."""
        if stage == "fit":
            self.time_s, self._elapsed_s = None, 0.0

    def begin(self, trainer: Trainer) -> None:
        """Wait for all ranks, so that none counts the set-up of another."""
        self._device = trainer.strategy.root_device
        trainer.strategy.barrier("ElapsedTime")

    def resume(self) -> None:
        """Start the clock."""
        synchronise(self._device)
        self._since_s = time.perf_counter()

    def suspend(self) -> None:
        """Stop the clock."""
        synchronise(self._device)
        self._elapsed_s += time.perf_counter() - self._since_s

    def finish(self, trainer: Trainer) -> None:
        """Take the slowest rank's time."""
        self.time_s = over_ranks(trainer, self._elapsed_s, "max")

    def resources(self) -> dict[str, float | None]:
        """``time_s``, once known."""
        return {} if self.time_s is None else {"time_s": self.time_s}

    def state_dict(self) -> dict[str, Any]:
        """Time so far, for a fit that is resumed."""
        return {"elapsed_s": self._elapsed_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the stored time."""
        self._elapsed_s = float(state_dict["elapsed_s"])
