"""Words under a table: what the numbers are, which runs are missing and why, and what else to know."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

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
    seeds = sorted(set(runs[list(SEEDS)].itertuples(index=False, name=None)))
    targets = sorted(set(runs["target"]), key=natural)
    names = listing(map(_seed, seeds), 10)
    if not seeds:
        return "No run of this table is applicable."
    over = "" if target_named else f", forget target {clean(targets[0], 60)}"
    if len(targets) > 1:
        over = f", each seed's value being the mean over {len(targets)} forget targets ({listing(targets)})"
    if len(seeds) == 1:
        return f"Values of a single seed ({names}), hence without a spread{over}."
    training = len({seed[0] for seed in seeds})
    if training == 1:
        return f"Mean over {len(seeds)} seeds ({names}) of a single training seed, hence without a spread{over}."
    if training < len(seeds):
        nested = f"{training} training seeds, each one's value being the mean over its unlearning and evaluation seeds"
        return f"Mean ± sample standard deviation over {nested} ({len(seeds)} in all: {names}){over}."
    return f"Mean ± sample standard deviation over {training} seeds ({names}){over}."


def row_note(label: str, runs: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Why a method has fewer results than the table has targets and seeds; "" when it has all.

    Args:
        label: name of the method as printed.
        runs: its runs.
        expected: every target and seeds of the table, one per row.
    """
    done = runs[runs["status"] == "done"]
    if len(done) == len(expected):
        return ""
    places: dict[str, list[str]] = {}
    for run in runs[runs["status"] != "done"].to_dict("records"):
        places.setdefault(_reason(run), []).append(_place(run))
    known = set(runs[["target", *SEEDS]].itertuples(index=False, name=None))
    for run in expected.to_dict("records"):
        if (run["target"], *(run[name] for name in SEEDS)) not in known:
            places.setdefault("no record", []).append(_place(run))
    reasons = "; ".join(f"{reason} ({listing(where, 4)})" for reason, where in places.items())
    seeds = len(done[list(SEEDS)].drop_duplicates())
    basis = f" Its values are means over those {len(done)} ({seeds} seed{'s' * (seeds != 1)})." if seeds else ""
    return f"{label}: {len(done)} of {len(expected)} runs succeeded; the others: {reasons}.{basis}"


def table_notes(runs: pd.DataFrame, everything: pd.DataFrame) -> tuple[str, ...]:
    """Remarks on a whole table: what to know of its images, which methods do not apply, what the times depend on.

    Args:
        runs: the runs of the table.
        everything: the runs of all tables and the superseded ones.
    """
    skipped = _not_applicable(runs, everything)
    said = sorted({(run["dataset"], note) for run in runs.to_dict("records") for note in run["notes"].splitlines()})
    notes = [f"{clean(dataset)}: {clean(note, 400)}" for dataset, note in said]
    notes += [f"Not applicable: {method} ({reason})." for method, reason in skipped.items()]
    done = runs[runs["status"] == "done"]
    contended = int(done["contended"].sum())
    if contended:
        notes.append(f"Contended: {contended} of {len(done)} runs were timed while several runs shared the device.")
    hardware = sorted(set(done["hardware"]))
    if len(hardware) > 1:
        notes.append(f"Times and memory come from different hardware: {listing(hardware, 4)}.")
    return (*notes, *_replaced(runs, everything))


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


def _place(run: Mapping[Any, Any]) -> str:
    return f"target {run['target']} seed {_seed(tuple(run[name] for name in SEEDS))}"


def _seed(seeds: tuple[int, ...]) -> str:
    """One number where the seeds are matched, else s_t/s_u/s_e."""
    return str(seeds[0]) if len(set(seeds)) == 1 else "/".join(map(str, seeds))
