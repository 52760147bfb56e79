"""Suite: which metric runs on which set, updated together."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from supreme.batch import PARTS
from supreme.errors import ConfigError, DataError
from supreme.metrics.accuracy import Accuracy
from supreme.metrics.activation_distance import ActivationDistance
from supreme.metrics.base import SETS, EvaluationMetric, chosen
from supreme.metrics.completeness import Completeness
from supreme.metrics.js_divergence import JSDivergence
from supreme.metrics.layerwise_distance import LayerwiseDistance
from supreme.metrics.loss import Loss
from supreme.metrics.mia import MIA
from supreme.metrics.zrf import ZRF

_TARGETED = {"whole": ("retain_test", "forget_test"), "retain": ("retain_test",), "forget": ("forget_test",)}
_RANDOM = {"whole": ("retain_test",), "retain": ("retain_test",), "forget": ("forget_train",)}


class Suite(nn.Module):
    """All metrics of an evaluation, each with a copy per set, fed from one table of columns.

    In a targeted request (a class or subclass is forgotten) the sets are parts of the test set D': retain = D'_r,
    forget = D'_f, whole = both. When samples were drawn at random, the forget set is D_f itself and whole = retain =
    D'. A metric whose inputs are not given, for example because there is no retrained model, is left out.

    Args:
        metrics: what to compute; None takes :func:`default_metrics`. The instances are copied.
        random: whether the samples to forget were drawn at random.
        seed: evaluation seed s_e of the default metrics.

    Raises:
        ConfigError: if two metrics have the same key or a metric names an unknown set.

    Example:
        >>> suite = Suite([Accuracy(), Completeness()])
        >>> suite.update(
        ...     {
        ...         "unlearned": torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]),
        ...         "target": torch.tensor([0, 1, 1]),
        ...         "part": torch.tensor([0, 0, 1]),
        ...     }
        ... )
        >>> {key: round(value, 2) for key, value in suite.compute().items()}
        {'whole/accuracy': 0.67, 'retain/accuracy': 1.0, 'forget/accuracy': 0.0}
    """

    def __init__(self, metrics: Sequence[EvaluationMetric] | None = None, random: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.random = random
        given = default_metrics(seed) if metrics is None else metrics
        self.copies = nn.ModuleDict()
        for metric in given:
            for place in metric.sets or ("all",):
                name = f"{chosen('set', place, (*SETS, 'all'))}/{metric.key}"
                if name in self.copies:
                    raise ConfigError(f"Expected metrics with different keys, got '{metric.key}' twice; drop one.")
                self.copies[name] = metric.clone()
        self.used = _Used(len(self.copies))

    def update(self, columns: Mapping[str, Tensor]) -> None:
        """Give every metric its rows of a batch.

        Args:
            columns: tensors of n rows each: ``part`` int64 (positions in ``PARTS``) and any of ``unlearned``,
                ``retrained``, ``original``, ``incompetent`` (logits), ``target``, ``index``. Every rank gives the same
                columns, with filler rows already removed; n may be 0.

        Raises:
            ConfigError: if there is no ``part`` column.
        """
        if "part" not in columns:
            raise ConfigError(f"Expected a column 'part' with the codes of {PARTS}, got {sorted(columns)}.")
        selected = {"all": dict(columns)}
        for place, parts in (_RANDOM if self.random else _TARGETED).items():
            codes = torch.tensor([PARTS.index(part) for part in parts], device=columns["part"].device)
            rows = torch.isin(columns["part"], codes)
            selected[place] = {name: column[rows] for name, column in columns.items()}
        fed = []
        for number, name, metric in self._entries():
            if all(column in columns for column in metric.inputs):
                rows_of_set = selected[name.split("/")[0]]
                metric.update(*(rows_of_set[column] for column in metric.inputs))
                fed.append(number)
        self.used.update(fed)

    def parts(self, column: str) -> frozenset[str]:
        """Names of the parts whose rows of a column some metric reads.

        Args:
            column: a name that metrics list in ``inputs``, such as ``"incompetent"``.
        """
        sets = _RANDOM if self.random else _TARGETED
        used = (name.split("/")[0] for _, name, metric in self._entries() if column in metric.inputs)
        return frozenset(part for place in used for part in sets.get(place, PARTS))

    def update_models(self, models: Mapping[str, nn.Module]) -> None:
        """Give the metrics of weights their networks, once per evaluation.

        Args:
            models: ``unlearned_model`` and, if there is one, ``retrained_model``.
        """
        fed = []
        for number, _, metric in self._entries():
            if all(name in models for name in metric.inputs):
                metric.update(*(models[name] for name in metric.inputs))
                fed.append(number)
        self.used.update(fed)

    def compute(self) -> dict[str, float]:
        """All values, with keys ``<set>/<key>``, or ``<key>`` for those of all data.

        Raises:
            DataError: if nothing was given, or a metric had no samples or NaN outputs; the text names the value.
        """
        values: dict[str, float] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The ``compute`` method of metric")  # a rank without any batch
            used = self.used.compute().reshape(-1) > 0
            if not used.any():
                raise DataError("Expected rows or networks before compute, got none; call update first.")
            for number, name, metric in self._entries():
                if used[number]:
                    values.update(_named(name, metric))
        return values

    def reset(self) -> None:
        """Forget all rows."""
        self.used.reset()
        for _, _, metric in self._entries():
            metric.reset()

    @property
    def gap_keys(self) -> frozenset[str]:
        """Keys of values of M_u whose distance to the value of M_r is of interest (``best == "retrained"``)."""
        entries = (entry for entry in self._entries() if entry.metric.best == "retrained")
        return frozenset(_public(name) for _, name, metric in entries if "unlearned" in metric.inputs)

    def _entries(self) -> Iterator["_Entry"]:
        for number, (name, metric) in enumerate(self.copies.items()):
            if isinstance(metric, EvaluationMetric):
                yield _Entry(number, name, metric)


class _Entry(NamedTuple):
    number: int
    name: str
    metric: EvaluationMetric


class _Used(EvaluationMetric):
    """Which metrics received anything on any rank, so that all ranks synchronise the same ones."""

    flags: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.add_state("flags", torch.zeros(count, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, numbers: Sequence[int]) -> None:
        added = torch.zeros_like(self.flags)
        added[list(numbers)] = 1.0
        self.flags = self.flags + added

    def compute(self) -> Any:
        return self.flags


def default_metrics(seed: int = 0) -> list[EvaluationMetric]:
    """One of each metric, by definition; ZRF also of the original and the retrained model.

    Args:
        seed: evaluation seed s_e.

    Example:
        >>> [metric.key for metric in default_metrics()][:4]
        ['accuracy', 'loss', 'activation_distance', 'js_divergence']
    """
    return [
        Accuracy(),
        Loss(),
        ActivationDistance(),
        JSDivergence(),
        Completeness(),
        LayerwiseDistance(),
        ZRF(),
        ZRF(model="original"),
        ZRF(model="retrained"),
        MIA(seed=seed),
    ]


def _public(name: str) -> str:
    """The record key of a copy: values over all data have no set in it."""
    return name.removeprefix("all/")


def _named(name: str, metric: EvaluationMetric) -> dict[str, float]:
    try:
        result = metric.compute()
    except DataError as error:
        raise DataError(f"{_public(name)}: {error}") from error
    if not isinstance(result, Mapping):
        return {_public(name): float(result)}
    place = name.split("/")[0]
    return {_public(f"{place}/{key}"): float(value) for key, value in result.items()}
