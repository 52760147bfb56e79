"""check_metric: what every evaluation metric has to keep."""

import copy
import math
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supreme.errors import DataError
from supreme.metrics.base import SETS, EvaluationMetric
from supreme.metrics.suite import Suite
from supreme.testing.contract import CLASSES, Contract, small_network
from supreme.testing.processes import in_processes

LOGITS = ("unlearned", "retrained", "original", "incompetent")
LABELS = ("target", "index", "part")
MODELS = ("unlearned_model", "retrained_model")
NEEDS = ("retrained", "original", "incompetent", "train")
BEST: Mapping[str, float] = {"low": 0.0, "high": 1.0}
ROWS = 61
TOLERANCE = 1e-12


def check_metric(metric: type[EvaluationMetric], *, processes: int = 1, **arguments: Any) -> None:
    """Update a metric with a small table in many ways and check everything that an evaluation relies on.

    The metric declares its key, sets, inputs and what is best; gives finite float64 values that depend neither on
    batches nor on the order of the rows, nor on the precision that logits come in beyond their own rounding; changes
    nothing that it is given; scores a model against itself as perfect; raises :class:`DataError` without rows and for
    NaN outputs; can be reset, copied and pickled; works in a :class:`Suite`; and, with ``processes``, gives every rank
    the value of one process, also if one rank has no rows.

    Args:
        metric: the class.
        processes: 2 or more also splits the rows over so many processes; class and arguments have to be importable and
            picklable then.
        arguments: the metric's own arguments.

    Raises:
        AssertionError: if a promise is broken; the text says which one and where to look.

    Example:
        >>> from supreme.metrics import Accuracy
        >>> check_metric(Accuracy)
    """
    task = _Task(metric, arguments)
    task.check_declarations()
    task.check_values()
    task.check_state()
    if not task.of_models:
        task.check_rows()
        task.check_precision()
    task.check_self()
    task.check_nothing()
    task.check_suite()
    if processes > 1:
        task.check_processes(processes)


def small_table(seed: int = 5) -> dict[str, Tensor]:
    """Float32 logits of four models and the labels of some rows of every part.

    Example:
        >>> small_table()["unlearned"].shape
        torch.Size([61, 3])
    """
    draw = torch.Generator().manual_seed(seed)
    table = {name: 2 * torch.randn(ROWS, CLASSES, generator=draw) for name in LOGITS}
    table["target"] = torch.randint(CLASSES, (ROWS,), generator=draw)
    table["part"] = torch.arange(ROWS) % 4
    table["index"] = torch.arange(ROWS)
    return table


def small_models() -> dict[str, nn.Module]:
    """Two networks of the same architecture."""
    return {name: small_network(seed).eval() for seed, name in enumerate(MODELS)}


class _Task:
    """A metric with its arguments, and everything that is checked about them."""

    def __init__(self, metric: type[EvaluationMetric], arguments: Mapping[str, Any]) -> None:
        self.metric, self.arguments = metric, dict(arguments)
        self.contract = Contract(getattr(metric, "__name__", repr(metric)))
        is_metric = isinstance(metric, type) and issubclass(metric, EvaluationMetric)
        self.contract.require(is_metric, "a subclass of EvaluationMetric", repr(metric), "the class statement")
        self.contract.require_portable(self.arguments)
        self.inputs = tuple(self.build().inputs)

    @property
    def of_models(self) -> bool:
        """Whether the metric compares networks, not outputs."""
        return bool(set(self.inputs) & set(MODELS))

    def build(self) -> EvaluationMetric:
        """A fresh metric."""
        with self.contract.during("metric(**arguments)", "__init__"):
            return self.metric(**self.arguments)

    def given(self, table: Mapping[str, Any] | None = None) -> list[Any]:
        """What update receives, in order."""
        source: Mapping[str, Any] = small_models() if self.of_models else small_table()
        return [(source if table is None else table)[name] for name in self.inputs]

    def value(self, batches: Sequence[Sequence[Any]]) -> dict[str, float]:
        """Values after some updates."""
        metric = self.build()
        with self.contract.during(f"update({', '.join(self.inputs)}) and compute()", "update and compute"):
            for batch in batches:
                metric.update(*batch)
            return _values(metric)

    def same(self, first: Mapping[str, float], second: Mapping[str, float], expected: str, look: str) -> None:
        """Require equal values."""
        equal = first.keys() == second.keys() and all(
            math.isclose(first[key], second[key], rel_tol=TOLERANCE, abs_tol=TOLERANCE) for key in first
        )
        self.contract.require(equal, expected, f"{dict(second)} in place of {dict(first)}", look)

    def check_declarations(self) -> None:
        """Class attributes."""
        require, metric = self.contract.require, self.build()
        good = re.fullmatch(r"[a-z][a-z0-9_]*", metric.key) is not None
        require(good, "key in lower case, digits and underscores", repr(metric.key), "the class attribute key")
        require(set(metric.sets) <= set(SETS), f"sets from {SETS}", repr(metric.sets), "the class attribute sets")
        known = (*LOGITS, *LABELS, *MODELS)
        unknown = [name for name in self.inputs if name not in known]
        require(bool(self.inputs) and not unknown, f"inputs from {known}", repr(self.inputs), "the attribute inputs")
        mixed = self.of_models and not set(self.inputs) <= set(MODELS)
        require(not mixed, "networks or rows as inputs", "both", "the class attribute inputs")
        require(metric.best in (*BEST, "retrained"), "best to be retrained, low or high", repr(metric.best), "best")
        higher = {"low": False, "high": True, "retrained": None}[metric.best]
        text = f"higher_is_better to be {higher}, as best is {metric.best!r}"
        require(metric.higher_is_better is higher, text, repr(metric.higher_is_better), "the class attributes")
        unknown = [name for name in metric.needs if name not in NEEDS]
        require(not unknown, f"needs from {NEEDS}", repr(metric.needs), "the class attribute needs")
        compared = {"retrained", "incompetent"} & {name.removesuffix("_model") for name in self.metric.inputs}
        missing = sorted(compared - set(metric.needs))
        require(
            not missing, f"needs to name the models in inputs ({missing})", repr(metric.needs), "the attribute needs"
        )

    def check_values(self) -> None:
        """One update with everything gives finite float64 scalars."""
        require, metric, given = self.contract.require, self.build(), self.given()
        before = copy.deepcopy(given)
        with self.contract.during(f"update({', '.join(self.inputs)}) and compute()", "update and compute"):
            metric.update(*given)
            result = metric.compute()
        named = result if isinstance(result, Mapping) else {metric.key: result}
        texts = all(isinstance(key, str) for key in named)
        require(texts, "a tensor or a dict of names to tensors", repr(result), "compute")
        for key, value in named.items():
            wide = isinstance(value, Tensor) and value.dtype == torch.float64 and value.numel() == 1
            require(wide, f"{key} as one float64 value", repr(value), "compute and the states; sum in float64")
            require(bool(value.isfinite()), f"a finite {key}", str(float(value)), "compute")
        if not self.of_models:
            kept = all(torch.equal(old, new) for old, new in zip(before, given, strict=True))
            require(kept, "its inputs to stay as they were", "changed ones", "in-place operations in update")

    def check_state(self) -> None:
        """float64 states that survive copying, pickling, a change of dtype and a reset."""
        expected, metric = self.value([self.given()]), self.build()
        metric.update(*self.given())
        metric.float()
        metric.set_dtype(torch.float32)
        copies: list[Any] = [copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()]  # noqa: S301
        for copied in copies:
            self.same(
                expected, _values(copied), "a copy to give the same value", "states: use add_state for all of them"
            )
        metric.reset()
        metric.update(*self.given())
        self.same(expected, _values(metric), "the same value after reset", "states: use add_state for all of them")
        narrow = [name for name, value in _states(metric) if value.is_floating_point() and value.dtype != torch.float64]
        require = self.contract.require
        require(not narrow, "float64 states", f"{narrow} in another type", "add_state and update")

    def check_rows(self) -> None:
        """Neither batches nor order matter."""
        whole = self.value([self.given()])
        for size in (7, 1):
            batches = list(zip(*(column.split(size) for column in self.given()), strict=True))
            look = "update: keep sums and counts, never means of batches"
            self.same(whole, self.value(batches), f"the same value in batches of {size}", look)
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(2))
        shuffled = [column[order] for column in self.given()]
        self.same(whole, self.value([shuffled]), "the same value for rows in another order", "compute")
        nothing = [column[:0] for column in self.given()]
        self.same(whole, self.value([nothing, self.given()]), "an update without rows to do nothing", "update")
        metric, half = self.build(), ROWS // 2
        metric.update(*(column[:half] for column in self.given()))
        metric.compute()
        metric.update(*(column[half:] for column in self.given()))
        self.same(whole, _values(metric), "rows to be added after a compute", "compute, which must not change states")

    def check_precision(self) -> None:
        """Computation in float64: widening the inputs first changes nothing."""
        wide = [column.double() if column.is_floating_point() else column for column in self.given()]
        look = "update: convert logits with self._wide before softmax and sums"
        self.same(self.value([wide]), self.value([self.given()]), "float32 logits to be computed in float64", look)

    def check_self(self) -> None:
        """A model against itself is perfect."""
        metric = self.build()
        pairs = ({"unlearned", "retrained"}, set(MODELS))
        if metric.best not in BEST or not any(pair <= set(self.inputs) for pair in pairs):
            return
        source: dict[str, Any] = {**small_table(), **small_models()}
        table = {**source, "retrained": source["unlearned"], "retrained_model": source["unlearned_model"]}
        for key, value in self.value([self.given(table)]).items():
            text = f"{key} of a model against itself to be exactly {BEST[metric.best]:g}"
            self.contract.require(value == BEST[metric.best], text, str(value), "the formula, or the attribute best")

    def check_nothing(self) -> None:
        """Without rows, and with NaN outputs, there is no value."""
        metric = self.build()
        if not self.of_models:
            metric.update(*(column[:0] for column in self.given()))
        self._refuses(metric, "without any row", "compute; EvaluationMetric has no value to invent")
        broken = {name: torch.full_like(c, torch.nan) if name in LOGITS else c for name, c in small_table().items()}
        if set(self.inputs) & set(LOGITS):
            metric = self.build()
            metric.update(*self.given(broken))
            self._refuses(metric, "for NaN outputs", "update; mark such rows with supreme.metrics.base.broken_as_nan")

    def _refuses(self, metric: EvaluationMetric, when: str, look: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = f"the value {metric.compute()}"
        except DataError:
            return
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        self.contract.require(False, f"DataError from compute {when}", outcome, look)

    def check_suite(self) -> None:
        """The keys of an evaluation."""
        metric = self.build()
        suite = Suite([metric])
        with self.contract.during("an evaluation with this metric", "update and compute"):
            suite.update(small_table())
            suite.update_models(small_models())
            found = suite.compute()
        places = {key.rpartition("/")[0] for key in found}
        expected = set(metric.sets) or {""}
        text = f"one value for each of {sorted(expected)}"
        self.contract.require(
            places == expected, text, str(sorted(found)), "the attribute sets and the keys of compute"
        )

    def check_processes(self, processes: int) -> None:
        """Rows split over processes, evenly and with an idle rank, give the value of one process."""
        alone = self.value([self.given()])
        look = "add_state: sums need dist_reduce_fx='sum', rows the base class Table"
        with self.contract.during(f"an evaluation in {processes} processes", "the text; the class must be importable"):
            ranks = in_processes(processes, _values_of_rank, self.metric, self.arguments, processes)
        for rank, splits in enumerate(ranks):
            for name, values in splits.items():
                expected = f"rank {rank} of {processes} to have the value of one process ({name})"
                self.same(alone, values, expected, look)


def _values(metric: EvaluationMetric) -> dict[str, float]:
    result = metric.compute()
    named = result if isinstance(result, Mapping) else {metric.key: result}
    return {key: float(value) for key, value in named.items()}


def _states(metric: EvaluationMetric) -> list[tuple[str, Tensor]]:
    states = {name: getattr(metric, name) for name in metric.metric_state}
    listed = {name: value if isinstance(value, list) else [value] for name, value in states.items()}
    return [(name, item) for name, items in listed.items() for item in items]


def _values_of_rank(
    metric: type[EvaluationMetric], arguments: Mapping[str, Any], world: int
) -> dict[str, dict[str, float]]:
    """Values on this rank, by how the rows are split."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    rank, task = torch.distributed.get_rank(), _Task(metric, arguments)
    if task.of_models:
        return {"the same networks everywhere": task.value([task.given()])}
    splits = {
        "rows dealt out": torch.arange(rank, ROWS, world),
        "all rows on the last rank": torch.arange(ROWS if rank == world - 1 else 0),
    }
    result = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, rows in splits.items():
            batches = [[column[rows] for column in task.given()]] if len(rows) else []
            result[name] = task.value(batches)
    return result
