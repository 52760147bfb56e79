"""The embedded dataset: scikit-learn's handwritten digits."""

from typing import Any, ClassVar

import numpy as np
import torch

from supreme.datasets.base import Allocate, Content, ImageDataset, Images
from supreme.datasets.split import check_fraction, stratified_split


class Digits(ImageDataset):
    """1,797 real handwritten digits of 8x8 grey pixels that come with scikit-learn; no download.

    The 17 grey values 0 to 16 are stored as ``round(255 * value / 16)``. There is no official split, so a seeded,
    stratified one is drawn. Nothing is augmented by default: a mirrored digit is no digit.

    Args:
        test_fraction: share of every class that is held out for testing.
        split_seed: seeds the split.
        root: not used; nothing is written.

    Raises:
        ConfigError: if ``test_fraction`` is outside (0, 1).

    Example:
        >>> digits = Digits()
        >>> digits.train.images.shape, digits.test.images.shape
        (torch.Size([1438, 1, 8, 8]), torch.Size([359, 1, 8, 8]))

    Reference:
        E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """

    paper: ClassVar[str] = "Alpaydin, Kaynak 1998, UCI optical recognition of handwritten digits"
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, test_fraction: float = 0.2, split_seed: int = 0, root: str | None = None) -> None:
        super().__init__(root)
        check_fraction(test_fraction)
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    def config(self) -> dict[str, Any]:
        """The arguments of the split."""
        return {"test_fraction": self.test_fraction, "split_seed": self.split_seed}

    def read(self, allocate: Allocate) -> Content:
        """Both splits, in the order in which scikit-learn stores the digits."""
        from sklearn.datasets import load_digits  # imported here: scikit-learn takes a second to load

        bunch = load_digits()
        images = torch.from_numpy(np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8))[:, None]
        targets = torch.from_numpy(bunch.target.astype(np.int64))
        classes = tuple(str(name) for name in bunch.target_names)
        train, test = stratified_split(targets, classes, self.test_fraction, self.split_seed)
        return Content(Images(images[train], targets[train]), Images(images[test], targets[test]), classes)
