"""Any image classifier of the HuggingFace hub."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from supreme.errors import CheckpointError, ConfigError
from supreme.models.checkpoint import load_weights, plain_config, read_config, transformers, wished_input


class HuggingFace(nn.Module):
    """Any image classifier of the HuggingFace hub or a local folder, with a new head.

    It is what ``--network google/vit-base-patch16-224`` or ``--network my_folder`` means. The head, which is whatever
    depends on the number of classes, is drawn anew even where the checkpoint has as many classes: a retrained model
    must not start from one that has seen the labels to be forgotten.

    Args:
        num_classes: number of logits.
        checkpoint: local folder or id of the hub, of any network that ``AutoModelForImageClassification`` knows.
        pretrained: whether to start from the checkpoint's weights; False draws all of them.
        normalisation: mean and standard deviation of the ``"checkpoint"``, of ``"imagenet"`` or of the ``"data"``.
        shorter_side: resize the shorter side of an image to so many pixels and cut the middle out; None resizes both
            sides to the size of the network.
        config: fields of the configuration, ``model_type`` among them, in place of the checkpoint's.

    Attributes:
        input_spec: size, mean and standard deviation of its images.
        architecture: arguments that build it again without the checkpoint.

    Raises:
        CheckpointError: if the checkpoint is missing, not to be reached, or does not classify images.

    Example:
        >>> fields = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
        >>> network = HuggingFace(3, pretrained=False, config=fields)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    paper: ClassVar[str] = "Wolf et al. 2020, arXiv:1910.03771"
    needs: ClassVar[tuple[str, ...]] = ("download",)

    def __init__(
        self,
        num_classes: int = 10,
        checkpoint: str = "google/vit-base-patch16-224",
        pretrained: bool = True,
        normalisation: Literal["checkpoint", "imagenet", "data"] = "checkpoint",
        shorter_side: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1 or (pretrained and config is not None):
            raise ConfigError(f"Expected num_classes >= 1 and config for pretrained=False only, got {num_classes}.")
        settled = _config(num_classes, config) if config else read_config(checkpoint, num_labels=num_classes)
        self.input_spec = wished_input(None if config else checkpoint, settled, normalisation, shorter_side)
        fresh = _classifier(settled)
        self.network = _with_head(checkpoint, settled, fresh) if pretrained else fresh
        self.architecture = {"pretrained": False, "config": plain_config(settled)}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of normalised images (n, 3, H, W)."""
        logits: Tensor = self.network(pixel_values=images).logits
        return logits.flatten(1)

    def reset_parameters(self) -> None:
        """Draw all weights anew, as transformers draws them."""
        fresh, first = _classifier(self.network.config), next(self.network.parameters())
        self.network.load_state_dict(fresh.to(first).state_dict())


def _config(num_classes: int, fields: Mapping[str, Any]) -> Any:
    given = {name: value for name, value in fields.items() if name != "model_type"}
    try:
        return transformers().AutoConfig.for_model(fields["model_type"], num_labels=num_classes, **given)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"Expected the fields of a configuration with its model_type, got {fields}.") from error


def _classifier(config: Any) -> Any:
    try:
        return transformers().AutoModelForImageClassification.from_config(config).float()
    except ValueError as error:
        raise CheckpointError(f"Expected a network that classifies images, got a '{config.model_type}'.") from error


def _with_head(checkpoint: str, config: Any, fresh: Any) -> Any:
    """The pretrained network with the head of a fresh one."""
    chosen = transformers().AutoModelForImageClassification
    network = load_weights(chosen, checkpoint, config=config, ignore_mismatched_sizes=True)
    wider = _config(config.num_labels + 1, plain_config(config))
    with torch.device("meta"):
        other = {name: value.shape for name, value in _classifier(wider).state_dict().items()}
    drawn = fresh.state_dict()
    head = {name: value for name, value in drawn.items() if value.shape != other[name]}
    network.load_state_dict({**network.state_dict(), **head})
    return network
