"""Analysis of variance of balanced designs: mean squares, what they estimate, and intervals from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]


@dataclass(frozen=True)
class MeanSquares:
    """The analysis of variance of a balanced design with random terms; the last term is the residual.

    Attributes:
        values: mean square of every term.
        df: degrees of freedom of every term.
        expected: square matrix; ``expected @ variances`` are the expected mean squares.
    """

    values: Array
    df: NDArray[np.int_]
    expected: Array

    def estimates(self) -> Array:
        """Variances whose expected mean squares are the observed ones; they can be negative.

        Reference:
            Searle, Casella, McCulloch 1992, Variance Components, chapter 4.

        Example:
            >>> codes = np.repeat(np.arange(2), 2)
            >>> mean_squares(np.array([1.0, 3.0, 6.0, 8.0]), [codes, np.arange(4)]).estimates().tolist()
            [11.5, 2.0]
        """
        return np.asarray(np.linalg.solve(self.expected, self.values), dtype=np.float64)

    def draws(self, replicates: int, seed: int) -> Array:
        """Variances that could have given the observed mean squares, one row per draw.

        ``df MS / E(MS)`` is chi-squared with ``df`` degrees of freedom, independently for every term. Drawing it and
        solving for E(MS) turns the parametric bootstrap of the mean squares around, so that quantiles of the draws
        are the ends of an interval; for the residual alone it is the exact chi-squared interval.

        Args:
            replicates: number of draws.
            seed: seed of the draws.

        Reference:
            Weerahandi 1993, Generalized confidence intervals, JASA 88; Burdick, Borror, Montgomery 2005, Design and
            Analysis of Gauge R&R Studies.

        Example:
            >>> codes = np.repeat(np.arange(2), 2)
            >>> mean_squares(np.array([1.0, 3.0, 6.0, 8.0]), [codes, np.arange(4)]).draws(5, seed=0).shape
            (5, 2)
        """
        chances = np.random.default_rng(seed).chisquare(self.df, size=(replicates, len(self.df)))
        return np.asarray(np.linalg.solve(self.expected, (self.df * self.values / chances).T).T, dtype=np.float64)


def mean_squares(values: Array, terms: Sequence[Codes]) -> MeanSquares | None:
    """Mean squares of a balanced design, None for another one.

    A design is balanced here when every term has levels of one size, any two terms are orthogonal, and what they have
    in common is a term, too, or the mean. The sum of squares of a term is that of its level means minus those of the
    coarser terms; ``E(MS_i) = sum over terms j that are i or finer than i of m_j sigma_j^2`` with m_j rows per level.

    Args:
        values: (n,) one value per row.
        terms: for every term the level of each row, numbered from 0; the last term has a level of its own for every
            row.

    Reference:
        Searle, Casella, McCulloch 1992, chapter 4; Bailey 2008, Design of Comparative Experiments, chapter 10
        (orthogonal structures, the rule for df and sums of squares).

    Example:
        >>> codes = np.repeat(np.arange(2), 2)
        >>> found = mean_squares(np.array([1.0, 3.0, 6.0, 8.0]), [codes, np.arange(4)])
        >>> found.values.tolist(), found.df.tolist(), found.expected.tolist()
        ([25.0, 2.0], [1, 2], [[2.0, 1.0], [0.0, 1.0]])
    """
    finer = _finer(terms)
    if finer is None:
        return None
    levels = np.array([int(codes.max()) + 1 for codes in terms])
    squares, df = np.zeros(len(terms)), np.zeros(len(terms), dtype=int)
    centred = values - values.mean()
    for place in np.argsort(levels, kind="stable"):
        coarser = finer[:, place]
        sums = np.bincount(terms[place], weights=centred)
        squares[place] = sums @ sums * levels[place] / len(values) - squares[coarser].sum()
        df[place] = levels[place] - 1 - df[coarser].sum()
    if np.any(df < 1):
        return None
    expected = (finer | np.eye(len(terms), dtype=bool)) * (len(values) / levels)
    return MeanSquares(np.maximum(squares, 0.0) / df, df, expected)


def _finer(terms: Sequence[Codes]) -> NDArray[np.bool_] | None:
    """Whether term j is strictly finer than term i, as [i, j]; None where the design is not balanced."""
    rows, count = len(terms[0]), len(terms)
    sizes = [np.bincount(codes) for codes in terms]
    if any(size.min() != size.max() for size in sizes):
        return None
    finer = np.zeros((count, count), dtype=bool)
    known = {tuple(numbered(codes)) for codes in terms} | {(0,) * rows}
    for i, j in combinations(range(count), 2):
        pairs, numbers = np.unique(terms[i] * len(sizes[j]) + terms[j], return_counts=True)
        finer[i, j] = len(pairs) == len(sizes[j]) > len(sizes[i])
        finer[j, i] = len(pairs) == len(sizes[i]) > len(sizes[j])
        if not (finer[i, j] or finer[j, i]):
            common = _join(terms[i], terms[j])
            wanted = sizes[i][0] * sizes[j][0] / (rows / (common.max() + 1))
            if tuple(common) not in known or np.any(numbers != wanted):
                return None
    return finer


def _join(first: Codes, second: Codes) -> Codes:
    """The finest grouping of rows that is coarser than both, numbered in order of first appearance."""
    label, before = first, np.full_like(first, -1)
    while not np.array_equal(label, before):
        before = label
        for codes in (second, first):
            least = np.full(int(codes.max()) + 1, len(codes), dtype=np.intp)
            np.minimum.at(least, codes, label)
            label = least[codes]
    return numbered(label)


def numbered(codes: NDArray[Any]) -> Codes:
    """The same grouping of rows with its levels numbered from 0 in order of first appearance.

    Example:
        >>> numbered(np.array([7, 3, 7, 5])).tolist()
        [0, 1, 0, 2]
    """
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.intp)
    place[np.argsort(first)] = np.arange(len(first))
    return place[inverse]
