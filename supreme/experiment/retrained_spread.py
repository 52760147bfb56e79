"""M_r as a distribution: gaps in its standard deviations, and what another M_r would get."""

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from supreme.experiment.run_columns import ENTRY, PLACE, SEEDS, require, seed_columns
from supreme.experiment.statistics import SINGLE, Summary, summary, t_quantile

RETRAIN = "Retrain"
EVALUATION = SEEDS[2]


def retrained_spread(
    data: pd.DataFrame, metrics: Sequence[str], *, by: Sequence[str] = (*PLACE, "target")
) -> pd.DataFrame:
    """Mean and sample standard deviation of every metric over the retrained models of a target.

    Models differ in the training seed, the unlearning seed or the draw of the samples to forget; evaluations of one
    model are averaged first.

    Args:
        data: one row per run; the Retrain runs count.
        metrics: columns of values.
        by: columns whose values tell targets apart.

    Returns:
        One row per target and metric: the target, ``metric``, ``mean``, ``std`` (NaN for a single model), ``n``
        (models) and ``kind`` ("spread", or "single seed").

    Raises:
        DataError: if a column is missing.

    Example:
        >>> data = pd.DataFrame({"method": ["Retrain"] * 3, "training_seed": [1, 2, 3], "unlearning_seed": [1, 2, 3]})
        >>> spread = retrained_spread(data.assign(mia=[1.0, 2.0, 3.0]), ["mia"], by=["method"])
        >>> spread[["mean", "std"]].loc[0].tolist()
        [2.0, 1.0]
    """
    rows: list[dict[Hashable, Any]] = []
    for group, metric, models in _models(data[data["method"] == RETRAIN], metrics, by):
        mean, std, n = summary(models["value"])
        kind = "spread" if n > 1 else SINGLE
        rows.append({**group, "metric": metric, "mean": mean, "std": _number(std), "n": n, "kind": kind})
    return pd.DataFrame(rows, columns=[*by, "metric", "mean", "std", "n", "kind"])


def gap_z(data: pd.DataFrame, metrics: Sequence[str], *, by: Sequence[str] = (*PLACE, "target")) -> pd.DataFrame:
    """Every gap in standard deviations of M_r: ``(value(M_u) - value(M_r)) / std of value(M_r) over seeds``.

    M_r in the gap is the one with the same seeds and draw; the standard deviation (divisor n - 1) is over all
    retrained models of the target. Where M_r does not vary, a gap of 0 is 0 and any other is infinite.

    Args:
        data: one row per run; the Retrain runs among them.
        metrics: columns of values (not of gaps).
        by: columns whose values tell targets apart.

    Returns:
        One column ``<metric>_gap_z`` per metric, with the index of ``data``; NaN where the gap or the spread of M_r is
        unknown, as it is for a single M_r.

    Raises:
        DataError: if a column is missing.

    Reference:
        Glass 1976, Educational Researcher 5 (a difference in standard deviations of the reference).

    Example:
        >>> data = pd.DataFrame({"method": ["Retrain"] * 2 + ["SSD"] * 2, "target": "3", "mia": [1.0, 3.0, 2.0, 5.0]})
        >>> data = data.assign(training_seed=[1, 2] * 2, unlearning_seed=[1, 2] * 2, evaluation_seed=[1, 2] * 2)
        >>> gap_z(data, ["mia"], by=["target"])["mia_gap_z"].round(3).tolist()
        [0.0, 0.0, 0.707, 1.414]
    """
    require(data, [*by, *SEEDS, "method", *metrics])
    keys = [*by, *seed_columns(data)]
    spreads = retrained_spread(data, metrics, by=by)
    retrained = data[data["method"] == RETRAIN].groupby(keys, dropna=False)[list(metrics)].mean()
    result = pd.DataFrame(index=data.index)
    for metric in metrics:
        same = data[keys].merge(retrained[[metric]], how="left", left_on=keys, right_index=True)[metric].to_numpy()
        spread = spreads[spreads["metric"] == metric]
        std = data[list(by)].merge(spread, how="left", on=list(by))["std"].to_numpy(dtype=np.float64)
        gap = data[metric].to_numpy(dtype=np.float64) - same
        with np.errstate(divide="ignore", invalid="ignore"):
            result[f"{metric}_gap_z"] = np.where((gap == 0) & (std == 0), 0.0, gap / std)
    return result


def audit_retrained(
    data: pd.DataFrame, metrics: Sequence[str], *, by: Sequence[str] = (*PLACE, "target"), level: float = 0.95
) -> pd.DataFrame:
    """Every model against the retrained models of the other seeds; M_r itself, so held out, is what perfect looks like.

    A model of a method has the reference that the M_r of its seeds has, so both have one distribution where the method
    is as good as retraining. For k others with the mean m and standard deviation s: ``gap = x - m``, ``z = gap / s``,
    and ``p`` from ``gap / (s sqrt(1 + 1 / k))``, which has Student's t distribution with k - 1 degrees of freedom when
    all are normal. ``flagged`` says that p is below 1 - level; a share of 1 - level of the M_r should be.

    Args:
        data: one row per run, the Retrain runs among them. Evaluations of one model are averaged first.
        metrics: columns of values.
        by: columns whose values tell targets apart.
        level: share of retrained models that are not to be flagged.

    Returns:
        One row per target, metric and model: the target, ``metric``, its method, variant and seeds, ``value``,
        ``others_mean``, ``others_std``, ``gap``, ``z``, ``p``, ``flagged``, ``n`` (retrained models of the target) and
        ``kind``. With fewer than two others z and p are NaN and ``kind`` is "too few seeds" ("single seed" without
        any). Targets without a retrained model are left out.

    Raises:
        DataError: if a column is missing.

    Reference:
        Efron, Tibshirani 1993, chapter 11 (leave one out); Hahn, Meeker 1991, Statistical Intervals (prediction of
        one more value).

    Example:
        >>> data = pd.DataFrame({"method": "Retrain", "training_seed": [1, 2, 3, 4], "unlearning_seed": [1, 2, 3, 4]})
        >>> audit = audit_retrained(data.assign(mia=[1.0, 2.0, 3.0, 9.0]), ["mia"], by=["method"])
        >>> audit["z"].round(2).tolist(), audit["flagged"].tolist()
        ([-0.97, -0.56, -0.23, 7.0], [False, False, False, True])
    """
    threshold = 1 - level
    t_quantile(level, 1.0)
    tables = []
    for group, metric, models in _models(data, metrics, by):
        table = _against_others(models)
        table["flagged"] = table["p"] < threshold
        tables.append(table.assign(metric=metric, **{str(name): value for name, value in group.items()}))
    numbers = ["value", "others_mean", "others_std", "gap", "z", "p", "flagged", "n", "kind"]
    names = list(dict.fromkeys([*by, "metric", *_model_columns(data), *numbers]))
    return pd.concat(tables, ignore_index=True)[names] if tables else pd.DataFrame(columns=names)


def audit_summary(audit: pd.DataFrame, *, by: Sequence[str] = (*PLACE, "target", "method")) -> pd.DataFrame:
    """How far models typically lie from the retrained models of the other seeds; the M_r rows say what perfect is.

    Sizes are medians: with three retrained models z has one degree of freedom, and its mean no limit.

    Args:
        audit: what :func:`audit_retrained` returns.
        by: columns whose values tell groups of models apart.

    Returns:
        One row per group and metric: ``n`` (models), ``gap_size`` (median of |gap|), ``largest_gap``, ``z_size``
        (median of |z|), ``flagged`` (share of models, NaN where none can be judged) and ``kind``.

    Example:
        >>> data = pd.DataFrame({"method": "Retrain", "training_seed": [1, 2, 3, 4], "unlearning_seed": [1, 2, 3, 4]})
        >>> audit = audit_retrained(data.assign(mia=[1.0, 2.0, 3.0, 9.0]), ["mia"], by=["method"])
        >>> audit_summary(audit, by=["method"])[["gap_size", "flagged"]].loc[0].tolist()
        [3.0, 0.25]
    """
    rows: list[dict[Hashable, Any]] = []
    for names, models in audit.groupby([*by, "metric"], sort=False, dropna=False):
        judged = models[models["p"].notna()]
        sizes = models[["gap", "z"]].abs()
        row: dict[Hashable, Any] = dict(zip([*by, "metric"], names, strict=True))
        row |= {"n": len(models), "gap_size": sizes["gap"].median(), "largest_gap": sizes["gap"].max()}
        share = float(judged["flagged"].mean()) if len(judged) else math.nan
        rows.append({**row, "z_size": sizes["z"].median(), "flagged": share, "kind": models["kind"].iloc[0]})
    return pd.DataFrame(rows, columns=[*by, "metric", "n", "gap_size", "largest_gap", "z_size", "flagged", "kind"])


def _model_columns(data: pd.DataFrame) -> list[str]:
    """The columns that tell models apart: method, variant, and all seeds but that of the evaluation."""
    return [name for name in (*ENTRY, *seed_columns(data)) if name in data and name != EVALUATION]


def _models(
    data: pd.DataFrame, metrics: Sequence[str], by: Sequence[str]
) -> Iterable[tuple[dict[Hashable, Any], str, pd.DataFrame]]:
    """Target, metric, and one row per model with its ``value``; targets without an M_r are left out."""
    require(data, [*by, *SEEDS[:2], "method", *metrics])
    names = _model_columns(data)
    for place, runs in data.groupby(list(by), sort=False, dropna=False):
        for metric in metrics:
            models = runs.groupby(names, sort=True, dropna=False)[metric].mean().dropna().rename("value").reset_index()
            if (models["method"] == RETRAIN).any():
                yield dict(zip(by, place, strict=True)), metric, models


def _against_others(models: pd.DataFrame) -> pd.DataFrame:
    """The models of a target beside the retrained ones of the other seeds."""
    table = models.copy()
    seeds = [name for name in models if name not in (*ENTRY, "value")]
    cells = models.groupby(seeds, sort=False, dropna=False).ngroup().to_numpy()
    retrained = (models["method"] == RETRAIN).to_numpy()
    values = models["value"].to_numpy(dtype=np.float64)
    others = {cell: summary(values[retrained & (cells != cell)].tolist()) for cell in set(cells.tolist())}
    judged = [_judged(value, others[cell]) for value, cell in zip(values.tolist(), cells.tolist(), strict=True)]
    table[["others_mean", "others_std", "gap", "z", "p"]] = judged
    table["n"] = int(retrained.sum())
    table["kind"] = [{0: SINGLE, 1: "too few seeds"}.get(others[cell].n, "audit") for cell in cells.tolist()]
    return table


def _judged(value: float, others: Summary) -> tuple[float, float, float, float, float]:
    """Mean and std of the others, gap, z and p of one value."""
    mean, std, n = others
    gap = value - mean
    if std is None:
        return mean, math.nan, gap, math.nan, math.nan
    z = _ratio(gap, std)
    t = abs(z) / math.sqrt(1 + 1 / n)
    return mean, std, gap, z, 2 * float(special.stdtr(n - 1, -t))


def _ratio(gap: float, std: float) -> float:
    """The gap in standard deviations; 0 / 0 is 0."""
    if std == 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / std


def _number(value: float | None) -> float:
    return math.nan if value is None else value
