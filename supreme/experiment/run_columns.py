"""The columns of a frame of runs that the statistics know by name."""

from collections.abc import Iterable, Sequence

import pandas as pd

from supreme.errors import DataError

PLACE = ("dataset", "model", "scenario")
ENTRY = ("method", "variant")
SEEDS = ("training_seed", "unlearning_seed", "evaluation_seed")
DRAW = "draw_seed"


def seed_columns(data: pd.DataFrame) -> tuple[str, ...]:
    """The columns that tell the seeds of runs apart: ``SEEDS``, and ``DRAW`` where a draw has a seed of its own.

    A scenario that draws its samples to forget does so with the unlearning seed unless it is told otherwise.

    Args:
        data: one row per run.

    Example:
        >>> seed_columns(pd.DataFrame({"unlearning_seed": [1, 1], "draw_seed": [7, None]}))[-1]
        'draw_seed'
        >>> seed_columns(pd.DataFrame({"unlearning_seed": [1, 2], "draw_seed": [1, 2]})) == SEEDS
        True
    """
    drawn = data[data[DRAW].notna()] if DRAW in data else data.iloc[:0]
    return (*SEEDS, DRAW) if len(drawn) and (drawn[DRAW] != drawn["unlearning_seed"]).any() else SEEDS


def require(data: pd.DataFrame, columns: Iterable[str]) -> None:
    """Check that a frame has columns.

    Args:
        data: any frame.
        columns: names that it has to have.

    Raises:
        DataError: if one is missing; the text names it.

    Example:
        >>> require(pd.DataFrame({"a": [1]}), ["a"])
    """
    missing = [name for name in columns if name not in data.columns]
    if missing:
        known = ", ".join(f"'{name}'" for name in data.columns[:12]) + (", ..." if len(data.columns) > 12 else "")
        raise DataError(f"Expected a column '{missing[0]}', got {known or 'none'}; add it or name another.")


def entry_labels(data: pd.DataFrame, columns: Sequence[str] = ENTRY) -> "pd.Series[str]":
    """One name per row for a method and its variant.

    Args:
        data: one row per run.
        columns: the column of the name, then those that tell apart what has the same name.

    Example:
        >>> entry_labels(pd.DataFrame({"method": ["SSD", "SSD"], "variant": ["", "alpha 5"]})).tolist()
        ['SSD', 'SSD (alpha 5)']
    """
    require(data, columns)
    parts = zip(*(data[name].astype(str) for name in columns), strict=True)
    names = [first + "".join(f" ({text})" for text in rest if text) for first, *rest in parts]
    return pd.Series(names, index=data.index, dtype=object)
