"""Stored models: one safetensors file with the whole state and one JSON file of plain values beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from supreme.errors import CheckpointError, OutputError
from supreme.models.build import NetworkSpec, build_outline, same_network
from supreme.outline import StoredWeights, outline

WEIGHTS, ABOUT = "model.safetensors", "model.json"


def save_model(
    folder: str | Path, network: nn.Module, about: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a model to a folder; M_o, M_r and M_u share the format.

    A network without a specification (an nn.Module of the caller's own) is stored as weights only.

    Args:
        folder: made if missing.
        network: the model; its ``spec`` and ``num_classes`` say how to build it again.
        about: further plain values, for example classes, method and arguments.
        state: whole state dict, where the network itself holds shards only.

    Returns:
        Path of the weights.

    Raises:
        OutputError: if the folder cannot be written.
    """
    target = Path(folder) / WEIGHTS
    spec = getattr(network, "spec", None)
    described = {
        "network": asdict(spec) if isinstance(spec, NetworkSpec) else None,
        "num_classes": getattr(network, "num_classes", None),
        "input_spec": getattr(network, "input_spec", None),
        "architecture": getattr(network, "architecture", None),
        **about,
    }
    # Copies, since weights that share memory cannot be stored.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in (state or network.state_dict()).items()
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target)
        (target.parent / ABOUT).write_text(json.dumps(described, indent=1))
    except (OSError, SafetensorError) as error:
        raise OutputError(f"Cannot write the model to '{folder}': {error}; choose another folder.") from error
    return target


def load_model(
    path: str | Path, network: NetworkSpec | None = None, num_classes: int | None = None, later: bool = False
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a model that ``fit``, ``unlearn`` or a plan wrote.

    Args:
        path: folder with ``model.safetensors``, that file, or a Lightning checkpoint (``.ckpt``) of an
            ImageClassifier.
        network: what the caller expects it to be; needed where the file holds weights only.
        num_classes: number of logits that the caller expects; needed where the file does not tell.
        later: leave the weights where they are until a Trainer has set the network up: each rank then reads its share
            straight onto its device. Networks that cannot be built without weights, and checkpoints, are read now.

    Returns:
        The network on the CPU (or without weights), in evaluation mode and in the type that was stored, and what was
        stored about it.

    Raises:
        CheckpointError: if it is missing, damaged, or another network than expected.
    """
    source = Path(path)
    state, about = _checkpoint(source) if source.suffix == ".ckpt" else _stored(source)
    stored = NetworkSpec(**about["network"]) if about.get("network") else None
    if stored and network and not same_network(stored, network):
        raise CheckpointError(
            f"'{path}' holds {stored.class_path} with {stored.init_args}, but {network.class_path} with "
            f"{network.init_args} was asked for; leave the network out or make both agree."
        )
    spec, known = stored or network, about.get("num_classes")
    if known is not None and num_classes not in (None, known):
        raise CheckpointError(f"'{path}' holds a network for {known} classes, but {num_classes} were asked for.")
    classes = num_classes if known is None else int(known)
    if spec is None or classes is None:
        missing = "network" if spec is None else "number of classes"
        raise CheckpointError(f"'{path}' holds weights only; say which {missing} they belong to.")
    make = partial(build_outline, spec, classes, 0, about.get("architecture"), about.get("input_spec"))
    found = outline(make, StoredWeights(_weights_file(source))) if later and source.suffix != ".ckpt" else None
    module = make() if found is None else found
    _check_fit(module, state, path)
    if found is None:
        module.load_state_dict(state)
    if about.get("input_spec"):
        vars(module).update(input_spec=about["input_spec"])
    return module.eval(), about


def describe_model(path: str | Path) -> dict[str, Any]:
    """What was stored about a model: network, number of classes, and what its maker added.

    Args:
        path: as for :func:`load_model`.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    source = Path(path)
    return _checkpoint(source)[1] if source.suffix == ".ckpt" else _stored(source)[1]


def _weights_file(source: Path) -> Path:
    return source / WEIGHTS if source.is_dir() else source


def _stored(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    weights = _weights_file(source)
    try:
        return load_file(weights), json.loads((weights.parent / ABOUT).read_text())
    except FileNotFoundError:
        if (weights.parent / ABOUT).is_file() and weights.name == WEIGHTS:
            raise CheckpointError(
                f"The weights of '{source}' are not there any more: a plan with 'checkpoints: drop' removes them after "
                "evaluation; set it to keep and make them again with 'supreme run PLAN --force stage=unlearn'."
            ) from None
        raise CheckpointError(
            f"Expected a stored model ('{WEIGHTS}' beside '{ABOUT}') or a .ckpt file at '{source}', found none."
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"The stored model at '{source}' cannot be read ({error}); make it again.") from error


def _checkpoint(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
        state = {key.removeprefix("model."): value for key, value in content["state_dict"].items()}
        return state, {**content["hyper_parameters"], "epochs": int(content["epoch"]) + 1}
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint '{source}'.") from None
    except Exception as error:  # a damaged pickle can raise almost anything
        raise CheckpointError(
            f"The checkpoint '{source}' cannot be read as one of an ImageClassifier ({type(error).__name__}); "
            "make it again."
        ) from error


def _check_fit(module: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Give the network the stored type, if the weights fit."""
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    wrong = next((name for name in (*wanted, *found) if wanted.get(name) != found.get(name)), None)
    if wrong is not None:
        raise CheckpointError(
            f"'{path}' does not fit the network: '{wrong}' has shape {found.get(wrong)} in the file and "
            f"{wanted.get(wrong)} in the network."
        )
    stored = next((value.dtype for value in state.values() if value.is_floating_point()), torch.float32)
    module.to(stored)
