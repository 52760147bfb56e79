"""Two result sets side by side: two versions, two machines, or results beside a published table."""

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from supreme.errors import DataError
from supreme.experiment.statistics import t_quantile
from supreme.report.columns import COLUMNS, Column, decimals, extra, number
from supreme.report.grid import Entry, Grid
from supreme.report.labels import REFERENCES, clean, method_label, method_order, natural
from supreme.report.records import frame, read_records
from supreme.report.table import tables

LEVEL = 0.95
NAMES = ("dataset", "model", "scenario", "target", "method", "variant", "metric")
VALUES = ("mean", "std", "n")
PUBLISHED = ("model", "scenario", "method", "quantity", "mean", "std")
SCENARIOS = {"Full-class": "FullClass", "Sub-class": "SubClass", "Random": "RandomSample"}
METHODS = {"FT": "FineTune", "BadT": "BadTeacher", "RL": "RandomLabels"}
UNITS = {"_pct": 100.0, "_pp": 100.0}


def read_results(path: str | Path) -> pd.DataFrame:
    """Means of a result set, one line per method and metric.

    Args:
        path: the output folder of a plan, ``tables.csv`` of a report, or a published table with the columns model,
            scenario, method, quantity, mean and std (quantities such as ``forget_accuracy_gap_pp``; accuracies in
            percent or points).

    Returns:
        ``dataset``, ``model``, ``scenario``, ``target``, ``method``, ``variant``, ``metric``, ``mean``, ``std``, ``n``
        in the units of the records; what a published table does not tell is "" or NaN.

    Raises:
        DataError: if there are no results, or the file is in neither form.
    """
    file = Path(path)
    if not file.is_file():
        return _measured(file)
    try:
        data = pd.read_csv(file, keep_default_na=False, dtype=str)
    except (OSError, ValueError) as error:
        raise DataError(f"Table '{file}' is not readable as CSV ({error}); give a folder of runs or a table.") from None
    if set(PUBLISHED) <= set(data.columns):
        return _published(data)
    if not {*NAMES, *VALUES} <= set(data.columns):
        known = ", ".join(data.columns[:12])
        raise DataError(
            f"Expected the columns {', '.join(PUBLISHED)} or those of a report's tables.csv in '{file}', got {known}."
        )
    found = _numbers(data[[*NAMES, *VALUES]])
    return found[found["n"] > 0].reset_index(drop=True)


def _measured(path: Path) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for table in tables(frame(read_records(path))):
        place = (table.dataset, table.model, table.scenario, table.target or "")
        for row in table.rows:
            for key, cell in row.cells.items():
                if cell.n:
                    std = math.nan if cell.std is None else cell.std
                    rows.append((*place, row.method, row.variant, key, cell.mean, std, cell.n))
    return pd.DataFrame(rows, columns=[*NAMES, *VALUES])


def _published(data: pd.DataFrame) -> pd.DataFrame:
    """A published table in the names and units of the records."""
    names = data["quantity"].map(_metric)
    found = pd.DataFrame({name: data.get(name, "") for name in NAMES if name != "metric"})
    found = found.assign(metric=[name for name, _ in names], n=data.get("n", ""))
    found["scenario"], found["method"] = found["scenario"].replace(SCENARIOS), found["method"].replace(METHODS)
    values = _numbers(found.assign(mean=data["mean"], std=data["std"]))
    factor = pd.Series([unit for _, unit in names], index=data.index)
    return values.assign(mean=values["mean"] / factor, std=values["std"] / factor)[[*NAMES, *VALUES]]


def _metric(quantity: str) -> tuple[str, float]:
    """Record key and unit of a published quantity."""
    name, factor = str(quantity), 1.0
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            name, factor = name.removesuffix(suffix), unit
    for part in ("forget", "retain", "whole"):
        if name.startswith(f"{part}_"):
            return f"{part}/{name.removeprefix(f'{part}_')}", factor
    return name, factor


def _numbers(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(**{name: pd.to_numeric(data[name], errors="coerce") for name in VALUES}).reset_index(drop=True)


def side_by_side(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Two result sets in one table, matched by what both of them name.

    A published table without datasets or targets is put beside every dataset and target.

    Args:
        first: what :func:`read_results` returns.
        second: the same of the other set.

    Returns:
        The names, ``mean``, ``std`` and ``n`` of both (``_a``, ``_b``), ``difference`` (b - a) and the ends of its 95 %
        interval (Welch's), NaN where a set does not tell its spread or number of seeds.

    Raises:
        DataError: if the two have nothing in common.

    Reference:
        Welch 1947, The generalization of Student's problem when several different population variances are involved,
        Biometrika 34.
    """
    open_ = [name for name in ("dataset", "target") if not (first[name].any() and second[name].any())]
    keys = [name for name in NAMES if name not in open_]
    found = first.merge(second, on=keys, suffixes=("_a", "_b"))
    for name in open_:
        found[name] = found[f"{name}_a"].where(found[f"{name}_a"] != "", found[f"{name}_b"])
    if found.empty:
        raise DataError(
            "The two result sets share no method and metric of the same model and scenario; compare like with like."
        )
    ends = [_welch(line) for line in found.to_dict("records")]
    found[["difference", "low", "high"]] = ends
    sides = [f"{name}_{side}" for side in "ab" for name in VALUES]
    return found[[*NAMES, *sides, "difference", "low", "high"]]


def _welch(line: Mapping[Hashable, Any]) -> tuple[float, float, float]:
    """Difference of two means and its interval."""
    difference = line["mean_b"] - line["mean_a"]
    errors = [line[f"std_{side}"] ** 2 / line[f"n_{side}"] if line[f"n_{side}"] > 1 else math.nan for side in "ab"]
    total = sum(errors)
    if not math.isfinite(total) or not math.isfinite(difference):
        return difference, math.nan, math.nan
    if not total:
        return difference, difference, difference
    rest = sum(error**2 / (line[f"n_{side}"] - 1) for error, side in zip(errors, "ab", strict=True))
    half = t_quantile(LEVEL, total**2 / rest) * math.sqrt(total)
    return difference, difference - half, difference + half


def beside_grids(found: pd.DataFrame, names: tuple[str, str]) -> list[Grid]:
    """The comparison as one table per dataset, model and scenario.

    Args:
        found: what :func:`side_by_side` returns.
        names: what the two sets are called.
    """
    columns = {column.key: column for column in COLUMNS}
    grids = []
    missing = found[["n_a", "n_b"]].isna().any(axis=None)
    orientation = (
        "Where a set does not tell its number of seeds or its data, the comparison is for orientation only.",
    )
    notes = orientation if missing else ()
    places = ["dataset", "model", "scenario", "target"]
    parts = sorted(found.groupby(places, sort=False), key=lambda item: [natural(str(name)) for name in item[0]])
    for place, part in parts:
        keys = [key for key in columns if (part["metric"] == key).any()]
        keys = keys or sorted(set(part["metric"]))
        lines = {(line["method"], line["variant"], line["metric"]): line for line in part.to_dict("records")}
        methods = sorted({name[:2] for name in lines}, key=lambda name: method_order(*name))
        shown = [columns.get(key) or extra(key) for key in keys]
        digits = {one.key: decimals(one, part.loc[part["metric"] == one.key, "mean_a"]) for one in shown}
        rows = tuple(
            (method_label(*name), tuple(_field(one, digits[one.key], lines.get((*name, one.key))) for one in shown))
            for name in methods
        )
        title = ", ".join(clean(word, 60) for word in place if word)
        top = sum(name[0] in REFERENCES for name in methods)
        header = ("Method", *(one.title for one in shown))
        grids.append(Grid(_slug(place), title, _about(names), header, rows, notes, top))
    return grids


def _slug(place: Sequence[Any]) -> str:
    return "compare-" + hashlib.sha256("\n".join(map(str, place)).encode()).hexdigest()[:8]


def _about(names: tuple[str, str]) -> str:
    return (
        f"A: {clean(names[0], 100)}; B: {clean(names[1], 100)}. Each field: A | B, below it B - A with Welch's 95 % "
        "interval where both sets have several seeds; * where the interval leaves 0 out (each field by itself, without "
        "a correction for their number)."
    )


def _field(column: Column, digits: int, line: Mapping[Any, Any] | None) -> Entry:
    if line is None:
        return Entry("-")
    first, second, gap = (number(line[name] * column.scale, digits) for name in ("mean_a", "mean_b", "difference"))
    gap = gap if gap.startswith("-") else f"+{gap}"
    known = not math.isnan(line["low"])
    ends = [number(line[name] * column.scale, digits) for name in ("low", "high")]
    small = f"{gap} [{', '.join(ends)}]" if known else gap
    apart = known and (line["low"] > 0 or line["high"] < 0)
    return Entry(f"{first} | {second}", small, "*" if apart else "", False, abs(line["difference"]))
