"""MNIST and Fashion-MNIST, from the official files."""

from typing import Any, ClassVar

from supreme.datasets.base import Allocate, Content, Images, data_root
from supreme.datasets.official import fetching, reader
from supreme.datasets.store import StoredDataset
from supreme.transforms.augment import Augment


class MNIST(StoredDataset):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 grey pixels.

    The four official files are downloaded through torchvision and checked when the store is first built. Without a
    network, place them in ``<root>/MNIST/raw``. Nothing is augmented by default: a mirrored digit is no digit.

    Args:
        root: folder for the files and the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        DataError: when the images are first needed, if a file can neither be found nor downloaded.

    Example:
        >>> MNIST().name
        'MNIST'

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
    """

    paper: ClassVar[str] = "LeCun et al. 1998, doi:10.1109/5.726791"
    needs: ClassVar[tuple[str, ...]] = ("download",)
    archive: ClassVar[str] = "MNIST"  # class in torchvision.datasets

    def __init__(self, root: str | None = None) -> None:
        super().__init__(root)

    def source(self) -> str:
        """The archive's name: its files are checked against the official sums."""
        return self.archive

    def read(self, allocate: Allocate) -> Content:
        """Download where needed, then read both splits."""
        official, root = reader(self.archive), data_root(self.root)
        folder, files = root / self.archive / "raw", ", ".join(name for name, _ in official.resources)
        advice = f"fetch {files} from {official.mirrors[0]} and place them, and nothing else, in {folder}"
        with fetching(self.name, root / f"{self.archive}.lock", advice):
            train, test = official(str(root), train=True, download=True), official(str(root), train=False)
        names = tuple(name.split(" - ")[0] for name in official.classes)
        return Content(_images(train), _images(test), names)


class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 training and 10,000 test images of garments in 10 classes, 28x28 grey pixels.

    The four official files are downloaded through torchvision and checked when the store is first built. Without a
    network, place them in ``<root>/FashionMNIST/raw``.

    Args:
        root: folder for the files and the image store; None takes ``SUPREME_DATA`` or ``~/.cache/supreme``.

    Raises:
        DataError: when the images are first needed, if a file can neither be found nor downloaded.

    Example:
        >>> FashionMNIST().augmentation
        Augment(crop_padding=3, flip=True, rotation=0.0, crop_size=None)

    Reference:
        H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
        Algorithms", 2017, arXiv:1708.07747.
    """

    paper: ClassVar[str] = "Xiao et al. 2017, arXiv:1708.07747"
    needs: ClassVar[tuple[str, ...]] = ("download",)
    archive: ClassVar[str] = "FashionMNIST"

    @property
    def augmentation(self) -> Augment:
        """Crop with padding 3 and flip."""
        return Augment(crop_padding=3, flip=True)


def _images(split: Any) -> Images:
    """A split of torchvision as uint8 (N, 1, 28, 28) and int64 targets."""
    return Images(split.data[:, None].contiguous(), split.targets.long())
