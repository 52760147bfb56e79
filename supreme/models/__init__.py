"""Networks: classes and functions that return an nn.Module from images to logits."""

from supreme.components import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__, {"HuggingFace": "hugging_face", "NetworkSpec": "build", "ResNet18": "resnet", "ViT": "vit"}
)
