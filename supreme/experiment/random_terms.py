"""Which random terms a frame of runs can tell apart: nested seeds, crossed targets and forget draws."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from supreme.errors import ConfigError
from supreme.experiment.mean_squares import numbered

Array: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]

COLUMNS = {
    "target": ("target",),
    "training": ("training_seed",),
    "unlearning": ("training_seed", "unlearning_seed"),
    "evaluation": ("training_seed", "unlearning_seed", "evaluation_seed"),
    "draw": ("draw_seed",),
}
CROSSED = tuple((outer, seed) for outer in ("target", "draw") for seed in ("training", "unlearning", "evaluation"))
RESIDUAL = "residual"


@dataclass(frozen=True)
class Term:
    """A random term: rows that agree in its columns share one effect.

    Attributes:
        parts: names of the sources of spread that it belongs to; an interaction has several, the one that it is
            counted with last.
        columns: columns whose values tell its levels apart, its own last.
    """

    parts: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """The term in words."""
        return " x ".join(self.parts)


@dataclass(frozen=True)
class Varied:
    """A term with its level in every row, numbered from 0."""

    term: Term
    codes: Codes

    @property
    def levels(self) -> int:
        """Number of levels."""
        return int(self.codes.max()) + 1


@dataclass(frozen=True)
class Layout:
    """What a frame can tell apart.

    Attributes:
        values: one value per row, after averaging over what has no influence.
        varied: the terms to estimate, the one with a level for every row last.
        single: names of sources with one level only.
        fixed: names of sources (and their numbers of levels) that do not change any value.
    """

    values: Array
    varied: tuple[Varied, ...]
    single: tuple[str, ...]
    fixed: dict[str, int]


def seed_terms(data: pd.DataFrame, *, interactions: bool = True) -> tuple[Term, ...]:
    """The random terms of a plan.

    Unlearning seeds are inside training seeds, evaluation seeds inside those; all are crossed with targets and with
    forget draws.

    Args:
        data: one row per run; sources whose columns it lacks are left out.
        interactions: whether the effect of a seed may differ between targets and between draws, as it does when every
            target's model is made anew.

    Reference:
        Searle, Casella, McCulloch 1992, Variance Components, chapter 4 (nested and crossed random models).

    Example:
        >>> data = pd.DataFrame(columns=["target", "training_seed"])
        >>> [term.name for term in seed_terms(data)]
        ['target', 'training', 'target x training']
    """
    known = {name: columns for name, columns in COLUMNS.items() if columns[-1] in data.columns}
    present = {name: tuple(one for one in columns if one in data.columns) for name, columns in known.items()}
    terms = [Term((name,), columns) for name, columns in present.items()]
    pairs = [pair for pair in CROSSED if interactions and set(pair) <= set(present)]
    return (*terms, *(Term(pair, (*present[pair[0]], *present[pair[1]])) for pair in pairs))


def layout(data: pd.DataFrame, value: str, terms: Sequence[Term]) -> Layout:
    """Find out which terms the rows can tell apart.

    Sources with one level only cannot be estimated. Sources that do not change any value are averaged over. Sources
    with the same levels (such as matched seeds, s_t = s_u = s_e) become one with a joint name; interactions that say
    nothing beyond another term are dropped; where no term has a level of its own for every row, a residual is added.

    Args:
        data: one row per value, without missing values.
        value: the column of values.
        terms: the terms to look for, main ones first.

    Raises:
        ConfigError: if an interaction names a source that is not among the terms.

    Example:
        >>> data = pd.DataFrame({"training_seed": [1, 2], "unlearning_seed": [1, 2], "mia": [0.5, 0.75]})
        >>> [one.term.name for one in layout(data, "mia", seed_terms(data)).varied]
        ['training+unlearning']
    """
    mains = [term for term in terms if len(term.parts) == 1]
    unknown = {part for term in terms for part in term.parts} - {term.name for term in mains}
    if unknown:
        raise ConfigError(f"Expected the term '{min(unknown)}' among the terms, since an interaction has it; add it.")
    names = {name for term in terms for name in term.columns}
    rows = _Rows(
        data[value].to_numpy(dtype=np.float64),
        {name: np.asarray(pd.factorize(data[name], use_na_sentinel=False)[0], dtype=np.intp) for name in names},
    )
    single = [term for term in mains if rows.codes(term.columns).max() == 0]
    rest = [term for term in mains if term not in single]
    rows, fixed = _without_influence(rows, rest)
    changing = [term for term in rest if term.name not in fixed]
    varied = _varied(rows, changing, [term for term in terms if len(term.parts) > 1])
    return Layout(rows.values, varied, tuple(term.name for term in single), fixed)


@dataclass(frozen=True)
class _Rows:
    """Values, and for every column the number of its value in each row."""

    values: Array
    columns: Mapping[str, Codes]

    def codes(self, names: Iterable[str]) -> Codes:
        """Numbers of the combinations of some columns' values."""
        joint = np.zeros(len(self.values), dtype=np.intp)
        for name in names:
            column = self.columns[name]
            joint = numbered(joint * (int(column.max()) + 1) + column)
        return joint


def _without_influence(rows: _Rows, mains: Sequence[Term]) -> tuple[_Rows, dict[str, int]]:
    """The rows averaged over the sources that change no value, and those sources; with one goes what is inside it."""
    columns = list(dict.fromkeys(name for term in mains for name in term.columns))
    levels = {term.name: int(rows.codes(term.columns).max()) + 1 for term in mains}
    tolerance = 1e-12 * float(np.abs(rows.values).max())
    fixed: dict[str, int] = {}
    for term in mains:
        inside = [one for one in mains if term.columns[-1] in one.columns and one.name not in fixed]
        kept = [name for name in columns if all(name != one.columns[-1] for one in inside)]
        groups = rows.codes(kept)
        first = np.unique(groups, return_index=True)[1]
        if len(first) < len(groups) and np.all(np.abs(rows.values - rows.values[first][groups]) <= tolerance):
            fixed |= {one.name: levels[one.name] for one in inside}
            rows = _Rows(rows.values[first], {name: column[first] for name, column in rows.columns.items()})
            columns = kept
    return rows, fixed


def _varied(rows: _Rows, mains: Sequence[Term], crossed: Sequence[Term]) -> tuple[Varied, ...]:
    """Terms with different levels, the residual last."""
    found: list[Varied] = []
    for term in mains:
        codes = rows.codes(term.columns)
        twin = next((place for place, one in enumerate(found) if np.array_equal(one.codes, codes)), None)
        if twin is None:
            found.append(Varied(term, codes))
        else:
            joint = f"{found[twin].term.name}+{term.name}"
            found[twin] = Varied(replace(found[twin].term, parts=(joint,)), codes)
    names = {part: one.term.name for one in found for part in one.term.name.split("+")}
    for term in crossed:
        if set(term.parts) <= set(names):
            codes = rows.codes(term.columns)
            if not any(np.array_equal(one.codes, codes) for one in found):
                found.append(Varied(replace(term, parts=tuple(names[part] for part in term.parts)), codes))
    count = len(rows.values)
    if found and all(one.levels < count for one in found):
        found.append(Varied(Term((RESIDUAL,), ()), np.arange(count, dtype=np.intp)))
    return tuple(sorted(found, key=lambda one: one.levels == count))


def spread_inside(varied: Sequence[Varied], variances: Sequence[float]) -> list[float]:
    """For every term the variance that finer terms leave in the mean of one of its levels, averaged over its levels.

    Args:
        varied: the terms.
        variances: their variances.

    Example:
        >>> terms = [Varied(Term(("a",), ()), np.array([0, 0, 1, 1])), Varied(Term(("b",), ()), np.arange(4))]
        >>> spread_inside(terms, [5.0, 3.0])
        [1.5, 0.0]
    """
    result = []
    for outer in varied:
        sizes = np.bincount(outer.codes)
        total = 0.0
        for inner, variance in zip(varied, variances, strict=True):
            pairs, counts = np.unique(np.stack([outer.codes, inner.codes]), axis=1, return_counts=True)
            if inner.levels == pairs.shape[1] > outer.levels:
                total += variance * math.fsum((counts / sizes[pairs[0]]) ** 2) / outer.levels
        result.append(total)
    return result
