"""UNSIR: learn noise that the forget class fears, impair with it, then repair."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import Batch, ForgetRequest, Phase, Samples, laid_out_as
from supreme.distributed import (
    add_to_gradient,
    all_sum,
    fused,
    is_split,
    local_gradient,
    loss_scale,
    pieces,
    world_size,
)
from supreme.errors import ConfigError
from supreme.methods.base import UnlearningMethod, check_positive
from supreme.seeding import generator


class UNSIR(UnlearningMethod):
    """Unlearning by selective impair and repair.

    (1) Noise images are trained to maximise the loss of the forget class: minimise
    -CE(M_o(noise), class) + 0.1 ||noise||^2. (2) Impair: one pass over copies of the noise, labelled as the forget
    class, and over a few samples of every other class. (3) Repair: one pass over these retain samples.

    Args:
        original: M_o.
        noise_steps: Adam steps on the noise, at least 1; None takes 25 for classes and 250 for fine classes.
        noise_lr: learning rate of the noise, > 0.
        noise_batch_size: number of noise images, at least 1.
        noise_repeats: copies of each noise image in the impair phase, at least 1.
        noise_penalty: weight of the squared L2 norm of a noise image.
        samples_per_class: the first so many retain samples of each class, at least 1.
        lr: learning rate of Adam in impair and repair, > 0.
        impair_batch_size: rows of a global batch in the impair phase.
        repair_batch_size: rows of a global batch in the repair phase.
        noise: float (noise_batch_size, C, H, W), initial noise instead of a standard-normal draw.
        leak_noise_gradients: whether the sum of the network's gradients of the noise phase enters the first impair
            step, as in the published code.
        seed: unlearning seed s_u; drives noise and order.

    Raises:
        ConfigError: if an argument is outside its range.
        NotApplicableError: if the request names no class.

    Attributes:
        noise: after the fit, the trained noise, float (noise_batch_size, C, H, W).

    Needs: D_r with labels and the class to forget; never reads D_f.

    Reference: Tarun, Chundawat, Mandal, Kankanhalli 2023, arXiv:2111.08947, equations 2 to 4.

    Differs from the published code in: gradients of the noise phase do not leak into the first impair step
    (``leak_noise_gradients=True`` lets them); in sub-class requests retain samples come from every fine class but the
    forgotten one.

    Example:
        >>> [phase.data for phase in UNSIR(nn.Linear(2, 2)).phases]
        ['none', 'retain', 'retain']
    """

    paper: ClassVar[str] = "Tarun et al. 2023, arXiv:2111.08947"
    needs: ClassVar[tuple[str, ...]] = ("retain", "class")
    resumes: ClassVar[bool] = False
    compiles: ClassVar[bool] = False

    def __init__(
        self,
        original: nn.Module,
        noise_steps: int | None = None,
        noise_lr: float = 0.1,
        noise_batch_size: int = 32,
        noise_repeats: int = 80,
        noise_penalty: float = 0.1,
        samples_per_class: int = 500,
        lr: float = 1e-4,
        impair_batch_size: int = 32,
        repair_batch_size: int = 128,
        noise: Tensor | None = None,
        leak_noise_gradients: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(
            noise_steps=25 if noise_steps is None else noise_steps,
            noise_lr=noise_lr,
            noise_batch_size=noise_batch_size,
            noise_repeats=noise_repeats,
            samples_per_class=samples_per_class,
            lr=lr,
        )
        self.noise_steps, self.noise_lr, self.noise_penalty = noise_steps, noise_lr, noise_penalty
        self.noise_batch_size, self.noise_repeats = noise_batch_size, noise_repeats
        self.samples_per_class, self.lr = samples_per_class, lr
        self.impair_batch_size, self.repair_batch_size = impair_batch_size, repair_batch_size
        self._initial, self.noise = noise, torch.empty(0)
        self._noise_optimizer: torch.optim.Optimizer | None = None
        self.leak_noise_gradients = leak_noise_gradients
        self._leak: dict[str, Tensor] = {}
        self._classes: Tensor | None = None  # of each noise image
        self._still: list[nn.Parameter] = []  # weights of which no gradients are computed for now

    @property
    def phases(self) -> Sequence[Phase]:
        """Noise, impair, repair."""
        fine = self.request is not None and self.request.forget_subclasses is not None
        steps = self.noise_steps or (250 if fine else 25)
        size, copies = self.noise_batch_size, self.noise_batch_size * self.noise_repeats
        return [
            Phase("none", steps, size, shuffle=False, mode="eval", lr=0.0, synthetic=size),
            Phase(
                "retain",
                1,
                self.impair_batch_size,
                lr=self.lr,
                select=self._first,
                synthetic=copies,
                reset_optimizer=True,
            ),
            Phase("retain", 1, self.repair_batch_size, lr=self.lr, select=self._first, reset_optimizer=True),
        ]

    def prepare(self, request: ForgetRequest) -> None:
        """Forget the noise of an earlier run."""
        self.noise, self._noise_optimizer, self._leak, self._classes = torch.empty(0), None, {}, None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Enter the next phase; one device alone computes no gradients of the weights in phase 0."""
        entered = batch.step.phase != self._phase
        super().on_train_batch_start(batch, batch_idx)
        if entered:
            self._hold_weights(batch.step.phase == 0 and not self.leak_noise_gradients and self._alone())

    def _alone(self) -> bool:
        """Whether nothing waits for gradients of the weights: no wrapper, no shards, no scaler of 16-mixed."""
        split = any(is_split(parameter) for _, parameter in pieces(self.model))
        scale = loss_scale(self)
        return self.trainer.model is self and not isinstance(scale, Tensor) and scale == 1 and not split

    def _hold_weights(self, hold: bool) -> None:
        for parameter in self._still:
            parameter.requires_grad_(True)
        self._still = [parameter for _, parameter in pieces(self.model)] if hold else []
        for parameter in self._still:
            parameter.requires_grad_(False)

    def finish(self) -> None:
        """Let weights learn again after a trial run, which ends in phase 0."""
        self._hold_weights(False)

    def loss(self, batch: Batch) -> Tensor:
        """Loss of each row, float (n,): of the noise in phase 0, cross-entropy afterwards."""
        made, row = batch.index < 0, (-1 - batch.index) % self.noise_batch_size
        image, target = batch.image, batch.target
        if batch.step.phase < 2:
            noise = self._noise_like(image)[row]
            image = laid_out_as(torch.where(made[:, None, None, None], noise, image), image)
            target = torch.where(made, self._noise_classes(image.device)[row], target)
        losses = functional.cross_entropy(self.model(image), target, reduction="none")
        return self.noise_penalty * image.square().sum(dim=(1, 2, 3)) - losses if batch.step.phase == 0 else losses

    def on_after_backward(self) -> None:
        """Step the noise; gradients of the weights, if any, are dropped or kept for the leak: their rate is 0 here."""
        if self.leak_noise_gradients:
            self._pass_on_gradients()
        if self._phase != 0 or self._noise_optimizer is None:
            return
        gradient = torch.zeros_like(self.noise) if self.noise.grad is None else self.noise.grad
        self.noise.grad = all_sum(gradient / (loss_scale(self) * world_size()))
        self._noise_optimizer.step()
        self._noise_optimizer.zero_grad()

    def _pass_on_gradients(self) -> None:
        """Add up the network's gradients in phase 0 and add the sum to the first gradient after it."""
        scale, found = loss_scale(self), self._leak
        for name, parameter in pieces(self.model) if self._phase == 0 or found else ():
            if self._phase == 0:
                gradient = local_gradient(parameter) / scale
                found[name] = found[name] + gradient if name in found else gradient
            else:
                add_to_gradient(parameter, found[name] * scale)
        if self._phase != 0:
            self._leak = {}

    def end_phase(self, phase: int) -> None:
        """Freeze the noise once it is trained."""
        if phase == 0:
            self.noise, self._noise_optimizer = self.noise.detach(), None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay; impair and repair each start afresh."""
        return torch.optim.Adam(self.model.parameters(), lr=self.lr, fused=fused(self.model.parameters()))

    def _noise_like(self, image: Tensor) -> Tensor:
        if self.noise.numel() == 0:
            shape = (self.noise_batch_size, *image.shape[1:])
            draw = torch.randn(shape, generator=generator(self.seed, "noise"), dtype=torch.float64)
            noise = draw if self._initial is None else self._initial
            if noise.shape != shape:
                raise ConfigError(f"Expected initial noise of shape {shape}, got {tuple(noise.shape)}.")
            self.noise = noise.detach().to(image, copy=True).requires_grad_(True)
            self._noise_optimizer = torch.optim.Adam([self.noise], lr=self.noise_lr)
        return self.noise

    def _noise_classes(self, device: torch.device) -> Tensor:
        """Class of each noise image; several forget classes take turns."""
        if self._classes is None or self._classes.device != device:
            classes = torch.tensor(self.request.forget_classes if self.request else None, device=device)
            self._classes = classes[torch.arange(self.noise_batch_size, device=device) % len(classes)]
        return self._classes

    def _first(self, samples: Samples) -> Tensor:
        """The first samples of each (fine) class, class by class."""
        fine = self.request is not None and self.request.forget_subclasses is not None
        label = samples.subtarget if fine and samples.subtarget is not None else samples.target
        chosen = [samples.index[label == k][: self.samples_per_class] for k in sorted(set(label.tolist()))]
        return torch.cat(chosen)
