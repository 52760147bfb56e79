"""Networks from plain values: named, built under a seed, and built again from scratch."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from supreme.components import load, resolve
from supreme.errors import ConfigError, SupremeError, nearest
from supreme.models.names import written_out
from supreme.models.torchvision_networks import build_torchvision, is_torchvision
from supreme.outline import DrawnWeights, is_outline, outline, whole_copy
from supreme.seeding import isolated


@dataclass(frozen=True)
class NetworkSpec:
    """A network as plain values: what to call, and with which arguments.

    The values survive a round trip through JSON unchanged, so a stored specification equals the one it came from.

    Args:
        class_path: a name from ``supreme.models`` (``"ResNet18"``) or ``torchvision.models`` (``"resnet50"``); the
            dotted path of a class or function that takes ``num_classes`` and returns an ``nn.Module``; or a HuggingFace
            checkpoint, as local folder or id of the hub, which becomes an argument of ``HuggingFace``.
        init_args: further arguments, plain values only; the number of classes comes from the dataset.

    Raises:
        ConfigError: if an argument is not a plain value or is ``num_classes``.

    Example:
        >>> NetworkSpec("ResNet18", {"width": 8}) == NetworkSpec(
        ...     **json.loads(json.dumps({"class_path": "ResNet18", "init_args": {"width": 8}}))
        ... )
        True
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Copy the arguments through JSON, which turns tuples into lists and refuses what is not plain."""
        class_path, arguments = written_out(self.class_path, self.init_args)
        object.__setattr__(self, "class_path", class_path)
        if "num_classes" in self.init_args:
            raise ConfigError(f"Leave num_classes out of the arguments of {self.class_path}; the dataset gives it.")
        plain = {name: _plain(f"{self.class_path}.{name}", value) for name, value in arguments.items()}
        object.__setattr__(self, "init_args", plain)


def build(spec: NetworkSpec, num_classes: int, seed: int) -> nn.Module:
    """A freshly initialised network, with the same weights for the same seed whatever ran before.

    Args:
        spec: which network.
        num_classes: number of logits.
        seed: seeds the initial weights; global generators are left as they were.

    Returns:
        The network, on the CPU, with the attributes ``spec`` and ``num_classes``.

    Raises:
        UnknownNameError: if no such network exists.
        ConfigError: if the arguments do not fit or no ``nn.Module`` comes back.

    Example:
        >>> network = build(NetworkSpec("ResNet18", {"width": 8}), num_classes=10, seed=0)
        >>> network.num_classes
        10
    """
    factory = load(resolve("models", spec.class_path))
    if not callable(factory):
        raise ConfigError(f"Expected {spec.class_path} to be a class or function, got {type(factory).__name__}.")
    arguments = {"num_classes": num_classes, **spec.init_args}
    _check_arguments(spec.class_path, factory, arguments)
    try:
        with isolated(seed):
            ours = not is_torchvision(factory)
            network = factory(**arguments) if ours else build_torchvision(factory, num_classes, spec.init_args)
    except SupremeError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Network {spec.class_path} cannot be built with {arguments}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"Expected {spec.class_path} to return an nn.Module, got {type(network).__name__}.")
    vars(network).update(spec=spec, num_classes=num_classes)
    return network


def build_outline(
    spec: NetworkSpec, num_classes: int, seed: int, architecture: Mapping[str, Any] | None, input_spec: Any
) -> nn.Module:
    """A network with random weights throughout, also where its specification asks for pretrained ones.

    Args:
        spec: which network.
        num_classes: number of logits.
        seed: seeds the weights.
        architecture: the attribute of that name of a network with the same specification: arguments that take the
            place of those of the specification, so that neither weights nor files are needed; None changes nothing.
        input_spec: the attribute of that name of such a network.

    Returns:
        The network with the attributes of one that :func:`build` made.
    """
    if not architecture:
        return build(spec, num_classes, seed)
    changed = NetworkSpec(spec.class_path, {**spec.init_args, **architecture})
    network = build(changed, num_classes, seed)
    vars(network).update(spec=spec, architecture=dict(architecture), input_spec=input_spec)
    return network


def restart(network: nn.Module, seed: int) -> nn.Module:
    """The network as its training starts: with its pretrained weights, if it has any, and a fresh head.

    It is what a retrained model starts from, and what the published implementation takes as incompetent teacher. For
    networks without pretrained weights it is :func:`reinitialise`.

    Args:
        network: the network; never touched.
        seed: seeds what is drawn.

    Returns:
        A network on the same device, of the same type and in the same mode; trainable.

    Raises:
        CheckpointError: if the pretrained weights are not to be had.
        ConfigError: if a learnable parameter has no ``reset_parameters`` that draws it anew.
    """
    return _fresh(network, seed, None)


def same_network(first: NetworkSpec, second: NetworkSpec) -> bool:
    """Whether two specifications mean the same network: names are resolved and default arguments filled in.

    Example:
        >>> same_network(NetworkSpec("ResNet18"), NetworkSpec("supreme.models.resnet.ResNet18", {"width": 64}))
        True
    """
    return _filled_in(first) == _filled_in(second)


def _filled_in(spec: NetworkSpec) -> tuple[Any, dict[str, Any]]:
    factory = load(resolve("models", spec.class_path))
    try:
        bound = inspect.signature(factory).bind_partial(**spec.init_args)
    except (TypeError, ValueError):
        return factory, spec.init_args
    bound.apply_defaults()
    return factory, {name: value for name, value in bound.arguments.items() if name != "num_classes"}


def reinitialise(network: nn.Module, seed: int) -> nn.Module:
    """A copy of a network with fresh weights throughout, also where it began with pretrained ones.

    The argument is never touched. A network made by :func:`build` is built again. Any other network, or one that was
    altered since, is copied and every ``reset_parameters`` (or ``_reset_parameters``) in it is called, inner modules
    first. :func:`restart` keeps pretrained weights.

    Args:
        network: the network whose architecture is wanted.
        seed: seeds the new weights.

    Returns:
        A network on the same device, of the same type and in the same mode; trainable.

    Raises:
        ConfigError: if a learnable parameter has no ``reset_parameters`` that draws it anew.

    Example:
        >>> first = nn.Linear(2, 2)
        >>> bool((reinitialise(first, 0).weight == reinitialise(first, 0).weight).all())
        True
    """
    return _fresh(network, seed, getattr(network, "architecture", None))


def _fresh(network: nn.Module, seed: int, architecture: Mapping[str, Any] | None) -> nn.Module:
    spec, num_classes = getattr(network, "spec", None), getattr(network, "num_classes", None)
    if isinstance(spec, NetworkSpec) and isinstance(num_classes, int):
        make = partial(build_outline, spec, num_classes, seed, architecture, getattr(network, "input_spec", None))
        fresh = (outline(make, DrawnWeights(make)) if is_outline(network) else None) or make()
        if _shapes(fresh) == _shapes(network):
            return _like(fresh, network)
    return _like(_reset_copy(network, seed), network)


def _plain(name: str, value: Any) -> Any:
    """The value after a round trip through JSON."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        raise ConfigError(
            f"Expected a plain value for {name}, got {type(value).__name__}; use numbers, text, lists or mappings."
        ) from None


def _reset_copy(network: nn.Module, seed: int) -> nn.Module:
    """Deep copy on the CPU in which NaN marks every learnable weight that no module has drawn anew."""
    fresh = whole_copy(network).cpu()
    learnable = [item for item in fresh.named_parameters() if item[1].requires_grad]
    if not learnable:
        fresh.requires_grad_()
        learnable = list(fresh.named_parameters())
    with torch.no_grad():
        for _, parameter in learnable:
            parameter.fill_(math.nan)
    with isolated(seed):
        fresh.apply(_reset)
    for name, parameter in learnable:
        if bool(torch.isnan(parameter).any()):
            raise ConfigError(
                f"Parameter '{name}' of {type(network).__name__} cannot be drawn anew: no module that owns it has a "
                f"working reset_parameters; add one or pass the fresh network explicitly."
            )
    return fresh


def _reset(module: nn.Module) -> None:
    # torch's attention layers and many networks written after them have the method under a leading underscore only
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if callable(reset):
        reset()


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def _like(fresh: nn.Module, network: nn.Module) -> nn.Module:
    """Put the fresh network on the device, in the type and in the mode of the old one."""
    first: Tensor | None = next(network.parameters(), None)
    if first is not None:
        fresh = fresh.to(dtype=first.dtype) if is_outline(network) else fresh.to(first.device, first.dtype)
    return fresh.train(network.training)


def _check_arguments(class_path: str, factory: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """Refuse arguments that the factory does not take, naming the nearest ones."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return
    takes = [name for name, kind in kinds.items() if kind is not inspect.Parameter.POSITIONAL_ONLY]
    if "num_classes" not in takes:
        raise ConfigError(f"Expected network {class_path} to take num_classes; wrap it in a function that does.")
    for name in arguments:
        if name not in takes:
            near = nearest(name, takes)
            known = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it takes {', '.join(takes)}."
            raise ConfigError(f"Network {class_path} has no argument '{name}'; {known}")
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"Network {class_path} cannot be built: {error}; give it in init_args.") from None
