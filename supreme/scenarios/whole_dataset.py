"""Train on everything: the data of ``supreme fit``."""

import torch
from torch import Tensor

from supreme.batch import ForgetRequest
from supreme.datasets.base import Images
from supreme.scenarios.base import Scenario


class WholeDataset(Scenario):
    """All of D and D', with nothing to forget: what the original model is trained on.

    Args:
        dataset: where the images come from; None takes the embedded digits.
        batch_size: rows of a global training batch.
        evaluation_batch_size: rows of a global evaluation batch; None takes 64 on a CPU and 256 elsewhere.
        augmentation: training augmentation; None takes the dataset's.
        resident: keep the images on the CUDA device where they fit.

    Example:
        >>> len(WholeDataset().indices()["retain_train"])
        1438
    """

    def setup(self, stage: str | None = None) -> None:
        """Nothing to split."""

    def select(self, images: Images, train: bool) -> Tensor:
        """No sample."""
        return torch.zeros(len(images.targets), dtype=torch.bool)

    def indices(self) -> dict[str, Tensor]:
        """All positions, under the names of the retain sets; nothing is to be forgotten."""
        train, test = len(self.dataset.train.targets), len(self.dataset.test.targets)
        nothing = torch.arange(0)
        return {
            "retain_test": torch.arange(test),
            "forget_test": nothing,
            "retain_train": torch.arange(train),
            "forget_train": nothing,
        }

    @property
    def request(self) -> ForgetRequest:
        """A request without samples."""
        nothing, count = torch.arange(0), len(self.dataset.train.targets)
        return ForgetRequest(len(self.dataset.classes), None, self.dataset.fingerprint, nothing, train_size=count)
