"""Plots from what the models said about every sample: losses, entropies, confusion, membership."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from supreme.experiment.run_columns import seed_columns
from supreme.report.figure import ABOVE, BELOW, COLOURS, LINE, TEXT, WIDTH, Plot, drawn, plain_ticks, style
from supreme.report.labels import clean, method_label, method_order, natural
from supreme.report.outputs import Array, Outputs, read_outputs, roc
from supreme.report.table import Table, runs_of

BINS = 30
MOST_CLASSES = 25
SETS = {"forget": COLOURS[1], "retain": COLOURS[0], "test": COLOURS[2]}
RATES = np.logspace(-3, 0, 61)
Models: TypeAlias = "dict[tuple[str, str], list[Outputs]]"


def sample_plots(table: Table, data: pd.DataFrame, records: Sequence[Mapping[str, Any]], root: Path) -> list[Plot]:
    """Plots of a table from the stored outputs of its runs; none where no outputs were kept.

    Histograms and confusion are of one target and seed, the first that the original and the retrained model have; the
    loss-threshold attack's curves are means over all.

    Args:
        table: the result table.
        data: the frame that it was made of.
        records: the records in the order of the rows of ``data``.
        root: the output folder of the plan.
    """
    runs = runs_of(table, data)
    runs = runs[(runs["status"] == "done") & ~runs["superseded"].astype(bool)]
    shown = _first(runs)
    if shown is None:
        return []
    chosen = runs[(runs[["target", *seed_columns(runs)]] == list(shown)).all(axis=1)]
    one = _read(chosen, records, root)
    with style():
        found: list[Plot | None] = []
        if one:
            where = f"Target {clean(shown[0], 40)}, seed {shown[1]}."
            found += [_histograms(one, "loss", lambda outputs: outputs.loss, where)]
            found += [_histograms(one, "entropy", lambda outputs: outputs.entropy, where), _confusion(one, where)]
        found.append(_attack(_read(runs, records, root)))
    return [plot for plot in found if plot is not None]


def _first(runs: pd.DataFrame) -> tuple[Any, ...] | None:
    """Target and seeds of the first cell that M_o and M_r both have, else of any."""
    cells: dict[tuple[Any, ...], set[str]] = {}
    for *cell, method in runs[["target", *seed_columns(runs), "method"]].itertuples(index=False, name=None):
        cells.setdefault(tuple(cell), set()).add(method)
    order = sorted(cells, key=lambda cell: (-len(cells[cell] & {"Original", "Retrain"}), natural(cell[0]), cell[1:]))
    return order[0] if order else None


def _read(runs: pd.DataFrame, records: Sequence[Mapping[str, Any]], root: Path) -> Models:
    """Outputs by method and variant, in the order of the tables."""
    found: Models = {}
    for place, method, variant in zip(runs.index, runs["method"], runs["variant"], strict=True):
        outputs = read_outputs(root, records[int(place)])
        if outputs is not None:
            found.setdefault((str(method), str(variant)), []).append(outputs)
    return dict(sorted(found.items(), key=lambda item: method_order(*item[0])))


def _histograms(models: Models, name: str, values: Callable[[Outputs], Array], where: str) -> Plot:
    """Densities of a value per sample, a panel per model and a line per set."""
    every = np.concatenate([values(outputs[0]) for outputs in models.values()])
    floor = 1e-4
    edges = np.logspace(np.log10(floor), np.log10(max(float(every.max()), 10 * floor) * 1.05), BINS + 1)
    columns, lines = 2, -(-len(models) // 2)
    figure = Figure(figsize=(WIDTH, 0.8 + 1.05 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    data: list[tuple[Any, ...]] = []
    for axis, ((method, variant), outputs) in zip(axes, models.items(), strict=False):
        for part, rows in outputs[0].sets.items():
            if rows.any():
                counts = np.histogram(np.clip(values(outputs[0])[rows], floor, None), edges)[0]
                shares = counts / rows.sum()
                axis.stairs(100 * shares, edges, color=SETS[part], lw=1.2, fill=False)
                data += [
                    (method, variant, part, low, high, int(count), share)
                    for low, high, count, share in zip(edges, edges[1:], counts, shares, strict=False)
                ]
        axis.set_xscale("log")
        plain_ticks(axis.xaxis, 3)
        axis.set_title(clean(_symbol(method, variant), 24), loc="left")
        axis.grid(axis="x")
    for axis in axes[len(models) :]:
        axis.set_axis_off()
    figure.supxlabel(f"{name} (nats)", fontsize=9)
    figure.supylabel("share of the set (%)", fontsize=9)
    handles = [axes[0].plot([], [], color=colour)[0] for colour in SETS.values()]
    figure.legend(handles, list(SETS), loc="outside upper right", ncols=3)
    header = ("method", "variant", "set", "low", "high", "count", "share")
    title = f"{name.capitalize()} of forget, retain and test samples"
    about = f"{where} Where forgetting worked, the forget set lies as for M_r. Values below {floor:g} count there."
    return drawn(name, title, about, header, data, figure)


def _symbol(method: str, variant: str) -> str:
    return {"Original": "Original (M_o)"}.get(method) or method_label(method, variant)


def _confusion(models: Models, where: str) -> Plot | None:
    """What forget samples are taken for: their share per predicted class, a row per model."""
    classes = next(iter(models.values()))[0].log_p.shape[1]
    shares = {}
    for name, outputs in models.items():
        rows = outputs[0].sets["forget"]
        if rows.any():
            shares[name] = np.bincount(outputs[0].predicted[rows], minlength=classes) / rows.sum()
    if not shares:
        return None
    table = np.stack(list(shares.values()))
    shown = np.sort(np.argsort(-table.max(axis=0), kind="stable")[:MOST_CLASSES])
    figure = Figure(figsize=(WIDTH, 0.9 + 0.26 * len(shares)), layout="constrained")
    axis = figure.subplots()
    gold = shares.get(("Retrain", ""))
    for y, row in enumerate(table):
        for x, column in enumerate(shown):
            _tile(axis, x, y, row[column], None if gold is None else row[column] - gold[column])
    axis.set_xticks(range(len(shown)), [str(column) for column in shown])
    axis.set_yticks(range(len(shares)), [clean(_symbol(*name), 28) for name in shares])
    axis.set(xlim=(-0.5, len(shown) - 0.5), ylim=(len(shares) - 0.5, -0.5))
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.set_title("predicted class", fontweight="normal")
    data = [(*name, column, row[column]) for name, row in shares.items() for column in range(classes)]
    about = f"{where} Share (%) of the forget set per predicted class; red: more often than by M_r, blue: less often."
    header = ("method", "variant", "predicted", "share")
    return drawn("confusion", "What forget samples are taken for", about, header, data, figure)


def _tile(axis: Axes, x: int, y: int, share: float, change: float | None) -> None:
    colour, strength = (TEXT, 0.3 * share) if change is None else (ABOVE if change > 0 else BELOW, 0.7 * abs(change))
    axis.fill_between([x - 0.48, x + 0.48], y - 0.46, y + 0.46, color=colour, alpha=float(strength), linewidth=0)
    if share >= 0.005:
        axis.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=8)


def _attack(models: Models) -> Plot | None:
    """Mean curve of the loss-threshold attack on every method, on logarithmic axes."""
    curves = {name: found for name, outputs in models.items() if len(found := _curves(outputs))}
    if not curves:
        return None
    figure = Figure(figsize=(WIDTH, 3.6 + 0.2 * -(-len(curves) // 3)), layout="constrained")
    axis = figure.subplots()
    data: list[tuple[Any, ...]] = []
    axis.plot([RATES[0], 1], [RATES[0], 1], color=LINE, lw=0.8)
    dashes = ("-", (0, (5, 2)), (0, (1, 1.2)))
    others = 0
    for (method, variant), found in curves.items():
        mean, std = found.mean(axis=0), found.std(axis=0, ddof=1) if len(found) > 1 else np.full(len(RATES), np.nan)
        look: dict[str, Any] = {"color": TEXT, "lw": 1.6, "ls": "-" if method == "Retrain" else "--"}
        if method not in ("Original", "Retrain"):
            look = {"color": COLOURS[others % len(COLOURS)], "lw": 1.1, "ls": dashes[others // len(COLOURS) % 3]}
            others += 1
        axis.plot(RATES, np.maximum(mean, RATES[0]), label=clean(_symbol(method, variant), 28), **look)
        data += [(method, variant, *point, len(found)) for point in zip(RATES, mean, std, strict=True)]
    axis.set(xscale="log", yscale="log", xlim=(RATES[0], 1), ylim=(RATES[0], 1.05))
    plain_ticks(axis.xaxis, 6)
    plain_ticks(axis.yaxis, 6)
    axis.set_xlabel("false positive rate (test samples)")
    axis.set_ylabel("true positive rate (forget samples)")
    axis.grid()
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
    runs = max(map(len, curves.values()))
    seeds = "a single run" if runs == 1 else f"mean over {runs} targets and seeds"
    about = (
        "A loss-threshold attack, not the trained attack behind the MIA columns: samples whose loss is below a "
        "threshold are called members; every threshold gives a point, forget against test samples, on logarithmic "
        f"axes. Grey: guessing; {seeds}. For a forgotten class the test samples are those of that class."
    )
    header = ("method", "variant", "false_positive_rate", "true_positive_rate_mean", "true_positive_rate_std", "n")
    return drawn("roc", "Loss-threshold membership attack", about, header, data, figure)


def _curves(outputs: Sequence[Outputs]) -> Array:
    """True positive rates at fixed false ones, a row per run; targeted requests compare with their own class."""
    rows: list[NDArray[np.float64]] = []
    for one in outputs:
        members, others = one.part == 3, one.part == (1 if (one.part == 1).any() else 0)
        if members.any() and others.any():
            false, true = roc(-one.loss[members], -one.loss[others])
            rows.append(true[np.searchsorted(false, RATES, side="right") - 1])
    return np.array(rows)
