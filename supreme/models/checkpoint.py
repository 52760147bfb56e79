"""HuggingFace checkpoints: their architecture, their weights, and the images that they ask for."""

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from supreme.errors import CheckpointError, ConfigError

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
# What transformers takes for image models that were stored without a processor.
STANDARD = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
NORMALISATIONS = ("checkpoint", "imagenet", "data")
# Parts of a configuration that say nothing about the architecture, or are said elsewhere.
_NO_ARCHITECTURE = ("transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id")


def transformers() -> Any:
    """The package of that name, which takes seconds to import and has few types."""
    return importlib.import_module("transformers")


def read_config(checkpoint: str, **changes: Any) -> Any:
    """The ``PretrainedConfig`` of a checkpoint.

    Args:
        checkpoint: local folder or id of the hub.
        changes: fields to set to other values.

    Raises:
        CheckpointError: if it is missing, not to be reached, or of a kind that transformers does not know.
    """
    with _explained(checkpoint):
        return transformers().AutoConfig.from_pretrained(checkpoint, **changes)


def load_weights(model_class: Any, checkpoint: str, **arguments: Any) -> nn.Module:
    """A pretrained network in float32, without the reports of transformers.

    Args:
        model_class: class of transformers with ``from_pretrained``.
        checkpoint: local folder or id of the hub.
        arguments: arguments of ``from_pretrained``.

    Raises:
        CheckpointError: if it is missing, damaged, not to be reached, or another kind of network.
    """
    with _explained(checkpoint):
        network: nn.Module = model_class.from_pretrained(checkpoint, **arguments)
    return network.float()


def plain_config(config: Any) -> dict[str, Any]:
    """The architecture in a configuration as plain values."""
    content: dict[str, Any] = json.loads(json.dumps(config.to_diff_dict(), default=str))
    return {name: value for name, value in content.items() if name not in _NO_ARCHITECTURE}


def wished_input(checkpoint: str | None, config: Any, normalisation: str, shorter_side: int | None) -> dict[str, Any]:
    """Size, mean and standard deviation of the images that a network asks for, in the form of an ``input_spec``.

    Args:
        checkpoint: local folder or id of the hub whose image processor is asked; None has no processor.
        config: configuration of the network.
        normalisation: ``"checkpoint"`` (mean and standard deviation of the image processor, 0.5 without one),
            ``"imagenet"`` or ``"data"`` (those of the dataset).
        shorter_side: resize the shorter side to so many pixels and cut the middle out; None resizes both sides.

    Raises:
        ConfigError: if the normalisation is unknown.
    """
    if normalisation not in NORMALISATIONS:
        raise ConfigError(f"Expected normalisation {', '.join(NORMALISATIONS)}, got '{normalisation}'.")
    processor = _processor(checkpoint) if checkpoint is not None and normalisation == "checkpoint" else {}
    spec: dict[str, Any] = {}
    size = _pixels(getattr(config, "image_size", None)) or _pixels(processor.get("crop_size") or processor.get("size"))
    if size is not None:
        spec["size"] = size
        spec.update({} if shorter_side is None else {"shorter_side": shorter_side})
    if normalisation == "imagenet":
        spec |= IMAGENET
    elif normalisation == "checkpoint":
        spec |= {
            "mean": processor.get("image_mean") or STANDARD["mean"],
            "std": processor.get("image_std") or STANDARD["std"],
        }
        if processor.get("do_normalize") is False:
            spec |= {"mean": [0.0], "std": [1.0]}
    return spec


def _processor(checkpoint: str) -> Mapping[str, Any]:
    """Values of the checkpoint's image processor; empty where it was stored without one."""
    with _quiet():
        try:
            found: Mapping[str, Any] = transformers().ImageProcessingMixin.get_image_processor_dict(checkpoint)[0]
        except (OSError, ValueError):
            return {}
    return found


def _pixels(size: Any) -> list[int] | None:
    """Height and width from any of the forms that transformers uses."""
    if isinstance(size, Mapping):
        shortest = size.get("shortest_edge")
        size = [size.get("height", shortest), size.get("width", shortest)]
    sides = list(size) if isinstance(size, list | tuple) else [size] * 2
    return sides if len(sides) == 2 and all(isinstance(side, int) for side in sides) else None


@contextmanager
def _explained(checkpoint: str) -> Iterator[None]:
    """Turn what transformers raises into one sentence."""
    try:
        with _quiet():
            yield
    except Exception as error:  # connections, damaged files and unknown kinds have no base of their own
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise CheckpointError(
            f"The HuggingFace checkpoint '{checkpoint}' cannot be used ({reason:.200}); give an id of the hub, with a "
            "connection to it, or a folder that holds a checkpoint for image classification."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without a report of the head that is replaced."""
    logging = transformers().utils.logging
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
