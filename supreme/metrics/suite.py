"""Suite: which metric runs on which set, updated together."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from supreme.batch import PARTS
from supreme.errors import ConfigError, DataError
from supreme.metrics.accuracy import Accuracy
from supreme.metrics.activation_distance import ActivationDistance
from supreme.metrics.base import SETS, EvaluationMetric, SampleMean, chosen
from supreme.metrics.completeness import Completeness
from supreme.metrics.js_divergence import JSDivergence
from supreme.metrics.layerwise_distance import LayerwiseDistance
from supreme.metrics.loss import Loss
from supreme.metrics.mia import MIA
from supreme.metrics.zrf import ZRF

_TARGETED = {"whole": ("retain_test", "forget_test"), "retain": ("retain_test",), "forget": ("forget_test",)}
_RANDOM = {"whole": ("retain_test",), "retain": ("retain_test",), "forget": ("forget_train",)}
_ELEMENTS = 2**18  # logits in one update: many enough for a device, few enough to stay in a cache


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
        self.sums = self._sums()
        for metric in (self.used, *(entry.metric for entry in self._entries())):
            metric.compute_with_cache = False  # a rank without new rows would keep its value and not synchronise

    def update(self, columns: Mapping[str, Tensor]) -> None:
        """Give every metric its rows of a batch, part by part.

        Args:
            columns: tensors of n rows each: ``part`` int64 (positions in ``PARTS``) and any of ``unlearned``,
                ``retrained``, ``original``, ``incompetent`` (logits), ``target``, ``index``. Every rank gives the same
                columns, with filler rows already removed; n may be 0.

        Raises:
            ConfigError: if there is no ``part`` column.
        """
        if "part" not in columns:
            raise ConfigError(f"Expected a column 'part' with the codes of {PARTS}, got {sorted(columns)}.")
        self._fed(columns)
        for code, part in enumerate(PARTS):
            rows = (columns["part"] == code).nonzero().flatten()
            if len(rows):
                self.update_part(part, {name: column[rows] for name, column in columns.items()}, [len(rows)])

    def update_part(self, part: str, columns: Mapping[str, Tensor], sizes: Sequence[int]) -> None:
        """Give rows of one part to every metric whose set the part belongs to.

        Metrics that depend on batches get those that were served, all others as many rows at once as are quick. Sums
        and counts of the whole are those of the retain and the forget set, where it consists of them.

        Args:
            part: name in ``PARTS`` of all rows.
            columns: as in :meth:`update`.
            sizes: rows of every batch in which the rows were served; n in all.
        """
        classes = max((column.shape[1] for column in columns.values() if column.dim() == 2), default=1)
        large, served = _cut(columns, max(1, _ELEMENTS // classes)), _cut(columns, list(sizes))
        for name, metric in self._fed(columns):
            if name not in self.sums and part in self._parts_of(name):
                for rows in served if metric.batchwise else large:
                    metric.update(*(rows[column] for column in metric.inputs))

    def parts(self, column: str) -> frozenset[str]:
        """Names of the parts whose rows of a column some metric reads.

        Args:
            column: a name that metrics list in ``inputs``, such as ``"incompetent"``.
        """
        used = (name for _, name, metric in self._entries() if column in metric.inputs)
        return frozenset(part for name in used for part in self._parts_of(name))

    def update_models(self, models: Mapping[str, nn.Module]) -> None:
        """Give the metrics of weights their networks, once per evaluation.

        Args:
            models: ``unlearned_model`` and, if there is one, ``retrained_model``.
        """
        for _, metric in self._fed(models):
            metric.update(*(models[name] for name in metric.inputs))

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
            for whole, others in self.sums.items():
                self._mean(whole).add_up([self._mean(name) for name in others])
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
        """Keys of values of M_u whose distance to the value of M_r is of interest."""
        return frozenset(_public(name) for _, name, metric in self._entries() if has_gap(metric))

    def _fed(self, given: Mapping[str, Any]) -> list[tuple[str, EvaluationMetric]]:
        """Copies, by name, that get all their inputs; from now on they have a value or a reason why not."""
        fed = [entry for entry in self._entries() if all(name in given for name in entry.metric.inputs)]
        self.used.update([entry.number for entry in fed])
        return [(entry.name, entry.metric) for entry in fed]

    def _parts_of(self, name: str) -> tuple[str, ...]:
        """Parts whose rows a copy reads."""
        return (_RANDOM if self.random else _TARGETED).get(name.split("/")[0], PARTS)

    def _sums(self) -> dict[str, list[str]]:
        """Means over the whole -> means over sets that make it up, without a sample in common."""
        pieces = ("retain",) if self.random else ("retain", "forget")
        found = {}
        for _, name, metric in self._entries():
            others = [f"{place}/{metric.key}" for place in pieces]
            means = isinstance(metric, SampleMean) and metric.adds_up and all(other in self.copies for other in others)
            if means and name.startswith("whole/"):
                found[name] = others
        return found

    def _mean(self, name: str) -> SampleMean:
        return cast("SampleMean", self.copies[name])

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


def has_gap(metric: EvaluationMetric) -> bool:
    """Whether a metric looks at M_u and is best at the value of M_r (``best == "retrained"``)."""
    return metric.best == "retrained" and "unlearned" in metric.inputs


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


def _cut(columns: Mapping[str, Tensor], size: int | list[int]) -> list[dict[str, Tensor]]:
    """Consecutive rows of all columns, in pieces of one size or of given sizes."""
    pieces = zip(*(torch.split(column, size) for column in columns.values()), strict=True)
    return [dict(zip(columns, piece, strict=True)) for piece in pieces]


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
