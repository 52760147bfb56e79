"""Scenario: which samples are to be forgotten, and every loader that follows from it."""

import csv
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from supreme.batch import Batch, EvaluationBatch, ForgetRequest, Phase
from supreme.datasets.base import ImageDataset, Images
from supreme.datasets.digits import Digits
from supreme.errors import ConfigError, DataError, OutputError
from supreme.scenarios.loader import EvaluationLoader, PhaseLoader, Place
from supreme.scenarios.source import MemorySource, Source, resident
from supreme.seeding import derive
from supreme.transforms.augment import Augment
from supreme.transforms.preprocess import Preprocess

TRAINING = Phase("full", augment=True)
_LOADERS = ("train_dataloader", "test_dataloader", "evaluation_loader", "_phase_loader")
_SERVING = (*_LOADERS, "on_after_batch_transfer", "_transform", "_source")


class Scenario(LightningDataModule, ABC):
    """Base of all scenarios: splits D and D' into forget and retain parts and serves them.

    A subclass says with :meth:`select` which samples are to be forgotten. ``batch_size`` is the global batch size;
    every device takes its share, remainders are spread and nothing is dropped or repeated.

    Args:
        dataset: where the images come from; None takes the embedded digits.
        batch_size: rows of a global training batch, at least 1; methods may name their own.
        evaluation_batch_size: rows of a global evaluation batch, at least 1; None takes 64 on a CPU and 256 elsewhere.
        augmentation: training augmentation; None takes the dataset's.
        resident: keep the images on the CUDA device where they fit into half of its free memory, so that no batch is
            copied; they count in the peak memory then.

    Raises:
        ConfigError: if a batch size is below 1.
        DataError: if the forget or the retain set would be empty.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    random: ClassVar[bool] = False

    def __init__(
        self,
        dataset: ImageDataset | None = None,
        batch_size: int = 64,
        evaluation_batch_size: int | None = None,
        augmentation: Augment | None = None,
        resident: bool = False,
    ) -> None:
        super().__init__()
        if min(batch_size, 1 if evaluation_batch_size is None else evaluation_batch_size) < 1:
            raise ConfigError(f"Expected batch sizes >= 1, got {batch_size} and {evaluation_batch_size}.")
        self.dataset = Digits() if dataset is None else dataset
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self._augmentation, self.resident = augmentation, resident
        self._made: tuple[dict[str, Any] | None, Preprocess] | None = None
        self._masks: tuple[Tensor, Tensor] | None = None  # of D and D', true where a sample is to be forgotten

    @abstractmethod
    def select(self, images: Images, train: bool) -> Tensor:
        """Bool (N,): which samples of D (``train``) or D' are to be forgotten."""

    def forget_classes(self) -> tuple[int, ...] | None:
        """The classes whose samples are to be forgotten, None when samples are drawn at random."""
        return None

    def forget_subclasses(self) -> tuple[int, ...] | None:
        """The fine classes to be forgotten, None outside sub-class requests."""
        return None

    def target_name(self) -> str:
        """The target as shown in tables."""
        return ""

    @property
    def augmentation(self) -> Augment:
        """What training images go through: the one that was given, else the dataset's."""
        return self.dataset.augmentation if self._augmentation is None else self._augmentation

    @augmentation.setter
    def augmentation(self, augment: Augment) -> None:
        """Replace it."""
        self._augmentation = augment

    # --- index sets

    def prepare_data(self) -> None:
        """Fetch the dataset and build its image store, once per machine."""
        self.dataset.prepare()

    def setup(self, stage: str | None = None) -> None:
        """Split D and D' into forget and retain parts."""
        self._forget_masks()

    def _forget_masks(self) -> tuple[Tensor, Tensor]:
        if self._masks is None:
            masks = self.select(self.dataset.train, True), self.select(self.dataset.test, False)
            count, total = int(masks[0].sum()), len(masks[0])
            if not 0 < count < total:
                what = "forget" if count == 0 else "retain"
                raise DataError(
                    f"Expected a forget and a retain set with samples in both, but {count} of {total} training "
                    f"samples are to be forgotten, so the {what} set is empty; choose another target."
                )
            self._masks = masks
        return self._masks

    def indices(self) -> dict[str, Tensor]:
        """Index sets by name: ``forget_train``, ``retain_train`` (positions in D), ``retain_test``, ``forget_test``.

        In random-sample scenarios D'_f is D_f itself and D'_r is all of D', so ``forget_test`` is absent.
        """
        train, test = self._forget_masks()
        sets = {"retain_test": (~test).nonzero().flatten(), "forget_test": test.nonzero().flatten()}
        if self.random:
            sets = {"retain_test": torch.arange(len(test))}
        return sets | {"retain_train": (~train).nonzero().flatten(), "forget_train": train.nonzero().flatten()}

    @property
    def request(self) -> ForgetRequest:
        """What a method may know of the forget request."""
        classes, forget, count = len(self.dataset.classes), self.indices()["forget_train"], self._train_size()
        digest = hashlib.sha256(self.dataset.fingerprint.encode() + forget.numpy().tobytes()).hexdigest()[:16]
        return ForgetRequest(classes, self.forget_classes(), digest, forget, self.forget_subclasses(), count)

    @classmethod
    def serves_as_usual(cls) -> bool:
        """Whether images are served as this base class does, so that a pass over them is the same for every target."""
        return all(getattr(cls, name) is getattr(Scenario, name) for name in _SERVING)

    def export(self, folder: str | Path) -> list[Path]:
        """Write the index sets (``splits.json``) and their class counts (``class_counts.csv``) to a folder.

        Raises:
            OutputError: if the folder cannot be written.
        """
        sets, names = self.indices(), self.dataset.classes
        record = {
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint,
            "scenario": type(self).__name__,
            "target": self.target_name(),
            "request": self.request.fingerprint,
            "sets": {name: index.tolist() for name, index in sets.items()},
        }
        paths = [Path(folder) / "splits.json", Path(folder) / "class_counts.csv"]
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            paths[0].write_text(json.dumps(record))
            with paths[1].open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["set", *names])
                for name, index in sets.items():
                    targets = self._source(name).targets[index]
                    table.writerow([name, *torch.bincount(targets, minlength=len(names)).tolist()])
        except OSError as error:
            raise OutputError(f"Cannot write the index sets to {folder}: {error.strerror}.") from error
        return paths

    # --- loaders

    def train_dataloader(self) -> PhaseLoader:
        """The phases of the method being fitted, or augmented passes over D for a classifier."""
        return self._phase_loader(shuffle=True)

    def val_dataloader(self) -> EvaluationLoader:
        """D', for curves; nothing is ever chosen by it."""
        return self.evaluation_loader(("retain_test", "forget_test"))

    def test_dataloader(self) -> EvaluationLoader:
        """Every image of the sets that the module asks for by its attribute ``parts``, once; without it D'."""
        return self.evaluation_loader(getattr(self._module(), "parts", ("retain_test", "forget_test")))

    def predict_dataloader(self) -> EvaluationLoader:
        """D'."""
        return self.val_dataloader()

    def evaluation_loader(self, parts: Sequence[str]) -> EvaluationLoader:
        """The images of some parts, with the evaluation transform.

        Args:
            parts: names of :meth:`indices`; those that the scenario does not have are left out.
        """
        sets = {name: index for name, index in self.indices().items() if name in parts and len(index)}
        chosen = {name: (self._source(name), index) for name, index in sets.items()}
        return EvaluationLoader(chosen, self.evaluation_rows(), self._place())

    def evaluation_rows(self) -> int:
        """Rows of a global evaluation batch on the device at hand; on a CPU small ones stay in its cache."""
        if self.evaluation_batch_size is not None:
            return self.evaluation_batch_size
        device = "cpu" if self.trainer is None else self.trainer.strategy.root_device.type
        return 64 if device == "cpu" else 256

    def transfer_batch_to_device(
        self, batch: Batch | EvaluationBatch, device: torch.device, dataloader_idx: int
    ) -> Batch | EvaluationBatch:
        """Move the tensors of a batch to the device, which goes on with its work in the meantime."""
        if device.type == batch.image.device.type == "cpu":
            return batch
        found = batch._asdict()
        tensors: dict[str, Any] = {
            name: _moved(value, device) for name, value in found.items() if isinstance(value, Tensor)
        }
        return batch._replace(**tensors)

    def on_after_batch_transfer(self, batch: Batch | EvaluationBatch, dataloader_idx: int) -> Batch | EvaluationBatch:
        """Scale, augment and normalise on the device, in the network's precision and in the layout that it likes.

        A module with ``reads_images = False`` gets the images as they are stored.
        """
        module = self._module()
        if not getattr(module, "reads_images", True):
            return batch
        image = self._transform(batch, int(getattr(module, "seed", 0)), getattr(module, "input_spec", None))
        reference = next((p for p in module.parameters() if p.is_floating_point()), None)
        if reference is not None:
            image = image.to(reference.dtype, memory_format=image_layout(getattr(module, "model", None), image.device))
        return batch._replace(image=image)

    def _phase_loader(self, shuffle: bool) -> PhaseLoader:
        module = self._module()
        # Not getattr(module, "phases", ...): an AttributeError inside the property must not look like no phases.
        phases: Sequence[Phase] = module.phases if hasattr(type(module), "phases") else [TRAINING]
        forget, seed = self.indices()["forget_train"], int(getattr(module, "seed", 0))
        return PhaseLoader(self._source("retain_train"), forget, phases, self.batch_size, seed, self._place(), shuffle)

    def _transform(self, batch: Batch | EvaluationBatch, seed: int, input_spec: dict[str, Any] | None) -> Tensor:
        preprocess = self._preprocess(input_spec)
        if not (isinstance(batch, Batch) and batch.step.augment):
            return preprocess(batch.image)
        augment = self.augmentation
        draw = derive(seed, "augment"), batch.step.epoch, batch.index
        if augment.crop_size is None:
            return preprocess.normalise(augment(preprocess.scale(batch.image), *draw))
        constants = preprocess.mean, preprocess.std  # the crop makes the size, not a resize before it
        cropped = augment(Preprocess(*constants).scale(batch.image), *draw)
        return Preprocess(*constants, preprocess.size)(cropped)

    def _preprocess(self, input_spec: dict[str, Any] | None) -> Preprocess:
        """What makes the network's input of stored images; made anew where the network asks for something else."""
        if self._made is None or self._made[0] != input_spec:
            own = {"mean": self.dataset.mean, "std": self.dataset.std, "size": self.dataset.input_size}
            self._made = input_spec, Preprocess(**{**own, **(input_spec or {})})
        return self._made[1]

    def _source(self, part: str) -> Source:
        train = part.endswith("train")
        images = self.dataset.train if train else self.dataset.test
        if self.resident and self.trainer is not None:
            images = resident(self.dataset, train, self.trainer.strategy.root_device)
        return MemorySource(images.images, images.targets, images.subtargets)

    def _train_size(self) -> int:
        return len(self._source("retain_train").targets)

    def _module(self) -> Any:
        if self.trainer is None or self.trainer.lightning_module is None:
            raise ConfigError("A scenario serves batches inside a Trainer only; pass it as datamodule to Trainer.fit.")
        return self.trainer.lightning_module

    def _place(self) -> Place:
        return Place() if self.trainer is None else Place(self.trainer.global_rank, self.trainer.world_size)


def image_layout(network: Any, device: torch.device) -> torch.memory_format:
    """How a batch of images lies in memory: channels last on CPUs and CUDA for networks that say so.

    What such a network computes from it stays channels last; weights keep their layout, which shards share.

    Args:
        network: one with the attribute ``channels_last`` True wants it; without the attribute it does not.
        device: of the images.
    """
    wished = getattr(network, "channels_last", False) and device.type in ("cpu", "cuda")
    return torch.channels_last if wished else torch.preserve_format


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; host memory is pinned for CUDA, so that the copy does not wait for the device."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")
