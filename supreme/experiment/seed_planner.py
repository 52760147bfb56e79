"""How many seeds of each kind a wanted precision costs least."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from supreme.errors import ConfigError, DataError
from supreme.experiment.random_terms import RESIDUAL
from supreme.experiment.run_columns import ENTRY, SEEDS, entry_labels, require
from supreme.experiment.statistics import t_quantile
from supreme.experiment.variance import Decomposition

Quantile: TypeAlias = Literal["t", "normal"]

_Choice: TypeAlias = tuple[float, int, int, int, int]  # cost, runs, I, J, K

MOST = 1000  # unlearning or evaluation seeds, as in plans
MOST_TRAINING = 20_000

OF_TRAINING = ("train", "importances", "original_outputs")
OF_UNLEARNING = ("retrain", "retrained_outputs", "unlearn")
FIRST, AGAIN = "evaluate", "evaluate_again"
NEEDED = ("train", "retrain", FIRST)


class SeedVariances(NamedTuple):
    """Variances of the effects of a training, an unlearning and an evaluation seed on one value."""

    training: float
    unlearning: float = 0.0
    evaluation: float = 0.0


class SeedCosts(NamedTuple):
    """What one more seed of a kind costs, in seconds, without the seeds inside it.

    A training seed is one M_o; an unlearning seed is M_r and all methods on all targets; an evaluation seed is the
    evaluation of all of those. What only the first evaluation of a model does counts with the unlearning seed.
    """

    training: float
    unlearning: float
    evaluation: float


@dataclass(frozen=True)
class SeedPlan:
    """Numbers of seeds, what they give and what they cost.

    Attributes:
        training: I, the number of training seeds.
        unlearning: J, the number of unlearning seeds per training seed.
        evaluation: K, the number of evaluation seeds per unlearning seed.
        half_width: expected half-width of the interval of the mean (with the variances taken as true).
        cost_s: cost in seconds.
        runs: I x J x K.
        df: degrees of freedom of the interval, I - 1, infinite for the normal approximation.
        level: level of the interval.
    """

    training: int
    unlearning: int
    evaluation: int
    half_width: float
    cost_s: float
    runs: int
    df: float
    level: float


def variances_of_mean(decomposition: Decomposition) -> SeedVariances:
    """Variances that seeds add to the mean over the targets of a study.

    Targets are what was asked about, so their own variance does not count; the interaction of a seed with C targets
    counts 1 / C of its variance. Forget draws are counted with the unlearning seed, which draws unless a plan says
    otherwise. Sources with a joint name are counted with the first of them, so that seeds which were never varied
    alone are planned together.

    Args:
        decomposition: what :func:`supreme.experiment.variance.decompose` returns.

    Raises:
        DataError: if a single training seed leaves its variance unknown.

    Reference:
        Searle, Casella, McCulloch 1992, Variance Components, chapter 3 (variance of a mean).

    Example:
        >>> from supreme.experiment.variance import decompose
        >>> data = pd.DataFrame({"training_seed": [1, 1, 2, 2], "unlearning_seed": [11, 12, 21, 22]})
        >>> variances_of_mean(decompose(data.assign(mia=[1.0, 3.0, 6.0, 8.0]), "mia"))
        SeedVariances(training=11.5, unlearning=2.0, evaluation=0.0)
    """
    targets = max([1, *(term.levels for term in decomposition.terms if term.name == "target")])
    found = dict.fromkeys(SeedVariances._fields, 0.0)
    for term in decomposition.terms:
        parts = term.name.split(" x ")
        kind = _kind(parts)
        if kind is None or (math.isnan(term.variance) and kind != "training"):
            continue
        if math.isnan(term.variance):
            raise DataError(f"Expected a known variance of training seeds, got none ({term.note}); run more of them.")
        found[kind] += term.variance / (targets if "target" in parts[:-1] else 1)
    return SeedVariances(**found)


def seed_costs(data: pd.DataFrame, evaluation_s: float = 0.0) -> SeedCosts:
    """Costs of seeds, from the measured times of the runs of one dataset, model and scenario.

    M_o and M_r have the same recipe, so a training seed costs what M_r takes. An unlearning seed costs, for every
    target, the mean time of M_r and of every method. The time of an evaluation is not in the records; where the store
    is at hand, :func:`stage_costs` knows it.

    Args:
        data: one row per run, with ``time_s``.
        evaluation_s: seconds that the evaluation of one run takes.

    Raises:
        DataError: if there is no time of a Retrain run.

    Example:
        >>> data = pd.DataFrame({"target": ["3", "3", "8", "8"], "method": ["Retrain", "SSD"] * 2, "variant": ""})
        >>> seed_costs(data.assign(time_s=[60.0, 2.0, 64.0, 2.0]), evaluation_s=0.5)
        SeedCosts(training=62.0, unlearning=128.0, evaluation=2.0)
    """
    require(data, ["target", "time_s", *ENTRY])
    known = data[data["time_s"].notna()]
    times = known.groupby([known["target"], entry_labels(known)])["time_s"].mean()
    retrain = known.loc[known["method"] == "Retrain", "time_s"]
    if retrain.empty:
        raise DataError("Expected the time of a Retrain run to plan seeds by, got none; run Retrain in the plan.")
    evaluations = len(data.assign(_entry=entry_labels(data))[["target", "_entry"]].drop_duplicates())
    return SeedCosts(float(retrain.mean()), float(times.sum()), evaluation_s * evaluations)


def stage_costs(stages: pd.DataFrame) -> SeedCosts:
    """Costs of seeds, from the measured seconds of all stages of the runs of one dataset, model and scenario.

    A training seed costs M_o, its outputs and the importances of D; an unlearning seed M_r, its outputs, and every
    method on every target. What runs share counts once. An evaluation seed costs what a further one takes, which
    computes nothing but the metrics that draw, and what the first one takes beyond that counts with the unlearning
    seed; where no further one was run, it is taken to cost as much as the first, which is too much.

    A kind of stage costs its mean time, times the largest number of such stages that a seed has, so that failed runs
    do not make seeds cheap.

    Args:
        stages: one row per run and stage: ``kind`` ("train", "importances", "original_outputs", "retrain",
            "retrained_outputs", "unlearn", "evaluate", "evaluate_again"), ``entry`` (the method where each has a stage
            of its own, else ""), ``key``, ``seconds`` (NaN where they are not known), and the seeds.

    Raises:
        DataError: if no time of M_o, of M_r or of an evaluation is known.

    Example:
        >>> rows = [("train", "", "a", 60.0), ("retrain", "", "b", 50.0), ("unlearn", "SSD", "c", 2.0)]
        >>> rows += [("evaluate", "SSD", "d", 3.0), ("evaluate", "Retrain", "e", 1.0)]
        >>> stages = pd.DataFrame(rows, columns=["kind", "entry", "key", "seconds"])
        >>> stage_costs(stages.assign(training_seed=1, unlearning_seed=1, evaluation_seed=1))
        SeedCosts(training=60.0, unlearning=52.0, evaluation=4.0)
    """
    require(stages, ["kind", "entry", "key", "seconds", *SEEDS])
    missing = [kind for kind in NEEDED if not stages.loc[stages["kind"] == kind, "seconds"].notna().any()]
    if missing:
        raise DataError(f"Expected the seconds of a stage '{missing[0]}' to plan seeds by, got none; use seed_costs.")
    first, again = _seconds(stages, (FIRST,), 3), _seconds(stages, (AGAIN,), 3)
    evaluation = again if (stages["kind"] == AGAIN).any() else first
    training, unlearning = _seconds(stages, OF_TRAINING, 1), _seconds(stages, OF_UNLEARNING, 2)
    return SeedCosts(training, unlearning + max(first - evaluation, 0.0), evaluation)


def _seconds(stages: pd.DataFrame, kinds: tuple[str, ...], depth: int) -> float:
    """Seconds that some kinds of stages take under one seed; ``depth`` 1 means a training seed, 2 an unlearning one."""
    total = 0.0
    for _, part in stages[stages["kind"].isin(kinds)].groupby(["kind", "entry"]):
        mean = part.drop_duplicates("key")["seconds"].mean()
        most = part.groupby(list(SEEDS[:depth]))["key"].nunique().max()
        total += 0.0 if math.isnan(mean) else float(mean * most)
    return total


def half_width(
    variances: SeedVariances,
    training: int,
    unlearning: int = 1,
    evaluation: int = 1,
    *,
    level: float = 0.95,
    quantile: Quantile = "t",
) -> float:
    """Half-width of the interval of the mean over I x J x K seeds, ``q sqrt(V_t / I + V_u / (I J) + V_e / (I J K))``.

    ``q`` is the quantile of Student's t with I - 1 degrees of freedom, because the interval is taken over the I
    independent means of training seeds, or the normal quantile.

    Args:
        variances: of one seed of each kind.
        training: I.
        unlearning: J.
        evaluation: K.
        level: level of the interval.
        quantile: "t", or "normal" as an approximation for variances that are known well.

    Returns:
        The half-width, NaN for a single training seed with "t".

    Reference:
        Searle, Casella, McCulloch 1992, chapter 3; Cochran 1977, Sampling Techniques, chapter 10.

    Example:
        >>> round(half_width(SeedVariances(1.0, 2.0), 5, 2), 3)
        1.756
        >>> half_width(SeedVariances(1.0), 1)
        nan
    """
    if quantile not in ("t", "normal"):
        raise ConfigError(f"Expected 't' or 'normal' as quantile, got '{quantile}'.")
    if training < 2 and quantile == "t":
        return math.nan
    inside = variances.unlearning + variances.evaluation / evaluation
    df = training - 1 if quantile == "t" else math.inf
    return t_quantile(level, df) * math.sqrt((variances.training + inside / unlearning) / training)


def plan_seeds(
    variances: SeedVariances,
    costs: SeedCosts,
    wanted: float,
    *,
    level: float = 0.95,
    quantile: Quantile = "t",
    most: tuple[int, int, int] = (MOST_TRAINING, MOST, MOST),
) -> SeedPlan:
    """The cheapest (I, J, K) whose interval of the mean is as narrow as wanted.

    The cost is ``I (c_t + J (c_u + K c_e))``. For every I and J the least K follows from the formula of
    :func:`half_width`; all I that can still be cheaper are tried, so that the result is the optimum in whole numbers.
    (Without whole numbers the classical answer is ``J = sqrt(V_u c_t / (V_t c_u))`` for K = 1 and c_e = 0.)

    Args:
        variances: of one seed of each kind; for the comparison of two methods those of their difference.
        costs: of one seed of each kind.
        wanted: half-width that is wanted.
        level: level of the interval.
        quantile: "t", or "normal" as an approximation for variances that are known well.
        most: largest I, J and K.

    Raises:
        ConfigError: if a variance or cost is negative or not finite, nothing is wanted, or ``most`` seeds do not
            suffice.

    Reference:
        Cochran 1977, Sampling Techniques, chapter 10 (optimum of sampling in stages).

    Example:
        >>> plan = plan_seeds(SeedVariances(1.0, 4.0), SeedCosts(100.0, 10.0, 1.0), wanted=1.0)
        >>> plan.training, plan.unlearning, plan.evaluation, plan.cost_s
        (9, 6, 1, 1494.0)
    """
    numbers = (*variances, *costs)
    if not all(math.isfinite(one) and one >= 0 for one in numbers) or not (math.isfinite(wanted) and wanted > 0):
        raise ConfigError(
            f"Expected variances and costs that are not negative and a half-width above 0, got {variances}, {costs} "
            f"and {wanted}."
        )
    best: _Choice | None = None
    for training in range(1 if quantile == "normal" else 2, most[0] + 1):
        if best is not None and training * sum(costs) > best[0]:
            break
        unit = half_width(SeedVariances(1.0), training, level=level, quantile=quantile)
        found = _cheapest(training, variances, costs, (wanted / unit) ** 2 * (1 + 1e-12), most)
        best = min((one for one in (best, found) if one is not None), default=None)
    if best is None:
        raise ConfigError(
            f"Expected a half-width that {most[0]} x {most[1]} x {most[2]} seeds can reach, got {wanted}; ask for more."
        )
    cost, runs, i, j, k = best
    width = half_width(variances, i, j, k, level=level, quantile=quantile)
    return SeedPlan(i, j, k, width, cost, runs, i - 1 if quantile == "t" else math.inf, level)


def _cheapest(
    training: int, variances: SeedVariances, costs: SeedCosts, spread: float, most: tuple[int, int, int]
) -> _Choice | None:
    """The cheapest J and K for I training seeds whose means may have a variance of ``spread``, the fewest runs first.

    The least K for a J has ``V_e / K <= (spread - V_t) J - V_u``.
    """
    j = np.arange(1.0, most[1] + 1)
    room = (spread - variances.training) * j - variances.unlearning
    possible = room > 0 if variances.evaluation else room >= 0
    j, room = j[possible], room[possible]
    k = np.maximum(np.ceil(variances.evaluation / room), 1.0) if variances.evaluation else np.ones(len(j))
    j, k = j[k <= most[2]], k[k <= most[2]]
    if not len(j):
        return None
    price, runs = training * (costs.training + j * (costs.unlearning + k * costs.evaluation)), training * j * k
    place = int(np.lexsort((runs, price))[0])
    return float(price[place]), int(runs[place]), training, int(j[place]), int(k[place])


def _kind(parts: list[str]) -> str | None:
    """Which seed a term is counted with, None for what no seed changes."""
    sources = [one for part in parts for one in part.split("+")]
    if parts == [RESIDUAL]:
        return "evaluation"
    for kind in SeedVariances._fields:
        if kind in parts[-1].split("+"):
            return "unlearning" if "draw" in parts[:-1] and kind == "training" else kind
    return "unlearning" if "draw" in sources else None
