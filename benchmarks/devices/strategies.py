"""Two processes against one: ``python benchmarks/devices/strategies.py [--methods SSD ...] [--strategies ddp ...]``.

For every method and strategy: the largest difference of a weight of M_u, in float64 over the full length (where the
strategy has float64) and in float32 after one step of each phase and over the full length, the same with weights next
to a selection threshold left out, how many of these there are, and the largest difference of a metric. Each value is of
one seed. M_o is a small network on scikit-learn's digits; the requests forget the digit 3. 147 rows of a global batch
do not divide by two. Prints a Markdown table and writes benchmarks/results/strategies_<hardware>_torch<version>.csv.
"""

import argparse
import copy
import csv
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from supreme.api import make_method
from supreme.callbacks import hardware, versions
from supreme.classifier import ImageClassifier, Recipe
from supreme.datasets import Digits
from supreme.distributed import (
    ZeRO,
    evaluation_strategy,
    full_state_dict,
    hushed,
    matmul_precision,
    quiet_trainer,
    resolve_strategy,
)
from supreme.evaluation import Evaluation
from supreme.ranks import in_ranks
from supreme.scenarios import FullClass, WholeDataset
from supreme.seeding import isolated

RESULTS = Path(__file__).parents[1] / "results"
SEED, FORGET, BATCH = 3, 3, 147
STRATEGIES = ("ddp", "fsdp", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_3")
DOUBLE = ("ddp", "fsdp")  # DeepSpeed has no float64
COUNTS = ("accuracy", "completeness", "mia")
NEAR = 1e-5
ONE_SHOT = ("SSD", "LFSSD", "SSDDet", "LFSSDDet", "ASSD")
METHODS: dict[str, dict[str, Any]] = {
    "SSD": {"selection_weight": 5.0},
    "LFSSD": {"selection_weight": 3.0},
    "SSDDet": {"selection_weight": 2.0},
    "LFSSDDet": {"selection_weight": 2.0},
    "ASSD": {},
    "FineTune": {"epochs": 2, "lr": 0.01},
    "NegGrad": {"epochs": 2},
    "RandomLabels": {"epochs": 2, "batch_size": BATCH},
    "BadTeacher": {"epochs": 2, "batch_size": BATCH},
    "SCRUB": {"epochs": 3, "max_steps": 2},
    "SCRUB+R": {"epochs": 3, "max_steps": 2, "reference_error": 0.2},
    "UNSIR": {"noise_steps": 5, "noise_repeats": 4, "samples_per_class": 30},
    "JIT": {"epochs": 2, "n_samples": 5},
    "Retrain": {"epochs": 3},
}
# What makes each phase one step, beside a batch that holds everything.
ONCE: dict[str, dict[str, Any]] = {
    "Retrain": {"recipe": Recipe(warmup_epochs=0.0)},  # else the rate of the first step is 0
    "RandomLabels": {"epochs": 1, "batch_size": 10**6},
    "BadTeacher": {"epochs": 1, "batch_size": 10**6},
    "SCRUB": {"epochs": 1, "max_steps": 0},
    "SCRUB+R": {"epochs": 1, "max_steps": 0, "reference_error": 0.2},
    "UNSIR": {"noise_steps": 1, "noise_repeats": 1, "impair_batch_size": 10**6, "repair_batch_size": 10**6},
}


def network() -> nn.Module:
    """GroupNorm and about 13,000 weights: images (n, 3, 8, 8) -> logits."""
    with isolated(SEED):
        return nn.Sequential(
            *(nn.Conv2d(3, 24, 3, padding=1), nn.GroupNorm(4, 24), nn.ReLU()),
            *(nn.Conv2d(24, 37, 3, padding=1, stride=2), nn.GroupNorm(1, 37), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(148, 31), nn.ReLU(), nn.Linear(31, 10)),
        )


def original() -> dict[str, Tensor]:
    """Weights of M_o: three epochs in this process."""
    module = ImageClassifier(network(), Recipe("adamw", lr=3e-3, weight_decay=0.01), SEED)
    quiet_trainer("cpu", max_epochs=3, limit_val_batches=0).fit(module, datamodule=WholeDataset(Digits(), 64))
    return full_state_dict(module.model)


def scenario(batch_size: int = BATCH) -> FullClass:
    """The request."""
    return FullClass(Digits(), FORGET, batch_size=batch_size)


def run_settings(strategy: str) -> dict[str, Any]:
    """Trainer arguments; under ZeRO-3 even the smallest weights are split, which a network of this size needs."""
    if strategy == "alone":
        return {"accelerator": "cpu"}
    chosen: Any = resolve_strategy(strategy)
    if isinstance(chosen, ZeRO):
        assert chosen.config is not None
        chosen.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return {"accelerator": "cpu", "devices": 2, "strategy": chosen}


def unlearned(name: str, state: Mapping[str, Tensor], length: str, strategy: str) -> Any:
    """A fitted method; ``length`` is ``"full"`` or ``"once"``."""
    model = network().to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    once = {"epochs": 1} if "epochs" in METHODS[name] else {}
    arguments = METHODS[name] if length == "full" else {**METHODS[name], **once, **ONCE.get(name, {})}
    method = make_method(name.removesuffix("+R"), model, {**arguments, "seed": SEED})
    data = scenario(BATCH if length == "full" or name in ONE_SHOT else 10**6)
    quiet_trainer(**run_settings(strategy), max_epochs=1).fit(method, datamodule=data)
    return method


def scores(state: Mapping[str, Tensor], retrained: Mapping[str, Tensor], strategy: str) -> dict[str, float]:
    """All metrics of a model."""
    models = [network().to(next(iter(state.values())).dtype) for _ in range(2)]
    for model, weights in zip(models, (state, retrained), strict=True):
        model.load_state_dict(weights)
    evaluation = Evaluation(models[0], models[1], incompetent=copy.deepcopy(models[1]), seed=SEED)
    settings = {**run_settings("alone" if strategy == "alone" else str(evaluation_strategy(strategy)))}
    quiet_trainer(**settings).test(evaluation, datamodule=scenario(), verbose=False)
    return evaluation.scores


Job = tuple[str, str, str]  # method, "float32" or "float64", length
Found = dict[Job, tuple[dict[str, Tensor], dict[str, float]]]


def in_turn(jobs: list[Job], weights: Mapping[str, Tensor], retrained: Mapping[str, Tensor], strategy: str) -> Found:
    """M_u's weights and, over the full length, its metrics; what several ranks do together."""
    found: Found = {}
    with hushed(), matmul_precision("highest"):
        for job in jobs:
            name, precision, length = job
            cast = _cast(precision)
            state = full_state_dict(unlearned(name, cast(weights), length, strategy).model)
            found[job] = state, scores(state, cast(retrained), strategy) if length == "full" else {}
    return found


def _cast(precision: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: value.to(getattr(torch, precision)) for name, value in state.items()}


def near_threshold(name: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Which weights have I_f within 1e-5, relatively, of alpha I_D; computed by one process in float32.

    Weights of which no image of D depends (importances 0) are none of these, as they cannot be selected.
    """
    with hushed():
        method = unlearned(name, weights, "full", "alone")
    full, forget = method.importances["full"], method.importances["forget"]
    alpha = method.selection_weight
    return {key: (full[key] > 0) & ((forget[key] / full[key] - alpha).abs() <= NEAR * alpha) for key in full}


def largest(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], but: Mapping[str, Tensor] | None = None
) -> float:
    """Largest absolute difference of a weight or buffer, some weights left out."""
    gaps = []
    for name, value in first.items():
        gap = (value.double() - second[name].double()).abs()
        gaps.append(gap[~but[name]] if but is not None and name in but else gap.flatten())
    return float(torch.cat([gap.flatten() for gap in gaps]).max())


def metric_gaps(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[int, float]:
    """Number of counts that differ, and the largest difference of any other metric."""
    assert first.keys() == second.keys()
    counted = {name for name in first if name.split("/")[-1].removesuffix("_gap") in COUNTS}
    different = sum(first[name] != second[name] for name in counted)
    return different, max(abs(first[name] - second[name]) for name in first if name not in counted)


def compare(methods: list[str], strategies: list[str]) -> list[dict[str, Any]]:
    """A row per method and strategy."""
    with hushed():
        weights = original()
        retrained = full_state_dict(unlearned("Retrain", weights, "full", "alone").model)
    lengths = [("float32", "once"), ("float32", "full"), ("float64", "full")]
    alone = in_turn([(m, p, n) for m in methods for p, n in lengths], weights, retrained, "alone")
    near = {name: near_threshold(name, weights) for name in methods if name in ONE_SHOT}
    rows = []
    for strategy in strategies:
        jobs = [(m, p, n) for m in methods for p, n in lengths if p == "float32" or strategy in DOUBLE]
        together: Found = in_ranks(2, in_turn, jobs, weights, retrained, strategy, threads=1)
        rows += [_row(name, strategy, alone, together, near.get(name)) for name in methods]
    return rows


def _row(name: str, strategy: str, alone: Found, together: Found, near: Mapping[str, Tensor] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "strategy": strategy, "evaluated_as": evaluation_strategy(strategy)}
    for precision in ("float64", "float32"):
        job = (name, precision, "full")
        if job not in together:
            row |= dict.fromkeys((f"{precision}_weights", f"{precision}_counts", f"{precision}_metrics"), "")
            continue
        counts, metrics = metric_gaps(alone[job][1], together[job][1])
        row[f"{precision}_weights"] = f"{largest(alone[job][0], together[job][0]):.2g}"
        row[f"{precision}_counts"], row[f"{precision}_metrics"] = counts, f"{metrics:.2g}"
    once, full = (name, "float32", "once"), (name, "float32", "full")
    row["float32_one_step"] = "" if near is not None else f"{largest(alone[once][0], together[once][0]):.2g}"
    row["near_threshold"] = "" if near is None else sum(int(mask.sum()) for mask in near.values())
    row["float32_others"] = "" if near is None else f"{largest(alone[full][0], together[full][0], near):.2g}"
    return row


def environment() -> dict[str, Any]:
    """What the numbers were made on, for every line of the file."""
    found, machine, sizes = versions(), hardware(), scenario().indices()
    names = ("supreme", "torch", "lightning", "deepspeed")
    return {
        "processes": 2,
        "seeds": 1,
        "weights": sum(parameter.numel() for parameter in network().parameters()),
        "forget_train": len(sizes["forget_train"]),
        "retain_train": len(sizes["retain_train"]),
        "test": len(sizes["forget_test"]) + len(sizes["retain_test"]),
        "batch_size": BATCH,
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "accelerator": "cpu",
        **{name: found.get(name, "") for name in names},
    }


def main() -> None:
    """Print the table and write the file."""
    parser = argparse.ArgumentParser(description="Two processes against one, for every method and strategy.")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--csv", type=Path, help="file to write in place of the one in benchmarks/results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    about, rows = environment(), compare(given.methods, given.strategies)
    name = re.sub(r"\W+", "-", f"{platform.machine()}-{about['cores']}-cores").strip("-").lower()
    file = given.csv or RESULTS / f"strategies_cpu-{name}_float32-float64_torch{about['torch']}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, [*rows[0], *about])
        table.writeheader()
        table.writerows({**row, **about} for row in rows)
    print(", ".join(f"{key}: {value}" for key, value in about.items()) + "\n")
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(str(value) if value != "" else "-" for value in row.values()) + " |")
    print(f"\n{file}")


if __name__ == "__main__":
    main()
