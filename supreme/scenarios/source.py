"""Where a loader's images come from: tensors in memory, or any torch Dataset."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from supreme.datasets.base import ImageDataset, Images
from supreme.errors import DataError

_resident: WeakKeyDictionary[ImageDataset, dict[tuple[bool, torch.device], Tensor]] = WeakKeyDictionary()

_ITEMS = 64  # looked at for their labels at a time
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Source(Protocol):
    """A set of labelled images that can be read in any order."""

    targets: Tensor
    subtargets: Tensor | None

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images (n, C, H, W) of each batch of positions, in order."""

    def close(self) -> None:
        """End what reads ahead; a later stream starts it anew."""


class MemorySource:
    """Images in one tensor; a batch is one gather, on the device where they lie.

    Args:
        images: uint8 or float (N, C, H, W), in memory, memory-mapped or on a device.
        targets: int64 (N,).
        subtargets: int64 (N,) or None.
    """

    def __init__(self, images: Tensor, targets: Tensor, subtargets: Tensor | None = None) -> None:
        self.images, self.targets, self.subtargets = images, targets, subtargets

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images (n, C, H, W) of each batch of positions, in order."""
        if self.images.device.type != "cpu" and len(batches):  # one copy of positions for all batches
            positions = torch.cat(list(batches)).to(self.images.device)
            batches = torch.split(positions, [len(batch) for batch in batches])
        return (self.images.index_select(0, batch) for batch in batches)  # [batch] copies bytes one by one

    def close(self) -> None:
        """Nothing reads ahead here."""


class DatasetSource:
    """Any torch Dataset of (image tensor, int target), read sample by sample.

    Labels come from the dataset's ``targets`` where that holds them (see :func:`known_targets`), else from one look at
    every item. No draw of the global generator is used up, however many workers there are.

    Args:
        dataset: a map-style Dataset.
        num_workers: processes that read ahead, which live until :meth:`close`; 0 reads in this one.

    Raises:
        DataError: if an item is not a pair of an image tensor (C, H, W) and a class number.
    """

    subtargets: Tensor | None = None

    def __init__(self, dataset: Dataset[Any], num_workers: int = 0) -> None:
        self.dataset, self.num_workers = dataset, num_workers
        known = known_targets(dataset)
        self.targets = self._read_targets() if known is None else known
        self._plan: list[list[int]] = []
        self._lasting: DataLoader[Any] | None = None
        self._busy = False

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images (n, C, H, W) of each batch of positions, in order."""
        rows = [batch.tolist() for batch in batches]
        if self._busy:  # the lasting workers serve one stream at a time
            yield from self._loads(self.dataset, rows, _images)
            return
        if self._lasting is None:
            self._lasting = self._loads(self.dataset, self._plan, _images, persistent_workers=self.num_workers > 0)
        self._busy, self._plan[:] = True, rows
        try:
            yield from self._lasting
        finally:
            self._busy = False

    def close(self) -> None:
        """End the workers; a later stream starts them anew."""
        self._lasting = None

    def _read_targets(self) -> Tensor:
        order = torch.split(torch.arange(length(self.dataset)), _ITEMS)
        rows = [batch.tolist() for batch in order if len(batch)]
        return torch.cat([torch.empty(0, dtype=torch.int64), *self._loads(_Classes(self.dataset), rows, torch.tensor)])

    def _loads(self, dataset: Any, rows: list[list[int]], collate: Callable[..., Any], **arguments: Any) -> Any:
        draws = torch.Generator().manual_seed(torch.initial_seed())  # the workers' seeds come from it
        workers = self.num_workers
        return DataLoader(
            dataset, batch_sampler=rows, num_workers=workers, collate_fn=collate, generator=draws, **arguments
        )


class JoinedSource:
    """Sources one after another, as one.

    Args:
        parts: at least one source.
    """

    subtargets: Tensor | None = None

    def __init__(self, parts: Sequence[Source]) -> None:
        self.parts = parts
        self.targets = torch.cat([part.targets for part in parts])
        self.starts = torch.tensor([0, *(len(part.targets) for part in parts)]).cumsum(0)

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Images (n, C, H, W) of each batch of positions, in order."""
        owners = [torch.bucketize(batch, self.starts, right=True) - 1 for batch in batches]
        streams = [
            part.stream([b[o == k] - self.starts[k] for b, o in zip(batches, owners, strict=True) if (o == k).any()])
            for k, part in enumerate(self.parts)
        ]
        for batch, owner in zip(batches, owners, strict=True):
            pieces = {k: next(streams[k]) for k in sorted(set(owner.tolist()))}
            first = next(iter(pieces.values()))
            if len(pieces) == 1:
                yield first
                continue
            images = first.new_empty(len(batch), *first.shape[1:])
            for k, piece in pieces.items():
                if (piece.dtype, piece.shape[1:]) != (first.dtype, first.shape[1:]):
                    raise DataError(
                        f"Expected images of one shape and type in all sets, got {tuple(first.shape[1:])} "
                        f"{first.dtype} and {tuple(piece.shape[1:])} {piece.dtype}; give both the same transform."
                    )
                images.index_copy_(0, (owner == k).nonzero().flatten(), piece)
            yield images

    def close(self) -> None:
        """End what reads ahead in the parts."""
        for part in self.parts:
            part.close()


class _Classes(Dataset[int]):
    """The classes of a dataset's items, read where the items are read."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> int:
        return pair(self.dataset, index)[1]


def known_targets(dataset: Dataset[Any]) -> Tensor | None:
    """Classes int64 (N,) by the attribute ``targets`` of a dataset, or of that of which it is a subset.

    None where they may be others than those of the items: if there is a transform of labels, if they are not one whole
    number per item, or if the first, the middle or the last item has another class.

    Raises:
        DataError: if one of these items is not a pair of an image tensor (C, H, W) and a class number.
    """
    found = _attribute_targets(dataset)
    if found is None or len(found) != length(dataset) or not len(found):
        return None
    places = sorted({0, len(found) // 2, len(found) - 1})
    return found if all(pair(dataset, k)[1] == int(found[k]) for k in places) else None


def _attribute_targets(dataset: Dataset[Any]) -> Tensor | None:
    if type(dataset) is Subset:
        whole = _attribute_targets(dataset.dataset)
        fits = whole is not None and max(dataset.indices, default=0) < len(whole)
        return whole[torch.tensor(dataset.indices, dtype=torch.int64)] if whole is not None and fits else None
    both = getattr(dataset, "transforms", None)  # of images and labels together
    if getattr(dataset, "target_transform", None) is not None or getattr(both, "target_transform", both) is not None:
        return None
    try:
        found = torch.as_tensor(getattr(dataset, "targets", None))
    except (TypeError, ValueError, RuntimeError):
        return None
    return found.to("cpu", torch.int64) if found.dim() == 1 and found.dtype in _WHOLE else None


def resident(dataset: ImageDataset, train: bool, device: torch.device) -> Images:
    """The images of D or D' on a device, where they take no more than half of its free memory, else as they are.

    They stay there for later scenarios on the same dataset, until that is let go of.

    Args:
        dataset: whose images; labels stay on the host, where loaders make their plans.
        train: D, else D'.
        device: a CUDA device; on any other one nothing is moved.
    """
    images, kept = dataset.train if train else dataset.test, _resident.setdefault(dataset, {})
    if device.type == "cuda" and (train, device) not in kept:
        if images.images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return images
        kept[train, device] = images.images.to(device)
    return images._replace(images=kept.get((train, device), images.images))


def as_source(dataset: Dataset[Any], num_workers: int = 0) -> Source:
    """The quickest source for a dataset: its tensors where it holds them, else one that reads item by item.

    Raises:
        DataError: if an item is not a pair of an image tensor (C, H, W) and a class number.
    """
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        if len(dataset):
            pair(dataset, 0)
        return MemorySource(dataset.tensors[0], dataset.tensors[1].to("cpu", torch.int64))
    return DatasetSource(dataset, num_workers)


def length(dataset: Dataset[Any]) -> int:
    """Number of samples.

    Raises:
        DataError: if the dataset has no length.
    """
    count = getattr(dataset, "__len__", None)
    if count is None:
        raise DataError(f"Expected a map-style Dataset with a length, got {type(dataset).__name__}.")
    return int(count())


def pair(dataset: Dataset[Any], index: int) -> tuple[Tensor, int]:
    """Image (C, H, W) and class of a sample.

    Raises:
        DataError: if the item is something else.
    """
    item = dataset[index]
    if not (isinstance(item, (tuple, list)) and len(item) >= 2 and isinstance(item[0], Tensor) and item[0].dim() == 3):
        got = type(item).__name__
        if isinstance(item, (tuple, list)):
            got = f"({', '.join(_described(part) for part in item)})"
        raise DataError(
            f"Expected item {index} of the dataset to be (image tensor (C, H, W), class), got {got}; convert images "
            "with a transform such as torchvision.transforms.v2.ToImage."
        )
    return item[0], _class(item[1], index)


def _class(value: Any, index: int) -> int:
    try:
        return operator.index(value)
    except (TypeError, RuntimeError, ValueError):
        raise DataError(
            f"Expected a whole number as class of item {index} of the dataset, got {_described(value)}."
        ) from None


def _described(value: Any) -> str:
    return f"tensor {tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _images(items: list[Any]) -> Tensor:
    return torch.stack([item[0] for item in items])
