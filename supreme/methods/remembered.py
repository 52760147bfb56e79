"""Remembered: what a frozen teacher says of each sample, kept from the first pass for all later ones."""

from typing import NamedTuple

import torch
from torch import Tensor

from supreme.batch import Batch, ForgetRequest, Part
from supreme.distributed import Frozen, all_sum, reshard

LARGEST_BYTES = 2**30  # of the table of a part
PIXELS = 16  # values that are kept of each image


class _Table(NamedTuple):
    logits: Tensor  # at least float32, (n, K)
    pixels: Tensor  # at least float32, (n, about PIXELS)


class Remembered:
    """Logits of a frozen teacher for batches of D_f and of D_r, with one forward pass per sample.

    The first whole pass over a part fills a table, K + 16 values per sample on the device. At its end each rank gets
    the rows of the others, so that all of them stop asking the teacher at the same batch, which matters where it is
    sharded. The teacher sees every batch as long as a part has had no whole pass (after a checkpoint), where its table
    would take more than 1 GiB, where the request does not tell the size of D, and in a pass whose first batch has
    other images than it had before, as a dataset of the caller's own may augment them.

    Args:
        teacher: gives the logits.
        request: tells which positions of D are those of D_f.
    """

    def __init__(self, teacher: Frozen, request: ForgetRequest) -> None:
        self.teacher, self._forget, self._size = teacher, request.forget_index, request.train_size
        self._complete: dict[Part, _Table] = {}
        self._filling: _Table | None = None
        self._reads = self._fills = False
        self._dtype = torch.float32

    def __call__(self, batch: Batch, part: Part) -> Tensor:
        """Logits (n, K) of a batch, without gradient.

        Args:
            batch: of samples of the part that are not augmented; passes are served one after the other.
            part: ``"forget"`` or ``"retain"``.
        """
        rows, known = self._rows(batch.index, part), self._complete.get(part)
        if batch.step.number == 0:
            self._reads = known is not None and not _changed(batch, known.pixels[rows])
            self._fills, self._filling = known is None, None
        if self._reads and known is not None:
            return known.logits[rows].to(self._dtype)
        logits = self.teacher(batch.image)
        self._dtype = logits.dtype
        if self._fills:
            self._keep(logits, batch, rows, part)
        return logits

    def _rows(self, index: Tensor, part: Part) -> Tensor:
        """Positions in the part of positions in D."""
        self._forget = self._forget.to(index.device)
        before = torch.searchsorted(self._forget, index)
        return before if part == "forget" else index - before

    def _keep(self, logits: Tensor, batch: Batch, rows: Tensor, part: Part) -> None:
        """Write the rows of a batch; after the last one the table is complete."""
        found = _Table(*(v.to(torch.promote_types(v.dtype, torch.float32)) for v in (logits, _pixels(batch.image))))
        if self._filling is None:
            self._filling = self._empty(found, part)
        if self._filling is None:
            self._fills = False
            return
        for table, values in zip(self._filling, found, strict=True):
            if not batch.step.filler:
                table[rows] = values
            if batch.step.last_of_phase:
                all_sum(table)
        if batch.step.last_of_phase:
            self._complete[part], self._filling = self._filling, None
            reshard(self.teacher.model)

    def _empty(self, like: _Table, part: Part) -> _Table | None:
        """A table of zeros for all samples of a part, None if it would be too large or the part is of unknown size."""
        if self._size is None:
            return None
        count = len(self._forget) if part == "forget" else self._size - len(self._forget)
        size = count * sum(values[0].numel() * values.element_size() for values in like)
        return None if size > LARGEST_BYTES else _Table(*(v.new_zeros(count, *v.shape[1:]) for v in like))


def _changed(batch: Batch, pixels: Tensor) -> bool:
    """Whether an image of some rank is another than before."""
    same = torch.isclose(_pixels(batch.image).to(pixels), pixels, rtol=0.01, atol=0.001).all()
    return bool(all_sum((~same).long()))


def _pixels(images: Tensor) -> Tensor:
    values = images.flatten(1)
    return values[:, :: max(1, values.shape[1] // PIXELS)]
