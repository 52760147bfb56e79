"""Residual networks for small images."""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import relu

from supreme.errors import ConfigError


class ResNet18(nn.Module):
    """ResNet-18 for small images: a 3x3 stem without max-pooling, then four stages of two basic blocks.

    Convolutions have no bias, a 1x1 convolution with BatchNorm is the shortcut where the shape changes, and the mean
    over all positions goes into one linear layer. Initialisation is torch's default. With 10 classes and the
    standard width the network has 11,173,962 parameters.

    Args:
        num_classes: number of logits.
        width: channels of the first stage; the four stages have 1, 2, 4 and 8 times as many.
        image_size: height and width to which a scenario resizes images; None takes them as the dataset has them.

    Raises:
        ConfigError: if ``num_classes`` is below 1, or ``width`` or ``image_size`` below 8.

    Example:
        >>> import torch
        >>> network = ResNet18(num_classes=10, width=8)
        >>> network(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 10])

    Reference:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2016, arXiv:1512.03385,
        section 4.2 (variant for small images) with the layers of the 18-layer network in table 1.
    """

    paper: ClassVar[str] = "He et al. 2016, arXiv:1512.03385"
    needs: ClassVar[tuple[str, ...]] = ()
    channels_last: ClassVar[bool] = True

    def __init__(self, num_classes: int = 10, width: int = 64, image_size: int | None = None) -> None:
        super().__init__()
        if num_classes < 1 or width < 8 or (image_size or 8) < 8:
            raise ConfigError(
                "Expected num_classes >= 1 and width >= 8, and image_size >= 8 if any, got "
                f"{num_classes}, {width} and {image_size}."
            )
        if image_size is not None:
            self.input_spec = {"size": [image_size, image_size]}
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stage1 = _stage(width, width, stride=1)
        self.stage2 = _stage(width, 2 * width, stride=2)
        self.stage3 = _stage(2 * width, 4 * width, stride=2)
        self.stage4 = _stage(4 * width, 8 * width, stride=2)
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of normalised images (n, 3, H, W) of at least 8 x 8 pixels."""
        x = relu(self.norm(self.stem(images)))
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        logits: Tensor = self.head(x.mean((-2, -1)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm, added to their input before the last ReLU.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: step of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Block output (n, outputs, H / stride, W / stride)."""
        y = self.norm2(self.conv2(relu(self.norm1(self.conv1(x)))))
        return relu(y + self.shortcut(x))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))
