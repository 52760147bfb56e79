"""Seeds of a study: every (training, unlearning, evaluation) triple, none used for two purposes."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from supreme.errors import ConfigError


class Seeds(NamedTuple):
    """The seeds of one run: training ``s_t``, unlearning ``s_u``, evaluation ``s_e``."""

    training: int
    unlearning: int
    evaluation: int

    @property
    def first(self) -> "Seeds":
        """The seeds of the same models with their first evaluation seed.

        Example:
            >>> Seeds(7, 7001, 7001002).first.evaluation, Seeds(7, 7, 7).first.evaluation
            (7001000, 7)
        """
        matched = self.evaluation == self.unlearning
        return self if matched else self._replace(evaluation=1000 * self.unlearning)


def seed_grid(training: Sequence[int], unlearning: int = 1, evaluation: int = 1) -> list[Seeds]:
    """All seed triples of a study with I training seeds, J unlearning and K evaluation seeds each.

    With J = K = 1 the seeds are matched (``s_t = s_u = s_e``), otherwise ``s_u = 1000 s_t + j`` and
    ``s_e = 1000 s_u + k``, and no number serves twice, so that stages are independent over I x J x K.

    Args:
        training: the I training seeds, distinct and not negative.
        unlearning: J, the number of unlearning seeds per training seed, 1 to 1000.
        evaluation: K, the number of evaluation seeds per unlearning seed, 1 to 1000.

    Raises:
        ConfigError: if a count is outside its range or two stages would share a seed.

    Example:
        >>> seed_grid([260])
        [Seeds(training=260, unlearning=260, evaluation=260)]
        >>> seed_grid([7], unlearning=2)[1]
        Seeds(training=7, unlearning=7001, evaluation=7001000)
    """
    if not training or len(set(training)) != len(training) or min(training) < 0:
        raise ConfigError(f"Expected distinct training seeds >= 0, got {list(training)}; list each seed once.")
    for name, count in (("unlearning", unlearning), ("evaluation", evaluation)):
        if not 1 <= count <= 1000:
            raise ConfigError(f"Expected 1 to 1000 {name} seeds per cell, got {count}.")
    if unlearning == 1 and evaluation == 1:
        return [Seeds(seed, seed, seed) for seed in training]
    grid = [
        Seeds(s_t, s_u, 1000 * s_u + k)
        for s_t in training
        for s_u in range(1000 * s_t, 1000 * s_t + unlearning)
        for k in range(evaluation)
    ]
    _check_independence(grid)
    return grid


def _check_independence(grid: Sequence[Seeds]) -> None:
    """Refuse a number that is the seed of two kinds of stages."""
    kinds = {name: set(values) for name, values in zip(Seeds._fields, zip(*grid, strict=True), strict=True)}
    for (first, some), (second, others) in combinations(kinds.items(), 2):
        if some & others:
            raise ConfigError(
                f"Stages would share a seed: {min(some & others)} is {_article(first)} seed and {_article(second)} "
                "seed of this plan (s_u = 1000 s_t + j, s_e = 1000 s_u + k); choose other training seeds, such as 260."
            )


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiu' else 'a'} {kind}"
