"""JIT: smooth the network around the forget samples, just in time, from D_f alone."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from supreme.batch import Batch, ForgetRequest, Phase, laid_out_as
from supreme.distributed import all_extremes, sgd, world_size
from supreme.errors import ConfigError
from supreme.functional.lipschitz import lipschitz_ratio, perturb
from supreme.methods.base import UnlearningMethod, check_positive
from supreme.seeding import derive, uniform

ROWS = 256  # noisy copies that pass through the network together, about


class JIT(UnlearningMethod):
    """Lipschitz regularisation on D_f: the logits of an image and of noisy copies of it are drawn together.

    Every image x of D_f gets S copies x' = x + sigma e, e ~ N(0, 1), clamped to the range of the global batch. One
    pass minimises the mean over copies and images of ||z(x) - z(x')|| / ||x - x'||, z being the logits.

    Args:
        original: M_o.
        epochs: passes over D_f, at least 1.
        lr: eta, learning rate of SGD without momentum, > 0. A sum over batches of b images at rate eta takes the
            steps of a mean at rate b eta.
        n_samples: S (the paper's N), noisy copies per image, at least 1.
        noise_std: sigma > 0, on the scale of the normalised images.
        mode: mode of the network for the images themselves; the noisy copies always pass in ``"eval"``.
        reduction: ``"mean"`` or ``"sum"`` over the global batch.
        detach: whether the logits of the noisy copies are constants, as in the authors' and the published code: an
            image is drawn to its copies. False takes the whole gradient, which forgets far less at the same rate.
        noise: float (S, n_f, C, H, W), for every pass, or (epochs, S, n_f, C, H, W): standard-normal draws in the
            order of D_f, to use instead of drawn ones.
        seed: unlearning seed s_u; drives noise and order.

    Raises:
        ConfigError: if an argument is outside its range or ``noise`` has another shape.

    Needs: D_f, no labels; never reads D_r.

    Reference: Foster, Fogarty, Schoepf, Oztireli, Brintrup 2024, arXiv:2402.01401, algorithm 1.

    Differs from the published code in: both passes have the same mode (published: the image in train mode, its noisy
    copies in evaluation mode, so that logits differ without noise; ``mode="train"``); mean over the batch, not sum
    (``reduction="sum"``); defaults of the authors' code (published: ``lr=1e-3, n_samples=10``, as a sum).

    Example:
        >>> JIT(nn.Linear(2, 2)).phases[0].data
        'forget'
    """

    paper: ClassVar[str] = "Foster et al. 2024, arXiv:2402.01401"
    needs: ClassVar[tuple[str, ...]] = ("forget",)
    compiles: ClassVar[bool] = False

    def __init__(
        self,
        original: nn.Module,
        epochs: int = 1,
        lr: float = 0.01,
        n_samples: int = 25,
        noise_std: float = 0.1,
        mode: Literal["train", "eval"] = "eval",
        reduction: Literal["mean", "sum"] = "mean",
        detach: bool = True,
        noise: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(original, seed)
        check_positive(epochs=epochs, lr=lr, n_samples=n_samples, noise_std=noise_std)
        if mode not in ("train", "eval") or reduction not in ("mean", "sum"):
            raise ConfigError(
                f"Expected mode 'train' or 'eval' and reduction 'mean' or 'sum', got {mode!r} and {reduction!r}."
            )
        self.epochs, self.lr, self.n_samples, self.noise_std = epochs, lr, n_samples, noise_std
        self.mode, self.reduction, self.detach = mode, reduction, detach
        self.noise = None if noise is None else torch.as_tensor(noise)

    @property
    def phases(self) -> Sequence[Phase]:
        """Passes over D_f."""
        return [Phase("forget", self.epochs, mode=self.mode, reduction=self.reduction)]

    def prepare(self, request: ForgetRequest) -> None:
        """Check the given noise."""
        if self.noise is None:
            return
        count = len(request.forget_index)
        expected = (self.epochs, self.n_samples, count)[6 - self.noise.dim() :]
        if self.noise.dim() not in (5, 6) or self.noise.shape[:-3] != expected:
            raise ConfigError(
                f"Expected noise of shape ({self.n_samples}, {count}, C, H, W) or ({self.epochs}, {self.n_samples}, "
                f"{count}, C, H, W), got {tuple(self.noise.shape)}; give it in the order of D_f."
            )

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the noisy copies of the ratio of distances, float (n,)."""
        image = batch.image
        wide = torch.promote_types(image.dtype, torch.float32)
        low, high = all_extremes(image.amin().to(wide), image.amax().to(wide))
        noise = torch.stack([self._noise(batch, k) for k in range(self.n_samples)])
        copies = perturb(image, noise, self.noise_std, low, high)
        self._enter("eval")
        with torch.no_grad() if self.detach else nullcontext():
            moved = self._logits(copies, image, batch.step.size)
        self._enter(self.mode)
        return lipschitz_ratio(self.model(image), moved, image, copies).mean(dim=0)

    def _enter(self, mode: str) -> None:
        if self.model.training != (mode == "train"):
            self.model.train(mode == "train")

    def _logits(self, copies: Tensor, image: Tensor, size: int) -> Tensor:
        """Logits (S, n, K) of noisy copies (S, n, C, H, W), some copies at a time.

        How many follows from the rows of the global batch, so that all ranks call a sharded network equally often.
        """
        chunks = torch.split(copies, max(1, ROWS * world_size() // size))
        logits = [self.model(laid_out_as(chunk.flatten(0, 1), image)) for chunk in chunks]
        return torch.cat(logits).reshape(*copies.shape[:2], -1)

    def _noise(self, batch: Batch, copy: int) -> Tensor:
        """Standard-normal draws for one noisy copy of each row, shaped as the images."""
        image = batch.image
        if self.noise is None:
            key = derive(self.seed, "noise", copy)
            draw = uniform(key, batch.step.epoch, batch.index, image[0].numel())
            return (2**0.5 * torch.erfinv(2 * draw - (1 - 2**-24))).to(image.dtype).reshape(image.shape)
        given = self.noise[batch.step.epoch] if self.noise.dim() == 6 else self.noise
        rows = given[copy, self._position(batch.index).to(given.device)]
        if rows.shape != image.shape:
            shapes = tuple(image.shape[1:]), tuple(rows.shape[1:])
            raise ConfigError(f"Expected noise for images of shape {shapes[0]}, got noise of shape {shapes[1]}.")
        return rows.to(image)

    def _position(self, index: Tensor) -> Tensor:
        """Positions in D_f of positions in D."""
        if self.request is None:
            raise RuntimeError("positions exist once the method has been set up")
        return torch.searchsorted(self.request.forget_index.to(index.device), index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD without momentum and weight decay."""
        return sgd(self.model.parameters(), self.lr)
