"""``supreme evaluate``: every metric of an unlearned model, as a table and a JSON file."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from torch import nn

from supreme.api import make_metric
from supreme.callbacks.description import plain
from supreme.callbacks.environment import versions
from supreme.cli.console import open_console
from supreme.cli.original import stage_config
from supreme.cli.trainer import check_writable
from supreme.cli.unlearn import network_spec
from supreme.distributed import evaluation_strategy
from supreme.evaluation import Evaluation
from supreme.experiment.store import write_json
from supreme.metrics.base import EvaluationMetric
from supreme.models.build import reinitialise
from supreme.models.stored import describe_model, load_model
from supreme.scenarios.base import Scenario
from supreme.seeding import derive

SCORES = "scores.json"
VALIDATION_DATA = "supreme.experiment.validation.HeldOut"
_SETS = ("whole", "retain", "forget", "")


def stored_request(path: str) -> dict[str, Any] | None:
    """The scenario that an unlearned model was made for, in the form of a configuration; None if it does not tell.

    Args:
        path: where the model is stored.

    Raises:
        CheckpointError: if the model is missing or damaged.
    """
    about = {**stage_config(path), **describe_model(path)}
    scenario, dataset = about.get("scenario"), about.get("dataset")
    if not scenario or not dataset:
        return None
    dataset = {name: dataset[name] for name in ("class_path", "init_args")}
    share = (about.get("training") or {}).get("validation_fraction")
    if share is not None:  # D is what was trained on
        dataset = {"class_path": VALIDATION_DATA, "init_args": {"dataset": dataset, "fraction": share}}
    return {"class_path": scenario["class_path"], "init_args": {**scenario["init_args"], "dataset": dataset}}


def make_evaluation(config: Any, scenario: Scenario) -> Evaluation:
    """The evaluation that a command line asks for.

    Args:
        config: its configuration.
        scenario: what was to be forgotten.

    Raises:
        SupremeError: if a model, a metric or the output cannot be used; nothing has been written then.
    """
    check_writable(scores_file(config).parent)
    seed = int(config["seed_everything"])
    metrics = _metrics(config["metrics"], seed)
    models: dict[str, nn.Module] = {}
    classes = len(scenario.dataset.classes)
    for role in ("unlearned", "retrained", "original"):
        if config[role] is not None:
            models[role] = load_model(config[role], network_spec(config["network"]), classes, later=True)[0]
    teacher = reinitialise(models["unlearned"], derive(scenario.request.fingerprint, "incompetent teacher"))
    return Evaluation(
        copy.deepcopy(models["unlearned"]),
        models.get("retrained"),
        models.get("original"),
        teacher,
        metrics=metrics,
        random=scenario.random,
        seed=seed,
    )


def scores_file(config: Any) -> Path:
    """Where the values go: ``--output``, or ``scores.json`` beside M_u."""
    if config["output"] is not None:
        return Path(config["output"])
    source = Path(config["unlearned"])
    return (source if source.is_dir() else source.parent) / SCORES


def show(config: Any, scenario: Scenario, scores: Mapping[str, float], costs: Mapping[str, float]) -> None:
    """Print the values and write them.

    Args:
        config: configuration of the command.
        scenario: what was to be forgotten.
        scores: values by key.
        costs: what each metric cost, empty where that was not asked for.

    Raises:
        OutputError: if the file cannot be written.
    """
    file = scores_file(config)
    content = {
        "schema": 1,
        **{role: config[role] for role in ("unlearned", "retrained", "original")},
        "scenario": type(scenario).__name__,
        "target": scenario.target_name(),
        "dataset": scenario.dataset.name,
        "fingerprint": scenario.request.fingerprint,
        "notes": list(scenario.dataset.notes),
        "seed": int(config["seed_everything"]),
        "trainer": _trainer(config["trainer"]),
        "metrics": dict(scores),
        **({"evaluation_costs": dict(costs)} if costs else {}),
        "versions": versions(),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, content)
    console = open_console()
    console.print(_table(scores))
    if costs:
        console.print(_costs_table(costs))
    console.print(f"Scores are in {file}", soft_wrap=True, highlight=False)


def _trainer(config: Any) -> dict[str, Any]:
    """On what it was computed, and as what a strategy that only trains was run."""
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    found = {name: plain(config[name]) for name in names}
    return {**found, "evaluated_as": plain(evaluation_strategy(config["strategy"]))}


def _metrics(names: Sequence[Any] | None, seed: int) -> list[EvaluationMetric] | None:
    if names is None:
        return None
    chosen: list[dict[str, Any]] = [{"class_path": name} if isinstance(name, str) else dict(name) for name in names]
    return [make_metric(item["class_path"], seed, item.get("init_args")) for item in chosen]


def _table(scores: Mapping[str, float]) -> Table:
    """A line per metric, a column per set; the distance to M_r in parentheses."""
    keys = [key for key in scores if not key.endswith("_gap")]
    used = [place for place in _SETS if any(key.rpartition("/")[0] == place for key in keys)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("metric")
    for place in used:
        table.add_column(place or "all", justify="right")
    for name in dict.fromkeys(key.rpartition("/")[2] for key in keys):
        table.add_row(name, *(_cell(scores, f"{place}/{name}" if place else name) for place in used))
    if len(keys) < len(scores):
        table.caption, table.caption_justify = "in parentheses: value of M_u minus value of M_r", "left"
    return table


def _costs_table(costs: Mapping[str, float]) -> Table:
    """A line per metric with its time and peak memory."""
    table = Table("metric", box=box.SIMPLE_HEAD, show_edge=False)
    for title in ("time (s)", "memory (MiB)"):
        table.add_column(title, justify="right")
    for key, seconds in costs.items():
        kind, _, metric = key.partition("/")
        if kind == "metric_time_s":
            peak = costs.get(f"metric_peak_memory_bytes/{metric}")
            table.add_row(metric, f"{seconds:.4f}", "" if peak is None else f"{peak / 2**20:.2f}")
    return table


def _cell(scores: Mapping[str, float], key: str) -> str:
    if key not in scores:
        return ""
    gap = scores.get(f"{key}_gap")
    return f"{scores[key]:.4f}" if gap is None else f"{scores[key]:.4f} ({gap:+.4f})"
