"""Distances between stored weights, read without torch."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from supreme.errors import DataError

METRIC = "layerwise_distance"
FILE = "model.safetensors"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # what a network stores beside its parameters


def weights_file(root: Path, record: Mapping[str, Any]) -> Path | None:
    """Where the retrained model of a run is stored; None where it is not.

    Args:
        root: the output folder of the plan.
        record: the run's record.
    """
    file = root / "stages" / "unlearn" / str((record.get("stages") or {}).get("retrain")) / FILE
    return file if file.is_file() else None


def excluded(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The beginnings of parameter names that the metric of a run leaves out; None where it was not measured.

    Args:
        record: the run's record.

    Example:
        >>> excluded({"metrics": {"layerwise_distance": 0.0}})
        ()
    """
    if METRIC not in (record.get("metrics") or {}):
        return None
    chosen = (record.get("config") or {}).get("metrics") or {}
    for metric in (*(chosen.get("named") or ()), *(chosen.get("added") or ())):
        if str(metric.get("class_path", "")).endswith("LayerwiseDistance"):
            names = (metric.get("init_args") or {}).get("exclude", ())
            return (names,) if isinstance(names, str) else tuple(names)
    return ()


def weight_distances(model: Path, others: Sequence[Path], exclude: tuple[str, ...] = ()) -> list[float]:
    """L2 distances of the parameters of one network from those of others, all layers together, in float64.

    What :class:`supreme.metrics.LayerwiseDistance` measures, from files. Weights stored in bfloat16, which NumPy does
    not know, have no distance here: NaN.

    Args:
        model: a safetensors file.
        others: those of other networks of the same architecture.
        exclude: beginnings of parameter names to leave out.

    Raises:
        DataError: if a file is not readable or of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with ExitStack() as stack:
            ours, *theirs = [stack.enter_context(safe_open(file, framework="numpy")) for file in (model, *others)]
            squares = np.zeros(len(theirs))
            for name in ours.keys():  # noqa: SIM118 (no mapping)
                if name.startswith(exclude) or name.endswith(BUFFERS):
                    continue
                if ours.get_slice(name).get_dtype() == "BF16":
                    return [np.nan] * len(theirs)
                mine = ours.get_tensor(name).astype(np.float64)
                pairs = [np.stack([mine, other.get_tensor(name)]) for other in theirs]  # refuses other shapes
                squares += [np.square(a - b).sum() for a, b in pairs]
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"The weights '{model}' cannot be compared with those of the other retrained models ({error}); delete the "
            "folders they are in and run the plan again."
        ) from None
    return [float(value) for value in np.sqrt(squares)]
