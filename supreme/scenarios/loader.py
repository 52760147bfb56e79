"""Loaders that serve global batches: the same samples in the same batches on any number of devices.

They are plain iterables, not torch DataLoaders, so Lightning neither replaces their sampler nor pads them. Lightning
calls ``set_epoch`` on a training loader's ``sampler``, which is the loader itself.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from supreme.batch import PARTS, Batch, EvaluationBatch, Phase, Samples, Step
from supreme.scenarios.source import Source
from supreme.seeding import generator


@dataclass(frozen=True)
class Place:
    """Which of the processes reads.

    Args:
        rank: number of this process.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1


def share(order: Tensor, rank: int, world: int) -> tuple[Tensor, Tensor]:
    """This rank's rows of a global batch and their weights.

    Args:
        order: int64 (b,), the global batch.
        rank: this rank.
        world: number of ranks.

    Returns:
        rows int64 (n,) and weights float32 (n,) of ones; a rank without rows gets one filler row of weight 0, as all
        ranks have to take part in every forward and backward pass.

    Example:
        >>> share(torch.tensor([7, 3, 5]), rank=1, world=2)
        (tensor([3]), tensor([1.]))
    """
    mine = order[rank::world].contiguous()
    if len(mine):
        return mine, torch.ones(len(mine))
    return order[:1], torch.zeros(1)


class PhaseLoader:
    """All batches of a method's phases as one epoch.

    Args:
        source: images and labels of D.
        forget: int64, positions of D_f, ascending.
        phases: what to serve.
        batch_size: global batch size of phases that name none.
        seed: keys the order of each pass, together with phase and pass.
        place: rank and world size.
        shuffle: False serves every phase in its own order.
    """

    def __init__(
        self,
        source: Source,
        forget: Tensor,
        phases: Sequence[Phase],
        batch_size: int,
        seed: int,
        place: Place,
        shuffle: bool = True,
    ) -> None:
        self.source, self.phases, self.seed, self.place, self.shuffle = source, list(phases), seed, place, shuffle
        self.batch_size = batch_size
        self.sampler = self
        self.epoch = 0
        self.served = 0
        self._resume_at = 0
        count = len(source.targets)
        self.is_forget = torch.zeros(count, dtype=torch.bool)
        self.is_forget[forget] = True
        self.rows = [_rows(phase, self._samples(phase)) for phase in self.phases]

    def __len__(self) -> int:
        """Number of global batches of all phases."""
        return sum(
            phase.passes * math.ceil(len(rows) / self._size(phase))
            for phase, rows in zip(self.phases, self.rows, strict=True)
        )

    def sizes(self) -> list[tuple[Phase, int]]:
        """Phases with the sizes of their global batches: the full one, and the last one where it is smaller."""
        found = []
        for phase, rows in zip(self.phases, self.rows, strict=True):
            whole, rest = divmod(len(rows), self._size(phase))
            found += [(phase, self._size(phase))] * (whole > 0) + [(phase, rest)] * (rest > 0)
        return found

    def set_epoch(self, epoch: int) -> None:
        """Number of the Lightning epoch; counts as earlier passes in the order and in the augmentation."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """How many batches of the epoch were served."""
        return {"served": self.served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next epoch begin after the batches that were served; after a whole epoch nothing is left out."""
        served = int(state["served"])
        self._resume_at = served if served < len(self) else 0

    def __iter__(self) -> Iterator[Batch]:
        """This rank's share of every global batch; the first epoch after :meth:`load_state_dict` is cut short."""
        skip = self.served = self._resume_at
        self._resume_at, blank = 0, self._blank()
        for plan in self._passes():
            due, skip = plan[skip:], max(0, skip - len(plan))
            if not due:
                continue
            synthetic = self.phases[due[0][0].phase].synthetic
            real = [rows[rows >= 0] if synthetic else rows for _, rows, _ in due]
            images = self.source.stream([rows for rows in real if len(rows)])
            for (step, rows, weight), have in zip(due, real, strict=True):
                self.served += 1
                yield self._batch(step, rows, weight, next(images) if len(have) else None, blank)

    def _batch(self, step: Step, rows: Tensor, weight: Tensor, images: Tensor | None, blank: Tensor | None) -> Batch:
        if images is not None and not self.phases[step.phase].synthetic:
            return Batch(images, self.source.targets[rows], rows, weight, self.is_forget[rows], step)
        known = rows >= 0
        target = torch.where(known, self.source.targets[rows.clamp(min=0)], -1)
        forget = known & self.is_forget[rows.clamp(min=0)]
        if images is None or len(images) < len(rows):
            like = images if images is not None else blank
            if like is None:
                raise RuntimeError("a phase of synthetic rows needs an image to take its shape from")
            whole = like.new_zeros(len(rows), *like.shape[1:])
            if images is not None:
                whole[known] = images
            images = whole
        return Batch(images, target, rows, weight, forget, step)

    def _blank(self) -> Tensor | None:
        """One image, for the shape of synthetic rows; of a sample that some phase serves, else of D_r."""
        if not any(phase.synthetic for phase in self.phases):
            return None
        served = [rows[rows >= 0] for rows in self.rows]
        first = torch.cat([*served, (~self.is_forget).nonzero().flatten()])[:1]
        return next(self.source.stream([first]))

    def _passes(self) -> Iterator[list[tuple[Step, Tensor, Tensor]]]:
        """For every pass of every phase: step, this rank's rows and their weights, batch by batch."""
        left = len(self)
        for number, (phase, rows) in enumerate(zip(self.phases, self.rows, strict=True)):
            for epoch in range(phase.passes):
                batches = _chunks(self._order(phase, number, epoch, rows), self._size(phase))
                steps = [self._step(number, epoch, k, len(batch)) for k, batch in enumerate(batches)]
                left -= len(batches)
                if epoch == phase.passes - 1 and steps:
                    steps[-1] = steps[-1]._replace(last_of_phase=True, last=left == 0)
                shares = [share(batch, self.place.rank, self.place.world) for batch in batches]
                yield [(step, *mine) for step, mine in zip(steps, shares, strict=True)]

    def _step(self, number: int, epoch: int, batch: int, size: int) -> Step:
        phase, (rank, world) = self.phases[number], (self.place.rank, self.place.world)
        return Step(
            phase=number,
            epoch=epoch + self.epoch,
            number=batch,
            size=size,
            last_of_phase=False,
            last=False,
            scale=world / (size if phase.reduction == "mean" else 1),
            augment=phase.augment,
            filler=size <= rank,
        )

    def _order(self, phase: Phase, number: int, epoch: int, rows: Tensor) -> Tensor:
        if not (phase.shuffle and self.shuffle):
            return rows
        draw = generator(self.seed, "order", number, epoch + self.epoch)
        return rows[torch.randperm(len(rows), generator=draw)]

    def _size(self, phase: Phase) -> int:
        return phase.batch_size or self.batch_size

    def _samples(self, phase: Phase) -> Samples:
        forget, everything = self.is_forget, torch.ones_like(self.is_forget)
        index = {"forget": forget, "retain": ~forget, "full": everything, "none": ~everything}[phase.data]
        index = index.nonzero().flatten()
        fine = self.source.subtargets
        return Samples(index, self.source.targets[index], None if fine is None else fine[index], self.is_forget[index])


def _rows(phase: Phase, samples: Samples) -> Tensor:
    """Synthetic rows of a phase as -1, -2, ..., then the positions in D that it serves."""
    chosen = samples.index if phase.select is None else phase.select(samples)
    if not torch.isin(chosen, samples.index).all():
        raise RuntimeError(f"a phase of {phase.data!r} selected samples outside its data")
    return torch.cat([-1 - torch.arange(phase.synthetic), chosen])


def _chunks(rows: Tensor, size: int) -> list[Tensor]:
    """Consecutive pieces; none of no rows."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class EvaluationLoader:
    """Every image of the given parts once, in order, in global batches that never mix parts.

    Args:
        parts: name in :data:`supreme.batch.PARTS` -> (source, positions).
        batch_size: rows of a global batch.
        place: rank and world size.
    """

    def __init__(self, parts: Mapping[str, tuple[Source, Tensor]], batch_size: int, place: Place) -> None:
        self.parts, self.batch_size, self.place = dict(parts), batch_size, place

    def __len__(self) -> int:
        """Number of global batches."""
        return sum(math.ceil(len(index) / self.batch_size) for _, index in self.parts.values())

    def __iter__(self) -> Iterator[EvaluationBatch]:
        """This rank's share of every global batch."""
        for name, (source, index) in self.parts.items():
            shares = [share(batch, self.place.rank, self.place.world) for batch in _chunks(index, self.batch_size)]
            images = source.stream([rows for rows, _ in shares])
            for number, (rows, weight) in enumerate(shares):
                part = torch.full_like(rows, PARTS.index(name))
                filler = len(index) - number * self.batch_size <= self.place.rank
                yield EvaluationBatch(next(images), source.targets[rows], rows, weight, part, name, filler)
            source.close()  # nobody reads it again soon
