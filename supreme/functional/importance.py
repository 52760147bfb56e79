"""How much each weight matters: sums over samples of the magnitude of the sample's own gradient."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

SampleLoss = Callable[[Tensor, Tensor], Tensor]
GRADIENT_BYTES = {"cpu": 2**26, "other": 2**32}  # what the gradients of one chunk may take, but on CUDA
CUDA_SHARE = 1 / 32  # of the memory of a CUDA device, likewise
ROWS = {"cpu": (8, 256), "other": (2, 128)}  # samples of one chunk: where it begins to pay, and at most
PIXELS = {"cpu": 2**19, "other": 2**25}  # values of the images of one chunk, beyond 16 samples
SUMMED = 16  # samples that go one by one before their sum is added up in float64
LONG = 2**14  # weights, from which on rows are summed one by one


class SampleGradientSums:
    """Sums over samples of abs(g_n) ** power, with g_n the gradient of the loss of sample n alone.

    Each sample passes through the network as a batch of one, so that the result depends neither on the batches nor on
    their order. Samples are vectorised (``torch.func``), some at a time. A network that cannot be (control flow that
    depends on values, some operations in place) is run sample by sample, with the same numbers and a warning; so is,
    without one, a large network on a CPU, where that is faster. Gradients are summed in float64 where the device has
    it.

    Args:
        network: in evaluation mode, without hooks of a strategy; its weights stay.
        loss: logits (1, K) and class (1,) -> float (1,).
        power: 1 or 2.
        chunk_size: samples at a time, at least 1; 1 vectorises nothing. None takes what fits a share of the memory,
            and halves it where memory runs out all the same.

    Attributes:
        vectorised: whether the last samples were.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(network.weight)
        >>> sums = SampleGradientSums(network, lambda logits, target: logits.square().sum(dim=1), power=1)
        >>> sums(torch.tensor([[1.0], [-2.0]]), torch.tensor([0, 0]))["weight"]  # 2 x^2 for x = 1 and -2
        tensor([[10.]], dtype=torch.float64)
    """

    def __init__(
        self, network: nn.Module, loss: SampleLoss, power: Literal[1, 2] = 2, chunk_size: int | None = None
    ) -> None:
        self.network, self.loss, self.power = network, loss, power
        self._automatic = self._unmeasured = chunk_size is None
        self._rows = fitting_rows(network) if chunk_size is None else chunk_size
        self.vectorised = self._rows > 1

    def __call__(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Sums over some samples, by the name of each parameter that learns.

        Args:
            images: float (n, ...), n >= 0.
            targets: int64 (n,).
        """
        wide = torch.float32 if images.device.type == "mps" else torch.float64
        total = {name: torch.zeros_like(p.detach(), dtype=wide) for name, p in self._learnt()}
        images = images.to(next(p.dtype for _, p in self._learnt()))
        if self._unmeasured and len(images):
            self._rows, self._unmeasured = fitting_rows(self.network, images[0].numel()), False
        start = 0
        while start < len(images):
            rows = slice(start, start + _even(len(images) - start, self._rows if self.vectorised else SUMMED))
            part = self._chunk(images[rows], targets[rows])
            if part is None:
                continue  # again: fewer at a time, or one by one
            for name, value in part.items():
                total[name].add_(value)
            start = rows.stop
        return total

    def _chunk(self, images: Tensor, targets: Tensor) -> dict[str, Tensor] | None:
        """Sums over a chunk, None if it has to be tried again in another way."""
        if not self.vectorised:
            return self._one_by_one(images, targets)
        try:
            return self._together(images, targets)
        except torch.OutOfMemoryError:
            if not self._automatic:
                raise
            self._rows = max(1, len(images) // 2)
            self.vectorised = self._rows > 1
        except Exception as error:
            self.vectorised = False  # what is wrong with the network itself comes up again, sample by sample
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            warnings.warn(
                f"Gradients are computed sample by sample, which takes longer, because {type(self.network).__name__} "
                f"cannot be vectorised with torch.func.vmap: {reason}",
                stacklevel=2,
            )
        return None

    def _together(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        weights = {name: p.detach() for name, p in self._learnt()}

        def of_sample(values: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
            return self.loss(functional_call(self.network, values, (image[None],)), target[None]).sum()

        # A copy of the images, because a network may write into its input; fast kernels of attention do not vectorise.
        with sdpa_kernel(SDPBackend.MATH):
            gradients = vmap(grad(of_sample), in_dims=(None, 0, 0))(weights, images.clone(), targets)
        return {name: self._summed(value) for name, value in gradients.items()}

    def _one_by_one(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        names, learnt = zip(*self._learnt(), strict=True)
        total: dict[str, Tensor] = {}
        for image, target in zip(images.clone(), targets, strict=True):
            with torch.enable_grad():
                value = self.loss(self.network(image[None]), target[None]).sum()
            for name, gradient in zip(names, torch.autograd.grad(value, learnt, allow_unused=True), strict=True):
                if gradient is not None:
                    total[name] = self._added(total[name], gradient) if name in total else self._magnitude(gradient)
        return total

    def _summed(self, gradients: Tensor) -> Tensor:
        """Sum over the first dimension; on a CPU row by row where fresh memory for all rows would cost more."""
        if gradients.device.type != "cpu" or gradients[0].numel() < LONG:
            return self._magnitude(gradients).sum(dim=0)
        total = self._magnitude(gradients[0])
        for row in gradients[1:]:
            self._added(total, row)
        return total

    def _added(self, total: Tensor, gradient: Tensor) -> Tensor:
        wide = gradient.to(total.dtype)
        return total.addcmul_(wide, wide) if self.power == 2 else total.add_(wide.abs())

    def _magnitude(self, gradient: Tensor) -> Tensor:
        wide = gradient if gradient.dtype == torch.float64 else gradient.float()
        return wide.square() if self.power == 2 else wide.abs()

    def _learnt(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.network.named_parameters() if p.requires_grad)


def _even(count: int, most: int) -> int:
    """Rows of the first of as few chunks as possible, which are as long as each other: 64 of 128 where 98 fit."""
    return math.ceil(count / math.ceil(count / most))


def fitting_rows(network: nn.Module, pixels: int = 1) -> int:
    """How many gradients of a network at a time are worth their memory.

    Args:
        network: its parameters that learn and their device count.
        pixels: values of one image, which stand for what the layers keep of it.

    Returns:
        8 to 256 on a CPU, 2 to 128 elsewhere, and 1 where fewer fit and nothing is gained. Their gradients take at most
        64 MiB on a CPU, beyond which one by one is faster, a 32nd of the device's memory on CUDA, and 4 GiB elsewhere.
        It depends on nothing but the network, the images and the model of the device, not on what else lies in its
        memory, so that a repeated run has the same chunks.

    Example:
        >>> fitting_rows(nn.Linear(2, 2)), fitting_rows(nn.Linear(10000, 10000, device="meta"))
        (256, 10)
        >>> fitting_rows(nn.Linear(2, 2), pixels=3 * 64 * 64), fitting_rows(nn.Linear(2, 2), pixels=3 * 224 * 224)
        (42, 16)
    """
    learnt = [p for p in network.parameters() if p.requires_grad]
    size = sum(p.numel() * p.element_size() for p in learnt)
    device = learnt[0].device if learnt else torch.device("meta")
    fewest, most = ROWS[_kind(device)]
    fitting = min(most, _gradient_bytes(device) // max(1, size), max(16, PIXELS[_kind(device)] // pixels))
    return fitting if fitting >= fewest else 1


def _gradient_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * CUDA_SHARE)
    return GRADIENT_BYTES[_kind(device)]


def _kind(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else "other"
