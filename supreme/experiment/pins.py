"""Pins: what the images of a plan are now, so that results of other images are never taken for theirs."""

from supreme.components import describe, load
from supreme.experiment.plan import Plan
from supreme.experiment.plan_file import mapping, read_plan_file
from supreme.experiment.stage import Choice
from supreme.experiment.store import Store


def pin(plan: Plan) -> Plan:
    """The plan with the content of every dataset that may change under its name: folders of images, and own classes.

    Embedded and downloaded datasets never change: their archives are checked. A second call does nothing.

    Args:
        plan: the plan.

    Returns:
        The plan with a fingerprint for each of those datasets; images that are new to this machine are read for it.

    Raises:
        DataError: if images are missing or cannot be read.
    """
    found = {
        dataset.label: str(load(dataset.class_path)(**dataset.init_args).fingerprint)
        for dataset in plan.datasets
        if dataset.label not in plan.fingerprints and _may_change(dataset)
    }
    return plan.with_fingerprints(found) if found else plan


def recall(plan: Plan, store: Store) -> Plan:
    """The plan with the fingerprints of its last start, for those who look at results and read no images.

    Args:
        plan: the plan.
        store: where its results are.
    """
    file = store.root / "plans" / f"{plan.name}.yaml"
    if not file.is_file():
        return plan
    before = mapping(read_plan_file(file), str(file))
    same = before.get("datasets") == plan.content["datasets"]
    known = mapping(before.get("fingerprints"), "fingerprints") if same else {}
    return plan.with_fingerprints({**known, **plan.fingerprints}) if known else plan


def _may_change(dataset: Choice) -> bool:
    ours = dataset.class_path.startswith("supreme.datasets.")
    return not ours or "folder" in describe("datasets", dataset.class_path).needs
