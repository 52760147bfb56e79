"""Validation: a share of the training images that nothing is trained on, and the checkpoint that does best on it.

A plan asks for it with ``training: {validation_fraction: 0.1, checkpoint: best}``. M_o and M_r are chosen by the same
rule, each among its own passes, and never on test images.
"""

import hashlib
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional

from supreme.callbacks.procedure import unmeasured
from supreme.datasets.base import Content, ImageDataset, Images, Prepared
from supreme.datasets.split import stratified_split
from supreme.distributed import all_sum, full_state_dict
from supreme.errors import DataError
from supreme.scenarios.base import Scenario, image_layout
from supreme.scenarios.loader import EvaluationLoader, Place
from supreme.scenarios.source import MemorySource
from supreme.seeding import derive
from supreme.transforms.augment import Augment
from supreme.transforms.preprocess import Preprocess


class HeldOut(ImageDataset):
    """A dataset without a share of its training images, which are :attr:`validation`.

    The draw is stratified, by fine class where there are fine classes. All else is the dataset's: test images, classes,
    statistics, augmentation. D is what is left, also for the scenarios: a validation image is neither to be forgotten
    nor to be retained. Both parts are copied into memory.

    Args:
        dataset: where the images come from.
        fraction: share of every class that is held out, in (0, 1).
        seed: seed of the draw; one for a whole plan, so that all its models are chosen on the same images.

    Example:
        >>> from supreme.datasets import Digits
        >>> data = HeldOut(Digits(), 0.1)
        >>> len(Digits().train.targets), len(data.train.targets), len(data.validation.targets)
        (1438, 1293, 145)
    """

    def __init__(self, dataset: ImageDataset, fraction: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        self.dataset, self.fraction, self.seed = dataset, fraction, seed
        self._validation: Images | None = None

    def read(self, allocate: Any) -> Content:
        """Both splits, the training split without the validation images."""
        whole, content = self.dataset.train, (self.dataset.test, self.dataset.classes, self.dataset.subclasses)
        names = self.dataset.subclasses or self.dataset.classes
        labels = whole.targets if whole.subtargets is None else whole.subtargets
        kept, held = stratified_split(labels, names, self.fraction, derive(self.seed, "validation"))
        self._validation = _rows(whole, held)
        return Content(_rows(whole, kept), *content)

    def _load(self) -> Prepared:
        content = self.read(None)
        text = f"{self.dataset.fingerprint} without {self.fraction} {self.seed}"
        fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Prepared(content, self.dataset.mean, self.dataset.std, fingerprint)

    @property
    def validation(self) -> Images:
        """The images that are held out."""
        self.prepare()
        if self._validation is None:
            raise DataError(f"Dataset {self.name} gave no validation images; prepare it again.")
        return self._validation

    @property
    def name(self) -> str:
        """Name of the dataset in records."""
        return self.dataset.name

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Height and width to which images are resized for a network without a size of its own."""
        return self.dataset.input_size

    @property
    def augmentation(self) -> Augment:
        """Default training augmentation."""
        return self.dataset.augmentation

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the dataset, and what is held out."""
        held = f"{100 * self.fraction:g} % of the training images of {self.name} are held out for validation."
        return (*self.dataset.notes, held)

    def config(self) -> dict[str, Any]:
        """Arguments that determine the content."""
        return {"dataset": self.dataset.config(), "fraction": self.fraction, "seed": self.seed}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the images behind when the dataset is copied to another process."""
        return {**super().__getstate__(), "_validation": None}


class BestCheckpoint(Callback):
    """Keeps the weights of the pass after which a network does best on the validation images.

    Best is the highest accuracy, among equal ones the lowest mean cross-entropy, among equal ones the earliest. Of the
    validation images those count that the request does not ask to forget: all of them for M_o, those of the retained
    classes for M_r. The time that it takes is in no measurement.

    Args:
        scenario: what is trained on, made on a :class:`HeldOut` dataset.
        passes: passes over the data in one Lightning epoch: 1 for a classifier, all of them for the method Retrain.

    Attributes:
        state: the weights, None before the first pass is over.
        about: pass (from 1), accuracy and loss of the choice, and how many images it was made on.

    Raises:
        DataError: if no validation image is left to choose on.
    """

    def __init__(self, scenario: Scenario, passes: int = 1) -> None:
        data = scenario.dataset
        if not isinstance(data, HeldOut):
            raise DataError("Expected a dataset with validation images; give 'validation_fraction' in the training.")
        self.scenario, self.passes = scenario, passes
        self.images = data.validation
        self.index = torch.nonzero(~scenario.select(self.images, False)).flatten()
        if not len(self.index):
            raise DataError("All validation images are to be forgotten; choose a larger 'validation_fraction'.")
        self.state: dict[str, Tensor] | None = None
        self.about: dict[str, float] = {}
        self._seen = 0
        self._best = (-1.0, 0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the validation images after the last batch of a pass."""
        if (batch_idx + 1) % (int(trainer.num_training_batches) // self.passes):
            return
        self._seen += 1
        with unmeasured(trainer):
            accuracy, loss = self._measure(trainer, pl_module)
            if (accuracy, -loss) > self._best:
                self._best = accuracy, -loss
                network: Any = pl_module.model
                self.state = {name: value.detach().cpu().clone() for name, value in full_state_dict(network).items()}
                found = {"epoch": self._seen, "validation_accuracy": accuracy, "validation_loss": loss}
                self.about = {**found, "validation_samples": len(self.index)}

    def _measure(self, trainer: Trainer, module: LightningModule) -> tuple[float, float]:
        """Accuracy and mean cross-entropy over the images of all ranks."""
        network: Any = module.model
        place, size = Place(trainer.global_rank, trainer.world_size), self.scenario.evaluation_rows()
        source = MemorySource(self.images.images, self.images.targets, self.images.subtargets)
        loader = EvaluationLoader({"retain_test": (source, self.index)}, size, place)
        sums = torch.zeros(3, dtype=torch.float32 if module.device.type == "mps" else torch.float64)
        sums, preprocess = sums.to(module.device), self._preprocess(module)
        dtype, form = _float_type(network), image_layout(network, module.device)
        modes = [(part, part.training) for part in network.modules()]
        network.eval()
        try:
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                for batch in loader:
                    images = preprocess(batch.image.to(module.device)).to(dtype, memory_format=form)
                    logits = network(images)
                    sums += _sums(logits, batch.target.to(module.device), batch.weight.to(sums))
        finally:
            for part, training in modes:
                part.training = training
        right, loss, count = all_sum(sums).tolist()
        return right / count, loss / count

    def _preprocess(self, module: LightningModule) -> Preprocess:
        data = self.scenario.dataset
        own = {"mean": data.mean, "std": data.std, "size": data.input_size}
        return Preprocess(**{**own, **(getattr(module, "input_spec", None) or {})})


def _rows(images: Images, index: Tensor) -> Images:
    subtargets = None if images.subtargets is None else images.subtargets[index]
    return Images(images.images[index], images.targets[index], subtargets)


def _sums(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Right answers, losses and rows, summed over the rows that count."""
    losses = functional.cross_entropy(logits.to(weight), target, reduction="none")
    rows = torch.stack([logits.argmax(dim=1) == target, losses, torch.ones_like(losses)])
    return rows.to(weight) @ weight


def _float_type(network: nn.Module) -> torch.dtype:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
