"""Precisions by name: what each needs, which strategies refuse it, and what of Lightning it becomes.

Nothing heavy is imported before it is needed, so a plan is checked without torch.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from supreme.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from lightning.pytorch.plugins import BitsandbytesPrecision

Kind = Literal["float", "fp8", "int8-training", "quantised"]

# What methods declare -> the precisions that it stands for.
KINDS: Mapping[Kind, tuple[str, ...]] = {
    "float": ("64-true", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"),
    "fp8": ("transformer-engine", "transformer-engine-float16"),
    "int8-training": ("int8-training",),
    "quantised": ("nf4", "nf4-dq", "fp4", "fp4-dq", "int8"),
}
PRECISIONS = tuple(name for names in KINDS.values() for name in names)
MATMUL_PRECISIONS = ("highest", "high", "medium")
TRAINS: tuple[Kind, ...] = ("float", "fp8", "int8-training")
_ALIASES = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_REASONS: Mapping[Kind, str] = {
    "float": "",
    "fp8": "it rounds to 8 bits in every pass, so gradients are not those of the weights",
    "int8-training": "it rounds to 8 bits in every pass, so gradients are not those of the weights",
    "quantised": "it keeps weights as integers, which have no gradients and cannot be edited",
}
_STRATEGIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "fsdp": ("FSDP2", ("32-true", "bf16-mixed", "bf16-true", "16-true")),
    "deepspeed": ("DeepSpeed", ("32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true")),
    "xla": ("XLA", ("32-true", "16-true", "bf16-true")),
}
_PACKAGES: Mapping[Kind, tuple[str, str]] = {
    "fp8": ("transformer_engine", "pip install 'transformer_engine[pytorch]'"),
    "int8-training": ("bitsandbytes", "pip install bitsandbytes"),
    "quantised": ("bitsandbytes", "pip install bitsandbytes"),
}


def named(precision: Any) -> str:
    """The full name of a precision.

    Args:
        precision: a name or one of Lightning's short forms; None is ``"32-true"``.

    Raises:
        UnknownNameError: if there is no such precision.

    Example:
        >>> named("bf16"), named(64), named(None)
        ('bf16-mixed', '64-true', '32-true')
        >>> named("double")
        Traceback (most recent call last):
        supreme.errors.UnknownNameError: Unknown precision 'double'; known: 64-true, 32-true, 16-mixed, bf16-mixed, ...
    """
    name = "32-true" if precision is None else str(precision)
    name = _ALIASES.get(name, name)
    if name not in PRECISIONS:
        raise UnknownNameError("precision", name, PRECISIONS)
    return name


def kind_of(precision: Any) -> Kind:
    """The kind of a precision; one that is not known here, of a user's own plug-in, counts as ``"float"``.

    Example:
        >>> kind_of("nf4"), kind_of("bf16-true")
        ('quantised', 'float')
    """
    name = _ALIASES.get(str(precision), str(precision))
    return next((kind for kind, names in KINDS.items() if name in names), "float")


def refuse_first_fsdp(strategy: Any) -> None:
    """Refuse Lightning's first FSDP by name.

    Args:
        strategy: as given; anything but a name passes.

    Raises:
        ConfigError: for ``"fsdp1"`` and the like.

    Example:
        >>> refuse_first_fsdp("fsdp")
    """
    if isinstance(strategy, str) and (strategy.startswith("fsdp_") or strategy == "fsdp1"):
        raise ConfigError('Expected FSDP2 in place of Lightning\'s FSDPStrategy; use strategy "fsdp".')


def check_use(user: str, kinds: Iterable[str], precision: Any) -> None:
    """Refuse a precision that a method, or a training, cannot work in.

    Args:
        user: who wants it, for example the name of a method.
        kinds: the kinds of precision in which that works, of :data:`KINDS`.
        precision: the precision.

    Raises:
        ConfigError: if it is of another kind.

    Example:
        >>> check_use("SSD", ("float",), "bf16-mixed")
    """
    kind, known = kind_of(precision), tuple(kinds)
    if kind not in known:
        names = [name for other, names in KINDS.items() if other in known for name in names]
        raise ConfigError(f"{user} does not work in {precision}: {_REASONS[kind]}; choose one of {', '.join(names)}.")


def check_strategy(precision: Any, strategy: Any = "auto") -> None:
    """Refuse a precision that a strategy does not know.

    Args:
        precision: the precision.
        strategy: name or instance.

    Raises:
        UnknownNameError: if there is no such precision.
        ConfigError: if the two do not go together.
    """
    name, family = named(precision), _family(strategy)
    shown, known = _STRATEGIES.get(family, ("", PRECISIONS))
    if name not in known:
        raise ConfigError(f"{shown} does not know precision {name}; choose one of {', '.join(known)}.")


def check_hardware(precision: Any, accelerator: Any = "auto", strategy: Any = "auto") -> None:
    """Refuse an accelerator that is not there, and a precision that this machine cannot compute in.

    Args:
        precision: the precision.
        accelerator: name or instance; ``"auto"`` is what Lightning would choose.
        strategy: name or instance.

    Raises:
        UnknownNameError: if there is no such precision.
        ConfigError: if the device is not there or cannot compute in it, or a package is missing; the text says what to
            install.
    """
    name = named(precision)
    if isinstance(accelerator, str) and accelerator not in ("auto", "cpu"):
        _check_there(accelerator)
    if name == "32-true":
        return
    missing = list(_missing(name, _device(accelerator), _family(strategy)))
    if missing:
        raise ConfigError(f"Precision {name} needs {', and '.join(missing)}; choose another precision or see to that.")


def trainer_precision(precision: Any, accelerator: Any = "auto", strategy: Any = "auto") -> dict[str, Any]:
    """The Trainer's arguments for a precision, checked: ``precision``, or a plug-in where Lightning has no name for it.

    Args:
        precision: the precision; None leaves it to the Trainer and its plug-ins.
        accelerator: name or instance.
        strategy: name or instance.

    Raises:
        UnknownNameError: if there is no such precision.
        ConfigError: if strategy, device or what is installed do not suit it.

    Example:
        >>> trainer_precision("bf16", "cpu")
        {'precision': 'bf16-mixed'}
    """
    if precision is None:
        return {"precision": None}
    name = named(precision)
    check_strategy(name, strategy)
    check_hardware(name, accelerator, strategy)
    if kind_of(name) in ("float", "fp8"):
        return {"precision": name}
    return {"precision": None, "plugins": [_quantised(name)]}


def _quantised(mode: Any) -> "BitsandbytesPrecision":
    """Lightning's plug-in, which knows its name and also converts the layers that are not quantised."""
    from lightning.pytorch.plugins import BitsandbytesPrecision

    class Quantised(BitsandbytesPrecision):
        """Linear layers by bitsandbytes, all others in the type that these compute in."""

        precision = mode

        def convert_module(self, module: Any) -> Any:
            """Convert everything; Lightning leaves convolutions in float32 and feeds them with float16."""
            return super().convert_module(module.to(self.dtype))

    return Quantised(mode)


def _missing(name: str, device: str, family: str) -> Iterator[str]:
    """What a precision needs and is not there."""
    kind = kind_of(name)
    if kind in _PACKAGES:
        package, command = _PACKAGES[kind]
        if device != "cuda":
            yield f"a CUDA GPU, where this would run on {device}"
        elif kind == "fp8" and not _computes_in_8_bits():
            yield "a GPU of compute capability 8.9 or newer"
        if importlib.util.find_spec(package) is None:
            yield f"the package {package}, which is not installed ({command})"
    elif device == "tpu" and name not in _STRATEGIES["xla"][1]:
        yield "another device than a TPU"
    elif name == "64-true" and device == "mps":
        yield "a device with float64, which MPS has not"
    elif name in ("16-mixed", "16-true") and device == "cpu" and family == "deepspeed":
        yield "a GPU under DeepSpeed, which knows no float16 on a CPU"
    elif name == "16-mixed" and device == "cpu":
        yield "a GPU, as Lightning has bf16-mixed in its place on a CPU"
    elif name == "16-true" and device == "cpu" and not _halves_on_cpu():
        yield "a torch that computes in float16 on a CPU"


def _check_there(accelerator: str) -> None:
    """Refuse an accelerator that Lightning knows and this machine has not.

    Raises:
        ConfigError: if it is such a one.
    """
    registry: Any = importlib.import_module("lightning.pytorch.accelerators").AcceleratorRegistry
    known = [name for name in registry.available_accelerators() if registry[name]["accelerator"].is_available()]
    wanted = ("cuda", "mps") if accelerator == "gpu" else (accelerator,)
    if set(wanted) <= set(registry.available_accelerators()) and not set(wanted) & set(known):
        raise ConfigError(
            f"There is no accelerator {accelerator} on this machine; choose one of auto, {', '.join(known)}."
        )


def _device(accelerator: Any) -> str:
    """Kind of device that an accelerator stands for."""
    text = accelerator if isinstance(accelerator, str) else type(accelerator).__name__.removesuffix("Accelerator")
    name = {"xla": "tpu"}.get(text.lower(), text.lower())
    if name not in ("auto", "gpu"):
        return name
    torch: Any = importlib.import_module("torch")
    if name == "auto" and importlib.util.find_spec("torch_xla") is not None:
        return "tpu"
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _family(strategy: Any) -> str:
    """The family of a strategy, by its name or that of its class; "" for those that take every precision."""
    text = strategy if isinstance(strategy, str) else type(strategy).__name__
    name = text.lower()
    if "deepspeed" in name or name == "zero":
        return "deepspeed"
    if name.startswith(("fsdp", "modelparallel")):
        return "fsdp"
    return "xla" if "xla" in name else ""


def _computes_in_8_bits() -> bool:
    capability: tuple[int, int] = importlib.import_module("torch").cuda.get_device_capability()
    return capability >= (8, 9)


@lru_cache(maxsize=1)
def _halves_on_cpu() -> bool:
    """Whether this torch trains a small network in float16 on a CPU; older ones lack convolutions."""
    torch: Any = importlib.import_module("torch")
    nn = torch.nn
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).half()
            logits = layers(torch.ones(2, 1, 4, 4, dtype=torch.float16))
            nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    except RuntimeError:
        return False
    return True
