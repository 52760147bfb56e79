"""Restricted maximum likelihood of variance components, for any design with a common mean."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Array: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]

LARGEST = math.log1p(1e8)  # of log(1 + variance / residual variance)


class RandomTerms:
    r"""The model ``y = mu + sum_i Z_i u_i + e`` with ``u_i ~ N(0, sigma_i^2 I)``, ``e ~ N(0, sigma_0^2 I)``.

    With ``M = I - 11'/n``, ``W = Z'MZ`` and ratios ``g_i = sigma_i^2 / sigma_0^2`` on the diagonal of ``D``, the
    restricted likelihood with ``sigma_0^2`` profiled out is ``-2 l = log|I + WD| + (n - 1) log(q / (n - 1))`` and a
    constant, where ``q = y'My - z'D (I + WD)^-1 z`` and ``z = Z'My``; only matrices of the size of all levels occur.

    Args:
        terms: for every random term but the residual the level of each row, numbered from 0.
        rows: number of rows n.

    Reference:
        Patterson, Thompson 1971, Biometrika 58; Searle, Casella, McCulloch 1992, chapters 6 and 7.
    """

    def __init__(self, terms: Sequence[Codes], rows: int) -> None:
        self.rows, self.levels = rows, [int(codes.max()) + 1 for codes in terms]
        ends = np.cumsum([0, *self.levels])
        self.blocks = [slice(int(start), int(end)) for start, end in pairwise(ends)]
        self.indicators = np.zeros((rows, int(ends[-1])))
        for codes, start in zip(terms, ends, strict=False):
            self.indicators[np.arange(rows), start + codes] = 1.0
        self.centred = self.indicators - self.indicators.mean(axis=0)
        self.cross = self.centred.T @ self.indicators

    def deviance(self, ratios: Array, values: Array) -> tuple[float, Array]:
        """``-2 l`` of the ratios, without its constant, and its gradient.

        Args:
            ratios: ``sigma_i^2 / sigma_0^2`` of every term.
            values: (n,) the values y.

        Example:
            >>> model = RandomTerms([np.array([0, 0, 1, 1])], 4)
            >>> round(model.deviance(np.zeros(1), np.array([1.0, -1.0, 1.0, -1.0]))[0], 3)
            0.863
        """
        solved, logdet = self._solved(ratios)
        right = self.centred.T @ values
        whole = float(values @ (values - values.mean()))
        left = solved @ right
        rest = max(whole - float(right @ (self._spread(ratios) * left)), 1e-300)
        diagonal = np.sum(solved * self.cross, axis=1)
        first = np.array([float(diagonal[block].sum()) for block in self.blocks])
        second = np.array([float(left[block] @ left[block]) for block in self.blocks])
        freedom = self.rows - 1
        return logdet + freedom * math.log(rest / freedom), first - freedom * second / rest

    def fit(self, values: Array) -> Array:
        """REML estimates of the variances, none negative; the residual's is the last.

        The deviance is minimised by L-BFGS-B over ``log(1 + g_i) >= 0``, from where three steps of Fisher scoring lead
        and from equal ratios; the better result counts.

        Args:
            values: (n,) the values y.

        Example:
            >>> model = RandomTerms([np.array([0, 0, 1, 1])], 4)
            >>> model.fit(np.array([1.0, 3.0, 6.0, 8.0])).round(3).tolist()
            [11.5, 2.0]
        """
        scale = float(np.std(values)) or 1.0
        scaled = (values - values.mean()) / scale

        def target(logs: Any) -> tuple[float, Any]:
            value, gradient = self.deviance(np.expm1(logs), scaled)
            return value, gradient * np.exp(logs)

        logs: Any = np.zeros(len(self.levels))
        if self.levels:
            bounds, starts = [(0.0, LARGEST)] * len(logs), (self._start(scaled), logs + math.log(2.0))
            tight: Any = {"method": "L-BFGS-B", "options": {"ftol": 1e-13, "gtol": 1e-8}}
            tries = [optimize.minimize(target, one, jac=True, bounds=bounds, **tight) for one in starts]
            logs = min(tries, key=lambda one: float(one.fun)).x
        ratios = np.expm1(logs)
        right = self.centred.T @ scaled
        rest = float(scaled @ scaled - right @ (self._spread(ratios) * (self._solved(ratios)[0] @ right)))
        return np.asarray(np.append(ratios, 1.0) * max(rest, 0.0) / (self.rows - 1) * scale**2, dtype=np.float64)

    def _start(self, values: Array) -> Array:
        """Logarithms of 1 + ratios after three steps of Fisher scoring that stay inside the bounds."""
        ratios = np.ones(len(self.levels))
        for _ in range(3):
            variances = self.scored(ratios, values[:, None])[0]
            if variances[-1] <= 0:
                break
            ratios = np.clip(variances[:-1] / variances[-1], 0.0, math.expm1(LARGEST))
        return np.log1p(ratios)

    def information(self, ratios: Array) -> Array:
        """``trace(P A_i P A_j)`` in units of the residual variance, where ``A_i = Z_i Z_i'`` and the last ``A`` is I.

        Half of it is the expected information of REML.

        Args:
            ratios: ``sigma_i^2 / sigma_0^2`` of every term.

        Reference:
            Searle, Casella, McCulloch 1992, chapter 6.

        Example:
            >>> RandomTerms([np.array([0, 0, 1, 1])], 4).information(np.zeros(1)).tolist()
            [[4.0, 2.0], [2.0, 3.0]]
        """
        between = self._solved(ratios)[0] @ self.cross
        count = len(self.blocks)
        table = np.zeros((count + 1, count + 1))
        for i, first in enumerate(self.blocks):
            for j, second in enumerate(self.blocks):
                table[i, j] = np.sum(between[first, second] ** 2)
        traces = np.array([np.trace(between[block, block]) for block in self.blocks])
        table[:count, count] = table[count, :count] = traces - table[:count, :count] @ ratios
        table[count, count] = self.rows - 1 - ratios @ traces - ratios @ table[:count, count]
        return table

    def scored(self, ratios: Array, values: Array) -> Array:
        """One step of Fisher scoring from the ratios: unbiased estimates (MIVQUE) that can be negative.

        They solve ``sum_j trace(P A_i P A_j) sigma_j^2 = y'P A_i P y``; REML is where the step changes nothing.

        Args:
            ratios: ``sigma_i^2 / sigma_0^2`` of every term.
            values: (n, replicates) the values, one column per replicate.

        Returns:
            (replicates, terms + 1) variances, the residual's last.

        Reference:
            Searle, Casella, McCulloch 1992, chapter 11.

        Example:
            >>> model = RandomTerms([np.array([0, 0, 1, 1])], 4)
            >>> model.scored(np.zeros(1), np.array([[1.0], [3.0], [6.0], [8.0]])).round(3).tolist()
            [[11.5, 2.0]]
        """
        right = self.centred.T @ values
        left = self._solved(ratios)[0] @ right
        whole = np.sum(values * (values - values.mean(axis=0)), axis=0) - np.sum(
            self._spread(ratios)[:, None] * right * left, axis=0
        )
        squares = np.array([np.sum(left[block] ** 2, axis=0) for block in self.blocks]).reshape(-1, values.shape[1])
        squares = np.vstack([squares, whole - ratios @ squares])
        return np.asarray(np.linalg.solve(self.information(ratios), squares).T, dtype=np.float64)

    def simulate(self, variances: Array, replicates: int, seed: int) -> Array:
        """Values that the model gives with a mean of 0, one column per replicate.

        Args:
            variances: of every term, the residual's last.
            replicates: number of columns.
            seed: seed of the draws.

        Example:
            >>> RandomTerms([np.array([0, 0, 1, 1])], 4).simulate(np.array([1.0, 0.0]), 3, seed=0).shape
            (4, 3)
        """
        rng = np.random.default_rng(seed)
        effects = rng.standard_normal((self.indicators.shape[1], replicates))
        residuals = rng.standard_normal((self.rows, replicates)) * math.sqrt(variances[-1])
        spread = np.sqrt(self._spread(variances[:-1]))
        return np.asarray(self.indicators @ (spread[:, None] * effects) + residuals, dtype=np.float64)

    def _spread(self, ratios: Array) -> Array:
        """The diagonal of D."""
        return np.repeat(np.asarray(ratios, dtype=np.float64), self.levels)

    def _solved(self, ratios: Array) -> tuple[Array, float]:
        """``(I + WD)^-1`` and the logarithm of the determinant of ``I + WD``."""
        matrix = np.eye(len(self.cross)) + self.cross * self._spread(ratios)
        return np.linalg.inv(matrix), float(np.linalg.slogdet(matrix)[1])
