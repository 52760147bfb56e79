"""What the models said about every sample, read from the stages of a plan without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from supreme.errors import DataError

Array: TypeAlias = NDArray[np.float64]

RETAIN_TEST, FORGET_TEST, RETAIN_TRAIN, FORGET_TRAIN = range(4)
FILE = "outputs.safetensors"


@dataclass(frozen=True)
class Outputs:
    """Outputs of one model.

    Attributes:
        part: which set a sample is of, the codes above.
        target: its class.
        log_p: logarithms of the class probabilities, (n, classes).
    """

    part: NDArray[np.int64]
    target: NDArray[np.int64]
    log_p: Array

    @property
    def loss(self) -> Array:
        """Cross-entropy of every sample, in nats."""
        return -self.log_p[np.arange(len(self.target)), self.target]

    @property
    def entropy(self) -> Array:
        """Entropy of the class probabilities of every sample, in nats."""
        probability = np.exp(self.log_p)
        return np.asarray(-np.where(probability > 0, probability * self.log_p, 0.0).sum(axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most likely class of every sample."""
        return np.asarray(self.log_p.argmax(axis=1), dtype=np.int64)

    @property
    def sets(self) -> dict[str, NDArray[np.bool_]]:
        """Which samples are to be forgotten, were kept, or are held out; the last without a forgotten class."""
        return {
            "forget": self.part == FORGET_TRAIN,
            "retain": self.part == RETAIN_TRAIN,
            "test": self.part == RETAIN_TEST,
        }


def read_outputs(root: Path, record: Mapping[str, Any]) -> Outputs | None:
    """What the model of a run said.

    Args:
        root: the output folder of the plan.
        record: the run's record.

    Returns:
        Its outputs; None where they were not kept.

    Raises:
        DataError: if the file is there but is not readable.
    """
    file = root / "stages" / "evaluate" / str((record.get("stages") or {}).get("evaluate")) / FILE
    if not file.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        table = load_file(file)
        logits = table["logits"].astype(np.float64)
        found = Outputs(table["part"], table["target"], log_softmax(logits))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        text = f"Outputs '{file}' are not readable ({error}); delete the folder they are in and run the plan again."
        raise DataError(text) from None
    return found if np.isfinite(logits).all() else None


def log_softmax(logits: Array) -> Array:
    """Logarithms of the class probabilities.

    Example:
        >>> np.exp(log_softmax(np.array([[0.0, 0.0]]))).round(3).tolist()
        [[0.5, 0.5]]
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def roc(members: Sequence[float] | Array, others: Sequence[float] | Array) -> tuple[Array, Array]:
    """False and true positive rates when samples above a threshold are called members, for all thresholds.

    Equal scores are one threshold, so a score without information gives the diagonal.

    Args:
        members: scores of training samples, higher for "member".
        others: scores of samples that were not trained on.

    Returns:
        Both rates, from (0, 0) to (1, 1).

    Example:
        >>> [rates.tolist() for rates in roc([3.0, 1.0], [1.0, 0.0])]
        [[0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0]]
    """
    inside, outside = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    scores = np.concatenate([inside, outside])
    order = np.argsort(-scores, kind="stable")
    label = np.concatenate([np.ones(len(inside)), np.zeros(len(outside))])[order]
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    true, false = np.cumsum(label)[last], np.cumsum(1 - label)[last]
    start = np.zeros(1)
    return np.concatenate([start, false / max(len(outside), 1)]), np.concatenate([start, true / max(len(inside), 1)])
