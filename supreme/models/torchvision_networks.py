"""Networks of torchvision: plain ones, and pretrained ones with a new head."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from supreme.errors import CheckpointError, ConfigError, UnknownNameError

# Arguments that these two need in order to answer with logits alone, and without a slow default initialisation.
_SET = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def is_torchvision(factory: Any) -> bool:
    """Whether something is one of torchvision's functions that build a classifier."""
    module = str(getattr(factory, "__module__", ""))
    return inspect.isfunction(factory) and module.startswith("torchvision.models.") and _takes(factory, "weights")


def build_torchvision(factory: Callable[..., Any], num_classes: int, arguments: Mapping[str, Any]) -> Any:
    """A network of torchvision for some number of classes.

    With weights, everything but the head is theirs; the head, which is whatever depends on the number of classes, is
    drawn anew even where the weights have as many classes.

    Args:
        factory: function of ``torchvision.models``.
        num_classes: number of logits.
        arguments: its arguments; ``weights`` as text, for example ``"DEFAULT"``.

    Returns:
        The network, with ``input_spec`` where the size is fixed or the weights ask for one, with ``architecture``
        where it has pretrained weights, and with ``channels_last`` True where convolutions do most of the work.

    Raises:
        UnknownNameError: if there are no such weights.
        CheckpointError: if they cannot be fetched.
        ConfigError: if an argument does not fit the weights.
    """
    given = {**arguments, **_SET.get(factory.__name__, {})}
    text = given.pop("weights", None)
    if text is None:
        network = _marked(factory(num_classes=num_classes, **given))
        size = _fixed_size(network, factory, given)
        if size is not None:
            vars(network).update(input_spec={"size": size})
        return network
    weights = _weights(factory, str(text))
    network = _marked(_with_new_head(factory, num_classes, weights, given))
    found = weights.transforms()
    input_spec = {"size": _sides(found.crop_size), "mean": list(found.mean), "std": list(found.std)}
    vars(network).update(input_spec=input_spec, architecture={"weights": None, **_implied(factory)})
    return network


def _marked(network: nn.Module) -> nn.Module:
    convolutional = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    vars(network).update(channels_last=convolutional)
    return network


def _weights(factory: Callable[..., Any], text: str) -> Any:
    from torchvision.models import get_model_weights

    known = get_model_weights(factory).__members__
    name = text.rpartition(".")[2]
    if name not in known:
        raise UnknownNameError(f"weights of {factory.__name__}", text, known)
    return known[name]


def _with_new_head(factory: Callable[..., Any], num_classes: int, weights: Any, given: Mapping[str, Any]) -> nn.Module:
    network: nn.Module = factory(num_classes=num_classes, **{**given, **_implied(factory)})
    with torch.device("meta"):
        other = factory(num_classes=num_classes + 1, **given).state_dict()
    own = network.state_dict()
    kept = [name for name in own if own[name].shape == other[name].shape]
    try:
        trained = factory(weights=weights, **_for_weights(factory, given)).state_dict()
    except OSError as error:
        raise CheckpointError(
            f"The weights {weights} cannot be fetched ({error}); they are at {weights.url}, to be put into the folder "
            f"{torch.hub.get_dir()}/checkpoints."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"The weights {weights} do not fit {dict(given)}; leave what alters the layers out."
        ) from error
    network.load_state_dict({**own, **{name: trained[name] for name in kept}})
    return network


def _for_weights(factory: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that torchvision insists on setting by itself where weights are given."""
    own = ("aux_logits", "init_weights", "transform_input") if factory.__name__ in _SET else ()
    return {**{name: value for name, value in given.items() if name not in own}, "progress": False}


def _implied(factory: Callable[..., Any]) -> dict[str, Any]:
    """What torchvision sets by itself where weights are given: these two undo the normalisation of their input."""
    return {"transform_input": True} if factory.__name__ in _SET else {}


def _fixed_size(network: nn.Module, factory: Callable[..., Any], given: Mapping[str, Any]) -> list[int] | None:
    """Height and width of networks that take no others."""
    if factory.__name__.startswith("maxvit"):
        return _sides(given.get("input_size", (224, 224)))
    size = getattr(network, "image_size", None)
    return None if size is None else _sides(size)


def _sides(size: Any) -> list[int]:
    sides = list(size) if isinstance(size, list | tuple) else [size]
    return [int(side) for side in (sides * 2)[:2]]


def _takes(factory: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(factory).parameters
