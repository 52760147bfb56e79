"""Selections: parts of a plan in one line of text, such as ``method=SSD,seed=260``."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan import Run
from supreme.experiment.stage import KINDS, Stage

FIELDS: Mapping[str, Callable[[Run], str]] = {
    "dataset": lambda run: run.dataset,
    "model": lambda run: run.model,
    "scenario": lambda run: run.scenario,
    "target": lambda run: run.target,
    "method": lambda run: run.method,
    "variant": lambda run: run.variant,
    "seed": lambda run: str(run.training_seed),
    "training_seed": lambda run: str(run.training_seed),
    "unlearning_seed": lambda run: str(run.unlearning_seed),
    "evaluation_seed": lambda run: str(run.evaluation_seed),
    "draw_seed": lambda run: str(run.draw_seed),
    "key": lambda run: run.key,
}


def select(runs: Sequence[Run], text: str) -> list[Run]:
    """The runs that a selection names; all of them when it is empty.

    Args:
        runs: the runs of a plan.
        text: ``field=value`` pairs with commas between them; values of the same field are alternatives, also when
            they are written as ``seed=260|261``.

    Raises:
        UnknownNameError: if a field is unknown or no run has a value.
    """
    wanted = _parse(text, FIELDS)
    for field, values in wanted.items():
        known = list(dict.fromkeys(FIELDS[field](run) for run in runs))
        for value in values:
            if value not in known:
                raise UnknownNameError(f"{field} in the selection:", value, known)
    return [run for run in runs if all(FIELDS[field](run) in values for field, values in wanted.items())]


def select_stages(runs: Sequence[Run], text: str) -> set[Stage]:
    """The stages that a selection names, and every stage of the runs that reads their results.

    Args:
        runs: the runs of a plan.
        text: as for :func:`select`, and ``stage=train``, ``importances``, ``unlearn``, ``outputs`` or ``evaluate``;
            without a stage it means what belongs to a run alone, ``unlearn`` and ``evaluate``.

    Raises:
        UnknownNameError: if a field or stage is unknown or no run has a value.
    """
    wanted = _parse(text, (*FIELDS, "stage"))
    kinds = wanted.pop("stage", ["unlearn", "evaluate"])
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("stage in the selection:", kind, KINDS)
    rest = ",".join(f"{field}={'|'.join(values)}" for field, values in wanted.items())
    chosen = {stage for run in select(runs, rest) for stage in _own(run) if stage.kind in kinds}
    for run in runs:
        for stage in run.stages():
            if chosen.intersection(stage.inputs.values()):
                chosen.add(stage)
    return chosen


def _own(run: Run) -> Iterable[Stage]:
    """The stages of a run without the retrained model, which belongs to the run of Retrain."""
    inputs = run.stage.inputs
    outputs = inputs["original_outputs"], inputs["retrained_outputs"]
    shared = [source for role, source in inputs["unlearned"].inputs.items() if role == "importances"]
    return (outputs[0].inputs["model"], *shared, inputs["unlearned"], *outputs, run.stage)


def _parse(text: str, known: Iterable[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        field, equals, values = pair.partition("=")
        if not equals or not values:
            raise ConfigError(f"Expected pairs such as 'method=SSD,seed=260' in a selection, got '{pair}'.")
        if field not in known:
            raise UnknownNameError("field in the selection:", field, known)
        wanted.setdefault(field, []).extend(values.split("|"))
    return wanted
