"""Vision transformer."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from supreme.errors import CheckpointError, ConfigError
from supreme.models.checkpoint import load_weights, plain_config, read_config, transformers, wished_input

CHECKPOINT = "google/vit-base-patch16-224"  # its architecture is the default of transformers.ViTConfig


class ViT(nn.Module):
    """Vision transformer (HuggingFace) with one linear layer on the class token.

    The backbone has no pooler: nothing in it is left unused. The head is new and drawn by torch's default; all weights
    are trained. With 10 classes the base network has 85,806,346 parameters.

    Images are resized to the size of the network (224 x 224) and normalised as the checkpoint's image processor does,
    which the attribute ``input_spec`` tells the scenario.

    Args:
        num_classes: number of logits.
        checkpoint: local folder or id of the HuggingFace hub, of any ViT.
        pretrained: whether to start from the checkpoint's weights; False draws all of them, and for the default
            checkpoint nothing is fetched then.
        normalisation: mean and standard deviation of the ``"checkpoint"``, of ``"imagenet"`` or of the ``"data"``.
        shorter_side: resize the shorter side of an image to so many pixels and cut the middle out; None resizes both
            sides to the size of the network.
        image_size: height and width of the images; this and the following are for ``pretrained=False`` only.
        patch_size: height and width of a patch.
        hidden_size: width; the inner width of a block is four times as much.
        layers: number of blocks.
        heads: number of attention heads.
        config: fields of ``transformers.ViTConfig`` in place of the checkpoint's.

    Attributes:
        input_spec: size, mean and standard deviation of its images.
        architecture: arguments that build it again without the checkpoint.

    Raises:
        ConfigError: if sizes are given for a pretrained network, or do not go together.
        CheckpointError: if the checkpoint is missing or is no ViT.

    Example:
        >>> import torch
        >>> network = ViT(3, pretrained=False, image_size=8, patch_size=4, hidden_size=8, layers=1, heads=2)
        >>> network(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3])

    Reference:
        A. Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2021,
        arXiv:2010.11929.

    Differs from the published code in: no unused pooler; the checkpoint's normalisation (``normalisation="imagenet"``
    is the published one); images are resized to 224 x 224 (``shorter_side=256`` cuts the middle out of 256 pixels).
    """

    paper: ClassVar[str] = "Dosovitskiy et al. 2021, arXiv:2010.11929"
    needs: ClassVar[tuple[str, ...]] = ("download",)

    def __init__(
        self,
        num_classes: int = 10,
        checkpoint: str = CHECKPOINT,
        pretrained: bool = True,
        normalisation: Literal["checkpoint", "imagenet", "data"] = "checkpoint",
        shorter_side: int | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        hidden_size: int | None = None,
        layers: int | None = None,
        heads: int | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"Expected num_classes >= 1, got {num_classes}.")
        sizes = _fields(image_size, patch_size, hidden_size, layers, heads)
        if pretrained and (sizes or config is not None):
            name = next(iter(sizes), "config")
            raise ConfigError(f"Leave {name} out, it is the checkpoint's, or set pretrained to false.")
        known = checkpoint == CHECKPOINT and not pretrained  # nothing has to be fetched
        source = None if known or config is not None else checkpoint
        settled = _config(source, {**(config or {}), **sizes})
        self.input_spec = wished_input(source, settled, normalisation, shorter_side)
        self.backbone = _backbone(settled, checkpoint if pretrained else None)
        self.head = nn.Linear(settled.hidden_size, num_classes)
        unset = dict.fromkeys(("image_size", "patch_size", "hidden_size", "layers", "heads"))
        self.architecture = {"pretrained": False, "config": plain_config(settled), **unset}

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, num_classes) of normalised images (n, 3, H, W) of the network's size."""
        logits: Tensor = self.head(self.backbone(pixel_values=images).last_hidden_state[:, 0])
        return logits

    def reset_parameters(self) -> None:
        """Draw all weights anew, those of the backbone as transformers draws them."""
        fresh = _backbone(self.backbone.config, None).to(self.head.weight)
        self.backbone.load_state_dict(fresh.state_dict())
        self.head.reset_parameters()


def _fields(
    image_size: int | None, patch_size: int | None, hidden_size: int | None, layers: int | None, heads: int | None
) -> dict[str, int]:
    """The sizes that are given, under the names of ViTConfig."""
    given = {
        "image_size": image_size,
        "patch_size": patch_size,
        "hidden_size": hidden_size,
        "intermediate_size": None if hidden_size is None else 4 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return {name: value for name, value in given.items() if value is not None}


def _config(checkpoint: str | None, fields: Mapping[str, Any]) -> Any:
    """The configuration of a checkpoint, or the default one, with some fields set."""
    if checkpoint is None:
        config = transformers().ViTConfig(**fields)
    else:
        config = read_config(checkpoint)
        if config.model_type != "vit":
            raise CheckpointError(
                f"Expected a ViT in the checkpoint '{checkpoint}', got '{config.model_type}'; name it as the network "
                "itself, which takes any kind for image classification."
            )
        config.update(fields)
    if config.hidden_size % config.num_attention_heads or config.image_size % config.patch_size:
        raise ConfigError(
            f"Expected a hidden_size that {config.num_attention_heads} heads divide and an image_size that patches of "
            f"{config.patch_size} pixels divide, got {config.hidden_size} and {config.image_size}."
        )
    return config


def _backbone(config: Any, checkpoint: str | None) -> Any:
    if checkpoint is None:
        return transformers().ViTModel(config, add_pooling_layer=False).float()
    return load_weights(transformers().ViTModel, checkpoint, add_pooling_layer=False)
