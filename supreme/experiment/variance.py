"""Where the spread of a value comes from: training, unlearning, evaluation, forget draw, target."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from supreme.errors import ConfigError
from supreme.experiment.mean_squares import MeanSquares, mean_squares
from supreme.experiment.random_terms import Layout, Term, Varied, layout, seed_terms, spread_inside
from supreme.experiment.reml import RandomTerms
from supreme.experiment.run_columns import ENTRY, PLACE, require
from supreme.experiment.statistics import SINGLE, t_quantile

Array: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["auto", "anova", "reml"]

UNCHANGED = "values do not change"
INSEPARABLE = "cannot be separated"
AT_ZERO = "at 0"


@dataclass(frozen=True)
class Component:
    """One source of spread.

    Attributes:
        name: the source; sources that the design cannot tell apart have a joint name such as "unlearning+evaluation".
        variance: its variance, NaN where the design says nothing about it.
        low: lower end of the interval, NaN where there is none.
        high: upper end, NaN where there is none.
        share: variance over the sum of all, NaN where that is unknown or 0.
        levels: number of levels (different seeds, targets or draws).
        note: "" or what to know: "single seed", "values do not change", "at 0" (the estimate was not positive) or
            "cannot be separated" (from the other sources, in this design).
    """

    name: str
    variance: float
    low: float
    high: float
    share: float
    levels: int
    note: str = ""

    @property
    def std(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Decomposition:
    """Variance components of one value.

    Attributes:
        components: by source; the interaction of a seed with targets or draws counts with the seed.
        terms: the same before interactions are added to their seeds.
        mean: mean of all rows.
        n: number of rows.
        method: "anova", "reml", or "none" when there was nothing to estimate.
        level: level of the intervals.
    """

    components: tuple[Component, ...]
    terms: tuple[Component, ...]
    mean: float
    n: int
    method: str
    level: float

    def component(self, name: str) -> Component:
        """The component that a source belongs to, under its own or a joint name.

        Raises:
            ConfigError: if no component has the name.

        Example:
            >>> data = pd.DataFrame({"training_seed": [1, 2], "unlearning_seed": [1, 2], "mia": [1.0, 3.0]})
            >>> decompose(data, "mia").component("unlearning").name
            'training+unlearning'
        """
        for one in self.components:
            if name == one.name or name in one.name.split("+"):
                return one
        known = ", ".join(repr(one.name) for one in self.components)
        raise ConfigError(f"Expected the name of a component ({known or 'there is none'}), got '{name}'.")

    def frame(self, *, terms: bool = False) -> pd.DataFrame:
        """One row per component (or term): ``component``, ``variance``, ``std``, ``low``, ``high``, and so on.

        Args:
            terms: list terms instead, with the interactions apart.

        Example:
            >>> data = pd.DataFrame({"training_seed": [1, 2], "mia": [1.0, 3.0]})
            >>> decompose(data, "mia").frame()[["component", "variance", "share"]].to_numpy().tolist()
            [['training', 2.0, 1.0]]
        """
        rows = [asdict(one) | {"std": one.std} for one in (self.terms if terms else self.components)]
        names = ["name", "variance", "std", "low", "high", "share", "levels", "note"]
        return pd.DataFrame(rows, columns=names).rename(columns={"name": "component"})


@dataclass(frozen=True)
class _Estimate:
    """Estimates of all terms, and the means to find intervals of their sums."""

    method: str
    variances: Array
    draws: Array
    inside: Array | None  # None: draws are of the variances themselves; else of estimates, and this is their noise

    def interval(self, places: Sequence[int], level: float) -> tuple[float, float]:
        """Interval of the sum of some variances, ends not below 0."""
        tails = [(1 - level) / 2, (1 + level) / 2]
        if self.inside is None:
            low, high = np.quantile(self.draws[:, places].sum(axis=1), tails)
            return max(0.0, float(low)), max(0.0, float(high))
        noise = float(self.inside[places].sum())
        whole = float(self.variances[places].sum()) + noise
        if whole <= 0:
            return 0.0, 0.0
        small, large = np.quantile((self.draws[:, places].sum(axis=1) + noise) / whole, tails)
        high = whole / small - noise if small > 0 else math.inf
        return max(0.0, float(whole / large - noise)), max(0.0, float(high))


def decompose(
    data: pd.DataFrame,
    value: str,
    *,
    terms: Sequence[Term] | None = None,
    interactions: bool = True,
    method: Method = "auto",
    level: float = 0.95,
    replicates: int | None = None,
    seed: int = 0,
) -> Decomposition:
    """Variance components of a value over seeds, targets and forget draws, with intervals.

    The model is ``y = mu + sum of independent normal effects``, one effect per level of every term. Balanced designs
    are estimated by mean squares (method of moments: the variances whose expected mean squares are the observed ones),
    others by REML; no estimate is below 0. Intervals come from a parametric bootstrap: of the mean squares, turned
    around (exact for a single component), or, with REML, of data simulated from the fit and estimated again by one
    scoring step. There, ``(estimate + c) / (true + c)`` is taken to have the distribution that it has in the
    bootstrap, where c is the variance that finer terms leave in the mean of one level.

    Args:
        data: one row per run; missing and infinite values are left out.
        value: the column of values.
        terms: random terms; None takes those of a plan (:func:`supreme.experiment.random_terms.seed_terms`).
        interactions: whether the plan's terms include seeds times targets and draws.
        method: "anova" (balanced designs only), "reml", or "auto", the first where the design allows it.
        level: level of the intervals.
        replicates: bootstrap replicates; None takes 5000 for mean squares and 2000 for REML.
        seed: seed of the bootstrap.

    Returns:
        The components. A source with one level has NaN and is labelled "single seed"; nothing is ever 0 for want of
        seeds.

    Raises:
        ConfigError: if an argument is not usable, or "anova" was asked for an unbalanced design.
        DataError: if a column is missing.

    Reference:
        Searle, Casella, McCulloch 1992, Variance Components, chapters 3, 4, 6; Patterson, Thompson 1971 (REML);
        Efron, Tibshirani 1993, section 6.5 (parametric bootstrap); Weerahandi 1993, JASA 88 (intervals of
        balanced designs).

    Example:
        >>> data = pd.DataFrame(
        ...     {"training_seed": [1, 1, 2, 2], "unlearning_seed": [11, 12, 21, 22], "mia": [1.0, 3.0, 6.0, 8.0]}
        ... )
        >>> [(one.name, one.variance) for one in decompose(data, "mia").components]
        [('training', 11.5), ('unlearning', 2.0)]
    """
    if method not in ("auto", "anova", "reml"):
        raise ConfigError(f"Expected 'auto', 'anova' or 'reml' as method, got '{method}'.")
    t_quantile(level, 1.0)
    require(data, [value])
    known = data[np.isfinite(data[value].to_numpy(dtype=np.float64))]
    chosen = seed_terms(known, interactions=interactions) if terms is None else tuple(terms)
    require(data, [name for term in chosen for name in term.columns])
    mean = float(known[value].mean()) if len(known) else math.nan
    if known.empty:
        nothing = tuple(_unknown(term.name, 0, SINGLE) for term in chosen if len(term.parts) == 1)
        return Decomposition(nothing, nothing, mean, 0, "none", level)
    found = layout(known, value, chosen)
    estimate, varied, lost = _estimate(found, method, replicates, seed)
    by_term = [(one.term.name, [place], one.levels) for place, one in enumerate(varied)]
    by_source = _by_source(varied)
    rest = _rest(found, lost)
    components = _components(by_source, estimate, level, rest)
    return Decomposition(
        components, _components(by_term, estimate, level, rest), mean, len(known), estimate.method, level
    )


def variance_table(
    data: pd.DataFrame,
    metrics: Sequence[str],
    *,
    by: Sequence[str] = (*PLACE, *ENTRY),
    interactions: bool = True,
    method: Method = "auto",
    level: float = 0.95,
    replicates: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Variance components of every metric in every group of runs, as one long table.

    Args:
        data: one row per run.
        metrics: columns of values.
        by: columns whose values tell groups apart; add the target where targets are different experiments.
        interactions: as in :func:`decompose`.
        method: as in :func:`decompose`.
        level: as in :func:`decompose`.
        replicates: as in :func:`decompose`.
        seed: as in :func:`decompose`.

    Returns:
        The group, ``metric``, ``component``, ``variance``, ``std``, ``low``, ``high``, ``share``, ``levels``,
        ``note``, ``method_of_estimation`` and ``n``, a row per component.

    Raises:
        DataError: if a column is missing.

    Reference:
        :func:`decompose`.

    Example:
        >>> data = pd.DataFrame({"method": ["SSD"] * 2, "training_seed": [1, 2], "mia": [1.0, 3.0]})
        >>> variance_table(data, ["mia"], by=["method"])[["component", "variance"]].to_numpy().tolist()
        [['training', 2.0]]
    """
    require(data, [*by, *metrics])
    options: dict[str, Any] = {"interactions": interactions, "method": method, "level": level}
    tables: list[pd.DataFrame] = []
    for group, runs in data.groupby(list(by), sort=False, dropna=False):
        for metric in metrics:
            if runs[metric].notna().any():
                found = decompose(runs, metric, replicates=replicates, seed=seed, **options)
                table = found.frame().assign(method_of_estimation=found.method, n=found.n, metric=metric)
                tables.append(table.assign(**_named(by, group)))
    shown = ["metric", "component", "variance", "std", "low", "high", "share", "levels", "note"]
    columns = [*by, *shown, "method_of_estimation", "n"]
    return pd.concat(tables, ignore_index=True).reindex(columns=columns) if tables else pd.DataFrame(columns=columns)


def _named(columns: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(columns, values, strict=True))


def _estimate(
    found: Layout, method: Method, replicates: int | None, seed: int
) -> tuple[_Estimate, list[Varied], list[Varied]]:
    """Estimates of the varied terms that can be separated, those terms, and the others."""
    varied = list(found.varied)
    if not varied:
        return _Estimate("none", np.zeros(0), np.zeros((1, 0)), None), [], []
    values = found.values
    squares = None if method == "reml" else mean_squares(values, [one.codes for one in varied])
    if squares is not None:
        return _from_squares(squares, replicates, seed), varied, []
    if method == "anova":
        raise ConfigError("Expected a balanced design for 'anova', got one with unequal or missing runs; use 'reml'.")
    kept = _separable(varied, len(values))
    lost = [one for one in varied if one not in kept]
    return _from_likelihood(kept, values, replicates, seed), kept, lost


def _from_squares(squares: MeanSquares, replicates: int | None, seed: int) -> _Estimate:
    variances = np.maximum(squares.estimates(), 0.0)
    return _Estimate("anova", variances, squares.draws(replicates or 5_000, seed), None)


def _from_likelihood(varied: Sequence[Varied], values: Array, replicates: int | None, seed: int) -> _Estimate:
    model = RandomTerms([one.codes for one in varied[:-1]], len(values))
    variances = model.fit(values)
    inside = np.array(spread_inside(varied, variances.tolist()))
    if variances[-1] <= 0:
        return _Estimate("reml", variances, np.tile(variances, (1, 1)), inside)
    simulated = model.simulate(variances, replicates or 2_000, seed)
    return _Estimate("reml", variances, model.scored(variances[:-1] / variances[-1], simulated), inside)


def _separable(varied: Sequence[Varied], rows: int) -> list[Varied]:
    """The residual and, in order, every term whose covariance is no combination of those before it."""
    table = RandomTerms([one.codes for one in varied[:-1]], rows).information(np.zeros(len(varied) - 1))
    scale = np.sqrt(np.maximum(np.diag(table), 1e-300))
    kept = [len(varied) - 1]
    for place in range(len(varied) - 1):
        chosen = [*kept, place]
        if np.linalg.eigvalsh((table / np.outer(scale, scale))[np.ix_(chosen, chosen)])[0] > 1e-9:
            kept = chosen
    return [one for place, one in enumerate(varied) if place in kept]


def _by_source(varied: Sequence[Varied]) -> list[tuple[str, list[int], int]]:
    """Name, places of the terms, and levels of every source."""
    sources: dict[str, list[int]] = {}
    for place, one in enumerate(varied):
        sources.setdefault(one.term.parts[-1], []).append(place)
    return [(name, places, varied[places[0]].levels) for name, places in sources.items()]


def _rest(found: Layout, lost: Sequence[Varied]) -> list[Component]:
    """Components that need no estimate or can have none."""
    fixed = [Component(name, 0.0, 0.0, 0.0, 0.0, levels, UNCHANGED) for name, levels in found.fixed.items()]
    single = [_unknown(name, 1, SINGLE if name != "target" else "single target") for name in found.single]
    return fixed + single + [_unknown(one.term.name, one.levels, INSEPARABLE) for one in lost]


def _unknown(name: str, levels: int, note: str) -> Component:
    return Component(name, math.nan, math.nan, math.nan, math.nan, levels, note)


def _components(
    groups: Sequence[tuple[str, list[int], int]], estimate: _Estimate, level: float, rest: Sequence[Component]
) -> tuple[Component, ...]:
    total = float(estimate.variances.sum())
    made = []
    for name, places, levels in groups:
        variance, (low, high) = float(estimate.variances[places].sum()), estimate.interval(places, level)
        share = variance / total if total > 0 else math.nan
        made.append(Component(name, variance, low, high, share, levels, "" if variance > 0 else AT_ZERO))
    return (*made, *rest)
