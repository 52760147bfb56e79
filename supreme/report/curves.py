"""How M_o and M_r were trained: the loss of every pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from supreme.report.figure import COLOURS, TEXT, WIDTH, Plot, drawn, style
from supreme.report.table import Table, runs_of

MODELS = {"original": ("M_o (Original)", TEXT, "--"), "retrained": ("M_r (Retrain)", COLOURS[0], "-")}


def curve_plot(table: Table, data: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Training loss against passes, mean and range over seeds and targets; None where no record tells.

    Args:
        table: the result table.
        data: the frame that it was made of.
        records: the records in the order of the rows of ``data``.
    """
    runs = runs_of(table, data)
    runs = runs[(runs["status"] == "done") & ~runs["superseded"].astype(bool)]
    found: dict[str, dict[str, list[float]]] = {name: {} for name in MODELS}
    for place in runs.index:
        stages, curves = records[place].get("stages") or {}, records[place].get("loss_curves") or {}
        for name, stage in (("original", "train"), ("retrained", "retrain")):
            if curves.get(name):
                found[name][stages.get(stage, "")] = curves[name]
    shown = {name: list(curves.values()) for name, curves in found.items() if curves}
    return _drawn(shown) if shown else None


def _drawn(shown: Mapping[str, Sequence[Sequence[float]]]) -> Plot:
    lines: list[tuple[Any, ...]] = []
    with style():
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axis = figure.subplots()
        for name, curves in shown.items():
            label, colour, dashes = MODELS[name]
            length = min(map(len, curves))
            values = np.array([curve[:length] for curve in curves])
            epochs, mean = np.arange(1, length + 1), values.mean(axis=0)
            low, high = values.min(axis=0), values.max(axis=0)
            axis.plot(epochs, mean, color=colour, lw=1.4, ls=dashes, label=label)
            axis.fill_between(epochs, low, high, color=colour, alpha=0.15, lw=0)
            points = zip(epochs.tolist(), mean.tolist(), low.tolist(), high.tolist(), strict=True)
            lines += [(name, *point, len(curves)) for point in points]
        axis.set(xlabel="pass over the data", ylabel="training loss (nats)", ylim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid()
        figure.legend(loc="outside upper right", ncols=2)
        about = (
            "Mean cross-entropy over the batches of each pass, augmented as trained; band: least to most over seeds."
        )
        header = ("model", "pass", "mean", "least", "most", "n")
        return drawn("training", "Training of M_o and M_r", about, header, lines, figure)
