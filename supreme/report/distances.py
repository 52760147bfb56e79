"""Distances between retrained models, and of every method from them, computed from what the stages stored."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from supreme.experiment.retrained_spread import RETRAIN
from supreme.experiment.run_columns import DRAW, ENTRY, SEEDS
from supreme.report.columns import COLUMNS, Column, number
from supreme.report.grid import Entry, Grid
from supreme.report.outputs import FORGET_TEST, FORGET_TRAIN, RETAIN_TEST, Array, Outputs, read_outputs
from supreme.report.table import Row, Table, runs_of
from supreme.report.weights import METRIC, excluded, weight_distances, weights_file

Seeds: TypeAlias = tuple[int, int]
Models: TypeAlias = dict[Seeds, tuple[Outputs, Mapping[str, Any]]]

DIGITS = 3
ABOUT = (
    "Distance of a model's outputs from those of the retrained models of the other seeds, mean over these; median and "
    "range over targets and seeds. Another M_r is each M_r measured in this way: a method that is as good as "
    "retraining has what it has. The result table has the distances from the M_r of the same seeds."
)
NOTE = (
    "The layer-wise distance is that between retrained models; a method's, from the M_r of its own seeds, is in the "
    "result table. It is missing where weights are not kept, or kept in bfloat16."
)


def distance_grid(
    table: Table, data: pd.DataFrame, records: Sequence[Mapping[str, Any]], root: Path
) -> tuple[Grid, pd.DataFrame] | None:
    """What distance another retrained model has, and what the methods have.

    Args:
        table: the result table.
        data: the frame that it was made of.
        records: the records in the order of the rows of ``data``.
        root: the output folder of the plan.

    Returns:
        The grid and one row per model and metric; None where no target has the outputs of two retrained models for one
        and the same set of samples to forget.

    Raises:
        DataError: if outputs are there but are not readable.
    """
    runs = runs_of(table, data)
    runs = runs[(runs["status"] == "done") & ~runs["superseded"].astype(bool)]
    same = ["target", *([DRAW] if DRAW in runs else [])]
    groups = [one for _, one in runs.groupby(same, sort=False, dropna=False)]
    found = pd.DataFrame([line for group in groups for line in _lines(group, records, root)])
    if found.empty:
        return None
    shown = [column for column in COLUMNS if column.key in set(found["metric"])]
    gold = [row for row in table.rows if row.method == RETRAIN]
    named = [("another M_r", row) for row in gold]
    named += [(row.name, row) for row in table.rows if row.method != RETRAIN]
    rows = tuple((name, tuple(_field(row, column, found) for column in shown)) for name, row in named)
    header = ("Model", *(column.title for column in shown))
    return Grid("distances", "Distances from other retrained models", ABOUT, header, rows, (NOTE,), len(gold)), found


def _lines(runs: pd.DataFrame, records: Sequence[Mapping[str, Any]], root: Path) -> Iterator[dict[str, Any]]:
    """One line per model and metric of runs that forget the same samples."""
    gold = _read(runs[runs["method"] == RETRAIN], records, root)
    if len(gold) < 2:
        return
    for (method, variant), own in runs.groupby(list(ENTRY), sort=False):
        place = {"target": own["target"].iloc[0], "method": method, "variant": variant}
        if DRAW in own:
            place[DRAW] = own[DRAW].iloc[0]
        for seeds, (model, record) in _read(own, records, root).items():
            kept = [other for name, other in gold.items() if name != seeds and _comparable(other[0], model)]
            values = [(*item, len(kept)) for item in _distances(model, [outputs for outputs, _ in kept]).items()]
            if method == RETRAIN:
                values += _of_weights(record, [other for _, other in kept], root)
            for metric, value, others in values:
                numbers = {"metric": metric, "value": value, "others": others}
                yield {**place, **dict(zip(SEEDS, seeds, strict=False)), **numbers}


def _read(runs: pd.DataFrame, records: Sequence[Mapping[str, Any]], root: Path) -> Models:
    """Outputs and record by training and unlearning seed; further evaluations of a model have the same."""
    found: Models = {}
    for place, *seeds in runs[list(SEEDS[:2])].itertuples(name=None):
        outputs = None if tuple(seeds) in found else read_outputs(root, records[int(place)])
        if outputs is not None:
            found[seeds[0], seeds[1]] = outputs, records[int(place)]
    return found


def _comparable(a: Outputs, b: Outputs) -> bool:
    return a.log_p.shape == b.log_p.shape and np.array_equal(a.part, b.part) and np.array_equal(a.target, b.target)


def _distances(model: Outputs, others: Sequence[Outputs]) -> dict[str, float]:
    """Mean over other models of every distance, on the sets that the metrics of these names are measured on."""
    if not others:
        return {}
    forget = FORGET_TEST if (model.part == FORGET_TEST).any() else FORGET_TRAIN
    values: dict[str, float] = {}
    for name, part in (("forget", forget), ("retain", RETAIN_TEST)):
        rows = model.part == part
        if rows.any():
            for metric, distance in DISTANCES.items():
                each = [float(distance(model.log_p[rows], other.log_p[rows]).mean()) for other in others]
                values[f"{name}/{metric}"] = sum(each) / len(each)
    return values


def _of_weights(
    record: Mapping[str, Any], others: Sequence[Mapping[str, Any]], root: Path
) -> list[tuple[str, float, int]]:
    """Mean distance of the weights of a retrained model from those of others that are still stored, and how many."""
    exclude, file = excluded(record), weights_file(root, record)
    files = [path for path in (weights_file(root, other) for other in others) if path is not None]
    if exclude is None or file is None or not files:
        return []
    value = float(np.mean(weight_distances(file, files, exclude)))
    return [] if np.isnan(value) else [(METRIC, value, len(files))]


def _activation(a: Array, b: Array) -> Array:
    """L2 distance of the class probabilities of every sample."""
    return np.asarray(np.linalg.norm(np.exp(a) - np.exp(b), axis=1))


def _divergence(a: Array, b: Array) -> Array:
    """Jensen-Shannon divergence of every sample, base 2."""
    middle = np.logaddexp2(a / np.log(2), b / np.log(2)) - 1
    parts = (np.exp(one) * (one / np.log(2) - middle) for one in (a, b))
    return np.asarray(np.clip(sum(part.sum(axis=1) for part in parts) / 2, 0, 1))


def _agreement(a: Array, b: Array) -> NDArray[np.bool_]:
    """Whether both predict the same class."""
    return np.asarray(a.argmax(axis=1) == b.argmax(axis=1))


DISTANCES: Mapping[str, Callable[[Array, Array], NDArray[Any]]] = {
    "activation_distance": _activation,
    "js_divergence": _divergence,
    "completeness": _agreement,
}


def _field(row: Row, column: Column, found: pd.DataFrame) -> Entry:
    mine = (found["method"] == row.method) & (found["variant"] == row.variant) & (found["metric"] == column.key)
    values = found.loc[mine, "value"]
    if values.empty:
        return Entry("-")
    low, middle, high = (number(float(values.quantile(share)), DIGITS) for share in (0.0, 0.5, 1.0))
    return Entry(middle, f"[{low}, {high}]" if len(values) > 1 else "", value=float(values.median()))
