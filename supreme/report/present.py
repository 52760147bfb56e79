"""Which records are of runs that the plans beside them ask for, as those plans are now."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supreme.errors import DataError, SupremeError
from supreme.experiment.plan import load_plan
from supreme.experiment.plan_file import plan_hash, read_plan_file
from supreme.report.labels import listing


def hashes(root: Path) -> dict[str, Path]:
    """Hash of every plan that was run in a folder, as it is now, and the plan's file.

    Args:
        root: the output folder of plans.

    Raises:
        ConfigError: if one of them cannot be read.
    """
    found = {file: read_plan_file(file) for file in sorted((root / "plans").glob("*.yaml"))}
    return {plan_hash(content, str(content.get("name", file.stem))): file for file, content in found.items()}


def present(records: Sequence[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """The records of runs that a plan of the folder asks for now, in the settings that it has now.

    Who takes a method or a target out of a plan, or changes settings and runs a part of it (``--only``), has records of
    the plan as it was beside those of the plan as it is. They stay in the folder and are left out here; the ``notes``
    of the others say so, and tables print those. A record of other code, or of another version of the plan, stays in
    where its run is the same in the plan as it is. So does everything where the plans were not kept or cannot be read
    here, for example because they name classes of a package that is not installed.

    Args:
        records: all records of the folder.
        root: the output folder of plans.

    Raises:
        DataError: if not one is left.
    """
    try:
        plans = hashes(root)
        if not plans or all(record.get("plan_hash") in plans for record in records):
            return list(records)
        asked = {(run.key, run.config_hash) for file in plans.values() for run in load_plan(file).runs()}
    except SupremeError:
        return list(records)
    kept = [one for one in records if one.get("plan_hash") in plans or _name(one) in asked]
    places = sorted({_place(one) for one in records if one.get("plan_hash") not in plans and _name(one) not in asked})
    if not kept:
        raise DataError(
            f"Expected records of a plan in '{root / 'plans'}', got {len(records)} of runs that none of them asks for "
            f"now ({listing(places, 4)}); start 'supreme run' with that plan again."
        )
    count = len(records) - len(kept)
    note = f"left out are {count} record(s) of runs that no plan of the folder asks for now ({listing(places, 4)})"
    return kept if not count else [{**one, "notes": [*(one.get("notes") or ()), note]} for one in kept]


def _name(record: Mapping[str, Any]) -> tuple[str, str]:
    return str(record.get("key")), str(record.get("config_hash"))


def _place(record: Mapping[str, Any]) -> str:
    run = record["run"]
    words = [str(run[name]) for name in ("method", "variant", "scenario", "target") if run[name]]
    return " ".join([*words, f"seed {run['training_seed']}"])
