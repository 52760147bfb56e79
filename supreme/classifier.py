"""ImageClassifier: what is trained, M_o and M_r alike."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import Batch, EvaluationBatch
from supreme.batch_norm import set_filler
from supreme.distributed import DistributedModule, all_sum, fused, sgd
from supreme.errors import ConfigError
from supreme.models.build import NetworkSpec, build
from supreme.precision import TRAINS, check_use


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; M_o and M_r share it.

    The learning rate rises linearly from 0 over the first ``warmup_epochs``. Then it is ``lr * gamma ** m`` with m the
    milestones that are <= the epoch, counted from 1 (``"multistep"``), falls along half a cosine to 0 after the last
    step (``"cosine"``) or in the last epoch, staying the same within each (``"epoch_cosine"``), or stays
    (``"constant"``).

    Args:
        optimizer: ``"sgd"`` or ``"adamw"``.
        lr: peak learning rate, > 0.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 term of SGD, decoupled in AdamW; >= 0.
        schedule: ``"multistep"``, ``"cosine"``, ``"epoch_cosine"`` or ``"constant"``.
        milestones: epochs at which the learning rate drops.
        gamma: factor of each drop.
        warmup_epochs: length of the warm-up, >= 0.

    Raises:
        ConfigError: if a number is outside its range or a name is unknown.

    Differs from the published code in: M_r follows the same schedule as M_o (published: every drop one epoch later for
    M_r; milestones + 1 restore that); the cosine falls from step to step (published: from epoch to epoch, and the last
    epoch learns nothing; ``"epoch_cosine"`` restores that).

    Example:
        >>> recipe = Recipe(lr=0.1, milestones=(2,), gamma=0.2)
        >>> [round(recipe.rate(step, steps_per_epoch=2, epochs=2), 3) for step in range(4)]
        [0.0, 0.05, 0.02, 0.02]
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["multistep", "cosine", "epoch_cosine", "constant"] = "multistep"
    milestones: Sequence[int] = ()
    gamma: float = 0.2
    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        """Refuse numbers that cannot train."""
        schedules = ("multistep", "cosine", "epoch_cosine", "constant")
        if self.optimizer not in ("sgd", "adamw") or self.schedule not in schedules:
            raise ConfigError(
                f"Expected optimizer sgd or adamw and schedule {', '.join(schedules)}, got {self.optimizer!r} and "
                f"{self.schedule!r}."
            )
        if not self.lr > 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0 or self.warmup_epochs < 0:
            raise ConfigError(
                "Expected lr > 0, momentum in [0, 1), weight_decay >= 0 and warmup_epochs >= 0, got "
                f"{self.lr}, {self.momentum}, {self.weight_decay} and {self.warmup_epochs}."
            )

    def rate(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Learning rate of optimiser step ``step`` (from 0)."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.lr * step / warmup
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "cosine":
            done = (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup)
            return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        epoch = step // steps_per_epoch + 1
        if self.schedule == "epoch_cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / max(1, epochs - 1)))
        return self.lr * self.gamma ** sum(milestone <= epoch for milestone in self.milestones)

    def optimizers(
        self, parameters: Iterable[nn.Parameter], steps_per_epoch: Callable[[], int], epochs: int
    ) -> dict[str, Any]:
        """Optimiser and per-step schedule (none for a rate that never changes) in the form of ``configure_optimizers``.

        Args:
            parameters: what learns.
            steps_per_epoch: called from the first step on. (The Trainer must not be made to count its batches earlier:
                it would set up the loader before a checkpoint has told it where to go on.)
            epochs: number of epochs.
        """
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = sgd(parameters, self.lr, self.momentum, self.weight_decay)
        else:
            weights = list(parameters)
            optimizer = torch.optim.AdamW(weights, lr=self.lr, weight_decay=self.weight_decay, fused=fused(weights))
        if self.schedule == "constant" and not self.warmup_epochs:
            return {"optimizer": optimizer}
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self.rate(step, steps_per_epoch() if step else 1, epochs) / self.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ImageClassifier(DistributedModule):
    """A network trained with cross-entropy on D (as M_o) or, by the method Retrain, on D_r (as M_r).

    Args:
        network: an nn.Module (images (N, C, H, W) -> logits (N, K)), or its specification, which is built for the
            data's classes with initial weights drawn from ``seed``. None is ResNet18. Checkpoints give the
            specification, and the recipe, as mappings. Under FSDP2 a specification is built whole on rank 0's host
            alone and no device ever holds more than its share; a module is whole on every rank's host first.
        recipe: how it is trained.
        seed: training seed s_t; keys initial weights, order and augmentation.
        num_classes: number of logits of a specification; None asks the data.

    Differs from the published code in: the weights after the last epoch are kept (published: the best on the test set).

    Example:
        >>> ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))).recipe.lr
        0.1
    """

    def __init__(
        self,
        network: NetworkSpec | nn.Module | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.recipe = Recipe(**recipe) if isinstance(recipe, dict) else recipe or Recipe()
        spec = NetworkSpec(**network) if isinstance(network, dict) else network
        if spec is None:
            spec = NetworkSpec("ResNet18")
        if isinstance(spec, nn.Module):
            num_classes = getattr(spec, "num_classes", num_classes)
        self.seed, self.num_classes = seed, num_classes
        self.network_spec = getattr(spec, "spec", None) if isinstance(spec, nn.Module) else spec
        self.save_hyperparameters(
            {
                "network": None if self.network_spec is None else asdict(self.network_spec),
                "recipe": asdict(self.recipe) | {"milestones": list(self.recipe.milestones)},
                "seed": seed,
                "num_classes": num_classes,
            }
        )
        if isinstance(spec, nn.Module):
            self.model = spec
        elif num_classes is not None:
            self.model = build(spec, num_classes, seed)
        self._counts: list[Tensor] = []

    @property
    def input_spec(self) -> dict[str, Any] | None:
        """Size, mean and standard deviation that the network asks for, None without a wish."""
        return getattr(self.model, "input_spec", None)

    def setup(self, stage: str) -> None:
        """Build the network for the data's classes, where only its specification is given.

        Raises:
            ConfigError: if nothing tells the number of classes, the network was made for another one, or it is to be
                trained in a precision that has no gradients.
        """
        if stage == "fit":
            check_use("Training", TRAINS, self.trainer.precision)
        request = getattr(getattr(self.trainer, "datamodule", None), "request", None)
        if "model" in self._modules:
            if request is not None and self.num_classes not in (None, request.num_classes):
                raise ConfigError(
                    f"Expected a network for the {request.num_classes} classes of the data, got one for "
                    f"{self.num_classes}; choose the data that it was trained on."
                )
            return
        if request is None or self.network_spec is None:
            raise ConfigError("Expected a scenario or num_classes, so that the network's outputs can be counted.")
        self.num_classes = self.hparams["num_classes"] = request.num_classes
        self.model = self.laid_out(partial(build, self.network_spec, request.num_classes, self.seed))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        logits: Tensor = self.model(images)
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Keep filler rows out of BatchNorm."""
        set_filler(self.model, batch.step.filler)

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Mean cross-entropy of the global batch, this rank's part."""
        losses = functional.cross_entropy(self.model(batch.image), batch.target, reduction="none")
        return self.mean_loss(losses, batch)

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Count correct predictions and sum losses of the rows that count."""
        logits = self.model(batch.image)
        losses = functional.cross_entropy(logits, batch.target, reduction="none")
        right = logits.argmax(dim=1) == batch.target
        wide = torch.float32 if losses.device.type == "mps" else torch.float64
        rows = torch.stack([right.to(wide), losses.to(wide), torch.ones_like(losses, dtype=wide)])
        self._counts.append(rows @ batch.weight.to(wide))

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """Count from zero."""
        self._counts = []

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log ``val/accuracy`` and ``val/loss``, exact over all ranks."""
        self._log_means("val", prog_bar=True)

    def on_test_epoch_end(self) -> None:
        """Log ``test/accuracy`` and ``test/loss``, exact over all ranks."""
        self._log_means("test")

    def _log_means(self, stage: str, prog_bar: bool = False) -> None:
        right, loss, count = all_sum(torch.stack(self._counts).sum(dim=0)).tolist()
        self.log_dict({f"{stage}/accuracy": right / count, f"{stage}/loss": loss / count}, prog_bar=prog_bar)

    def predict_step(self, batch: EvaluationBatch, batch_idx: int) -> Tensor:
        """Logits of the rows that count, float (n, K)."""
        logits: Tensor = self.model(batch.image)
        return logits[batch.weight > 0]

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe over the Trainer's epochs."""
        epochs = self.trainer.max_epochs or -1
        if epochs < 1:
            raise ConfigError(
                f"Expected max_epochs >= 1 for the schedule, got {self.trainer.max_epochs}; set trainer.max_epochs."
            )
        return self.recipe.optimizers(self.model.parameters(), self._steps_per_epoch, epochs)

    def _steps_per_epoch(self) -> int:
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
