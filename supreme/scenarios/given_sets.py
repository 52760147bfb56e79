"""Forget and retain sets that the caller already has as torch Datasets."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from supreme.batch import Batch, EvaluationBatch
from supreme.datasets.base import Allocate, Content, ImageDataset, Images
from supreme.errors import ConfigError, DataError
from supreme.scenarios.base import Scenario
from supreme.scenarios.loader import PhaseLoader
from supreme.scenarios.source import JoinedSource, Source, as_source


class GivenSets(Scenario):
    """Sets of (image tensor, class) pairs, served as they are: nothing is resized, normalised or augmented.

    D is the retain set followed by the forget set. It is what :func:`supreme.unlearn` and :func:`supreme.evaluate` use
    and no choice of the command line.

    Args:
        forget: D_f.
        retain: D_r.
        num_classes: number of outputs of the network.
        forget_test: D'_f; None means that D_f was drawn at random: D'_f = D_f and D' is ``retain_test``.
        retain_test: D'_r.
        forget_classes: the classes to be forgotten, None when samples were drawn at random.
        batch_size: rows of a global training batch.
        evaluation_batch_size: rows of a global evaluation batch; None takes 64 on a CPU and 256 elsewhere.
        shuffle: False serves every phase in the data's own order.
        num_workers: processes that read ahead for datasets that are not in memory.

    The request's fingerprint covers the labels of D and the sizes of the sets; the images are not read for it.

    Raises:
        DataError: if D_f or D_r is empty, an item is not a pair, or a class is outside [0, num_classes).
        ConfigError: if a forget class is outside [0, num_classes), or ``forget_classes`` names none.
    """

    def __init__(
        self,
        forget: Dataset[Any],
        retain: Dataset[Any],
        num_classes: int,
        forget_test: Dataset[Any] | None = None,
        retain_test: Dataset[Any] | None = None,
        forget_classes: Sequence[int] | None = None,
        batch_size: int = 64,
        evaluation_batch_size: int | None = None,
        shuffle: bool = True,
        num_workers: int = 0,
    ) -> None:
        train = JoinedSource([as_source(retain, num_workers), as_source(forget, num_workers)])
        super().__init__(_GivenDataset(train.targets, num_classes), batch_size, evaluation_batch_size)
        self.shuffle, self._train = shuffle, train
        self._classes = None if forget_classes is None else tuple(sorted(set(forget_classes)))
        if self._classes is not None and not (self._classes and set(self._classes) <= set(range(num_classes))):
            raise ConfigError(f"Expected forget classes in [0, {num_classes}), got {list(self._classes)}.")
        tests = {"retain_test": retain_test, "forget_test": forget_test}
        self._tests = {name: as_source(d, num_workers) for name, d in tests.items() if d is not None}
        self._sizes = (len(train.parts[0].targets), len(train.parts[1].targets))
        if min(self._sizes) == 0:
            what = "forget" if self._sizes[1] == 0 else "retain"
            raise DataError(f"Expected samples in both sets, but the {what} set is empty.")
        for source in (train, *self._tests.values()):
            _check_targets(source.targets, num_classes)

    def select(self, images: Images, train: bool) -> Tensor:
        """Not used: the sets are given."""
        raise NotImplementedError("the sets are given")

    def prepare_data(self) -> None:
        """Nothing to fetch."""

    def setup(self, stage: str | None = None) -> None:
        """Nothing to split."""

    def teardown(self, stage: str | None = None) -> None:
        """End the processes that read ahead."""
        for source in (self._train, *self._tests.values()):
            source.close()

    def forget_classes(self) -> tuple[int, ...] | None:
        """The classes that the caller named."""
        return self._classes

    def target_name(self) -> str:
        """The forget classes, joined by ``+``."""
        return "+".join(map(str, self._classes or ()))

    def indices(self) -> dict[str, Tensor]:
        """Index sets by name; positions in D (retain, then forget) and in each test set."""
        retain, forget = self._sizes
        tests = {name: torch.arange(len(source.targets)) for name, source in self._tests.items()}
        return tests | {"retain_train": torch.arange(retain), "forget_train": torch.arange(retain, retain + forget)}

    def train_dataloader(self) -> PhaseLoader:
        """The phases of the method being fitted."""
        return self._phase_loader(self.shuffle)

    def _transform(self, batch: Batch | EvaluationBatch, seed: int, input_spec: dict[str, Any] | None) -> Tensor:
        return batch.image

    def _source(self, part: str) -> Source:
        return self._train if part.endswith("train") else self._tests[part]


class _GivenDataset(ImageDataset):
    """What a scenario asks of a dataset, for sets without one: classes without names, and a hash of the labels."""

    def __init__(self, targets: Tensor, num_classes: int) -> None:
        super().__init__()
        self._hash = hashlib.sha256(targets.numpy().tobytes()).hexdigest()[:16]
        self._classes = tuple(map(str, range(num_classes)))

    def read(self, allocate: Allocate) -> Content:
        raise DataError("Given sets are no dataset; read them through the scenario's loaders.")

    @property
    def name(self) -> str:
        return "given sets"

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @property
    def fingerprint(self) -> str:
        return self._hash


def _check_targets(targets: Tensor, num_classes: int) -> None:
    low, high = (int(targets.min()), int(targets.max())) if len(targets) else (0, 0)
    if not 0 <= low <= high < num_classes:
        raise DataError(
            f"Expected classes in [0, {num_classes}), got {low} to {high}; check the labels or num_classes."
        )
