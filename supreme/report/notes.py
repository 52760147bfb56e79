"""Words under a table: what the numbers are, which runs are missing and why, and what else to know."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from supreme.experiment.run_columns import DRAW, seed_columns
from supreme.report.labels import clean, listing, method_label, method_order, natural
from supreme.report.records import NOT_APPLICABLE, SEEDS

CLASS_ONLY = ("UNSIR",)
LEGEND = (
    "Bold (or *): best method after rounding, ties included: gaps nearest to 0, distances, time and memory smallest, "
    "completeness and speed-up largest, MIA and ZRF nearest to the retrained model M_r."
)


def caption(runs: pd.DataFrame, *, target_named: bool = False) -> str:
    """What the cells of a table hold: mean and spread over which seeds and targets.

    Args:
        runs: the runs of the table, without those that are not applicable.
        target_named: whether the table's title names the forget target already.
    """
    columns = list(seed_columns(runs))
    seeds = list(runs[columns].drop_duplicates().sort_values(columns).itertuples(index=False, name=None))
    targets = sorted(set(runs["target"]), key=natural)
    names = listing(map(_seed, seeds), 10)
    if not seeds:
        return "No run of this table is applicable."
    over = "" if target_named else f", forget target {clean(targets[0], 60)}"
    if len(targets) > 1:
        over = f", each seed's value being the mean over {len(targets)} forget targets ({listing(targets)})"
    if len(seeds) == 1:
        return f"Values of a single seed ({names}), hence without a spread{over}."
    training, inner = len({seed[0] for seed in seeds}), _inner(seeds)
    if training == 1:
        return f"Mean over {len(seeds)} {inner} ({names}) of a single training seed, hence without a spread{over}."
    if training < len(seeds):
        within = inner.replace("seeds", "unlearning and evaluation seeds")
        nested = f"{training} training seeds, each one's value being the mean over its {within}"
        return f"Mean ± sample standard deviation over {nested} ({len(seeds)} in all: {names}){over}."
    return f"Mean ± sample standard deviation over {training} seeds ({names}){over}."


def row_note(label: str, runs: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Why a method has fewer results than the table has targets and seeds; "" when it has all.

    Args:
        label: name of the method as printed.
        runs: its runs.
        expected: every target and seeds (and draw) of the table, one per row.
    """
    done = runs[runs["status"] == "done"]
    if len(done) == len(expected):
        return ""
    columns = list(expected.columns)
    places: dict[str, list[str]] = {}
    for run in runs[runs["status"] != "done"].to_dict("records"):
        places.setdefault(_reason(run), []).append(_place(run, columns))
    known = set(runs[columns].itertuples(index=False, name=None))
    for run in expected.to_dict("records"):
        if tuple(run[name] for name in columns) not in known:
            places.setdefault("no record", []).append(_place(run, columns))
    reasons = "; ".join(f"{reason} ({listing(where, 4)})" for reason, where in places.items())
    counts = [(len(done[list(SEEDS)].drop_duplicates()), "seed")]
    counts += [(done[DRAW].nunique(), "draw")] if DRAW in columns else []
    made = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
    basis = f" Its values are means over those {len(done)} ({made})." if len(done) else ""
    return f"{label}: {len(done)} of {len(expected)} runs succeeded; the others: {reasons}.{basis}"


def table_notes(runs: pd.DataFrame, everything: pd.DataFrame) -> tuple[str, ...]:
    """Remarks on a whole table: its images, methods that do not apply, what a mean mixes, what times depend on.

    Args:
        runs: the runs of the table.
        everything: the runs of all tables and the superseded ones.
    """
    skipped = _not_applicable(runs, everything)
    said = sorted({(run["dataset"], note) for run in runs.to_dict("records") for note in run["notes"].splitlines()})
    notes = [f"{clean(dataset)}: {clean(note, 400)}" for dataset, note in said]
    notes += [f"Not applicable: {method} ({reason})." for method, reason in skipped.items()]
    done = runs[runs["status"] == "done"]
    notes += _mixed(done)
    contended = int(done["contended"].sum())
    if contended:
        notes.append(f"Contended: {contended} of {len(done)} runs were timed while several runs shared the device.")
    hardware = sorted(set(done["hardware"]))
    if len(hardware) > 1:
        notes.append(f"Times and memory come from different hardware: {listing(hardware, 4)}.")
    return (*notes, *_replaced(runs, everything))


def _mixed(done: pd.DataFrame) -> list[str]:
    """Methods one of whose means is over runs that differ in more than the seeds."""
    found: dict[str, list[str]] = {"config_hash": [], "versions": []}
    for (method, variant, target), runs in done.groupby(["method", "variant", "target"], sort=False):
        for column, items in found.items():
            counts = runs[column].value_counts(sort=False)
            if len(counts) > 1:
                kinds = _differing([str(name) for name in counts.index])
                each = [f"{kind} in {count}" for kind, count in zip(kinds, counts, strict=True)]
                where = f"{method_label(str(method), str(variant))} on target {clean(target, 60)}"
                items.append(f"{where} ({listing(each, 4)})")
    words = {"config_hash": "configurations", "versions": "versions of the software"}
    return [f"Mixed {words[name]} in one mean: {_first(items)}." for name, items in found.items() if items]


def _differing(texts: Sequence[str]) -> list[str]:
    """What is not the same in texts of parts with commas between them."""
    parts = [text.split(", ") for text in texts]
    shared = set(parts[0]).intersection(*parts[1:])
    return [" ".join(part for part in own if part not in shared) or "unknown" for own in parts]


def _first(items: Sequence[str]) -> str:
    """The first items, and how many more there are."""
    return "; ".join(items[:4]) + (f"; and {len(items) - 4} more" if len(items) > 4 else "")


def _replaced(runs: pd.DataFrame, everything: pd.DataFrame) -> tuple[str, ...]:
    old = everything[everything["superseded"].astype(bool)]
    for name in ("dataset", "model", "scenario", "target"):
        old = old[old[name].isin(set(runs[name]))]
    if old.empty:
        return ()
    return (f"Left out: {len(old)} older record(s) of runs that were recorded again ({listing(old['key'], 4)}).",)


def _not_applicable(runs: pd.DataFrame, everything: pd.DataFrame) -> Mapping[str, str]:
    """Methods that a plan left out here, with the reason."""
    skipped = runs[runs["status"] == NOT_APPLICABLE].sort_values("method", key=lambda names: names.map(method_order))
    reasons = {
        method_label(run["method"], run["variant"]): clean(run["error_message"]) or "the scenario lacks what it needs"
        for run in skipped.to_dict("records")
    }
    if set(runs["scenario"]) == {"RandomSample"}:
        absent = [name for name in CLASS_ONLY if name in set(everything["method"]) - set(runs["method"])]
        reasons |= {method_label(name): "it needs a class to forget" for name in absent}
    return reasons


def _reason(run: Mapping[Any, Any]) -> str:
    if not run["error_type"]:
        return clean(run["status"], 40)
    return clean(f"{run['error_type']}: {run['error_message']}", 160).rstrip(".")


def _place(run: Mapping[Any, Any], columns: Sequence[str]) -> str:
    return f"target {run['target']} seed {_seed(tuple(run[name] for name in columns if name != 'target'))}"


def _seed(seeds: tuple[int, ...]) -> str:
    """One number where the seeds are matched, else s_t/s_u/s_e; and the draw where it has a seed of its own."""
    stages, draw = seeds[: len(SEEDS)], seeds[len(SEEDS) :]
    text = str(stages[0]) if len(set(stages)) == 1 else "/".join(map(str, stages))
    return f"{text} draw {draw[0]}" if draw and pd.notna(draw[0]) else text


def _inner(seeds: Sequence[tuple[int, ...]]) -> str:
    """What differs between runs of one training seed."""
    stages = len({seed[: len(SEEDS)] for seed in seeds}) > len({seed[0] for seed in seeds})
    draws = len({seed[len(SEEDS) :] for seed in seeds}) > 1
    return " and ".join(["seeds"] * stages + ["draws of the samples to forget"] * draws)
