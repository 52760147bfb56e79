"""Synthetic records that look like those of a real plan."""

import copy
import itertools
import json
import random

import numpy as np
import pytest
from safetensors.numpy import save_file

METHODS = ("Original", "Retrain", "FineTune", "BadTeacher", "UNSIR", "RandomLabels", "SSD", "LFSSD", "NegGrad")
HOSTILE = "<script>alert('x')</script> & 50%_$y$ [b]{c}|d\\"
LEVEL = {
    "Original": (0.97, 0.98, 0.0),
    "Retrain": (0.02, 0.97, 9.0),
    "FineTune": (0.31, 0.975, 1.3),
    "BadTeacher": (0.05, 0.95, 0.9),
    "UNSIR": (0.62, 0.96, 0.4),
    "RandomLabels": (0.01, 0.955, 1.1),
    "SSD": (0.04, 0.88, 0.21),
    "LFSSD": (0.01, 0.93, 0.19),
    "NegGrad": (0.0, 0.41, 0.05),
}


def metrics_of(method, scenario, rng):
    """Plausible metric values of one run."""
    forget, retain, time = LEVEL.get(method, (0.4, 0.9, 2.0))
    if scenario == "RandomSample" and method != "Original":
        forget = min(1.0, 0.9 + forget / 20)
    values = {}
    for part, level, gold in (("forget", forget, 0.02), ("retain", retain, 0.97), ("whole", retain, 0.96)):
        accuracy = min(1.0, max(0.0, rng.gauss(level, 0.01)))
        same = method == "Retrain"
        distance = 0.0 if same else abs(rng.gauss(abs(level - gold), 0.02)) + 0.01
        values |= {
            f"{part}/accuracy": accuracy,
            f"{part}/loss": abs(rng.gauss(1.0 - level, 0.05)),
            f"{part}/accuracy_gap": 0.0 if same else accuracy - gold,
            f"{part}/loss_gap": 0.0 if same else rng.gauss(0.0, 0.05),
            f"{part}/activation_distance": distance,
            f"{part}/js_divergence": distance / 2,
            f"{part}/completeness": 1.0 - distance / 2,
        }
    values |= {
        "layerwise_distance": 0.0 if method == "Retrain" else rng.gauss(31.0, 0.4),
        "mia": (mia := abs(rng.gauss(0.1, 0.05))),
        "mia_gap": 0.0 if method == "Retrain" else mia - 0.1,
        "mia_auc": (auc := rng.uniform(0.5, 0.7)),
        "mia_auc_gap": 0.0 if method == "Retrain" else auc - 0.5,
        "forget/zrf": (zrf := rng.uniform(0.3, 0.9)),
        "forget/zrf_gap": 0.0 if method == "Retrain" else zrf - 0.6,
        "peak_memory_bytes": rng.uniform(5e7, 4e8),
        "utilisation": rng.uniform(0.4, 0.99),
    }
    if method != "Original":
        values["time_s"] = time * rng.uniform(0.9, 1.1) + 0.01
        values["speedup"] = 9.0 / values["time_s"]
    return values


def record_of(number, run, rng):
    """One record in the documented layout."""
    seed = run["seed"]
    run = {name: value for name, value in run.items() if name != "seed"}
    run |= {"training_seed": seed, "unlearning_seed": seed, "evaluation_seed": seed}
    metrics = metrics_of(run["method"], run["scenario"], rng)
    return {
        "schema": 1,
        "key": f"{number:016x}",
        "plan": "quickstart",
        "run": run,
        "status": "done",
        "error": None,
        "metrics": metrics,
        "method_arguments": {"selection_weight": 10.0, "dampening": 1.0} if "SSD" in run["method"] else {},
        "config": {
            "dataset": {"class_path": run["dataset"]},
            "trainer": {"max_epochs": 12},
            "batch_size": 64,
            "run": run,
        },
        "scenario_sizes": {"forget_train": 143, "retain_train": 1294, "forget_test": 36, "retain_test": 324},
        "fingerprint": "83be01c2aa91f00d",
        "config_hash": f"c0ffee{METHODS.index(run['method']) if run['method'] in METHODS else 255:010x}",
        "stages": {"train": "t" * 16, "retrain": "r" * 16, "unlearn": f"{number:016x}", "evaluate": f"{number:016x}"},
        "versions": {"supreme": "0.1.0", "torch": "2.15.0", "lightning": "2.6.6", "python": "3.11.9"},
        "hardware": {
            "cpu": "Some CPU",
            "cores": 2,
            "accelerator": "cpu",
            "devices": 1,
            "precision": "32-true",
            "strategy": "auto",
            "threads": 1,
        },
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "contended": False,
        "started": f"2026-01-01T00:{number % 60:02d}:00+00:00",
        "finished": f"2026-01-01T01:{number % 60:02d}:00+00:00",
    }


def make_records(
    *, seeds=(260, 261, 262), targets=("3", "7"), methods=METHODS, scenarios=("FullClass", "RandomSample"), seed=0
):
    """Records of a whole plan: every method on every scenario, target and seed (UNSIR not on RandomSample)."""
    rng = random.Random(seed)
    records = []
    for scenario, method in itertools.product(scenarios, methods):
        if scenario == "RandomSample" and method == "UNSIR":
            continue
        for target, training in itertools.product(targets if scenario != "RandomSample" else ("0.05",), seeds):
            run = {"dataset": "Digits", "model": "ResNet18", "scenario": scenario, "target": target}
            run |= {"method": method, "variant": "", "seed": training}
            records.append(record_of(len(records), run, rng))
    return records


def fail(record, kind="ValueError", message="expected a finite loss, got nan"):
    """Turn a record into that of a failed run."""
    trace = f'Traceback (most recent call last):\n  File "method.py", line 12, in fit\n{kind}: {message}'
    record |= {"status": "failed", "metrics": {}, "error": {"type": kind, "message": message, "traceback": trace}}
    return record


def drawn_records(*, seeds=(260, 261, 262), draws=(1, 2, 3, 4), methods=("Original", "Retrain", "SSD", "LFSSD")):
    """Records of seeds crossed with draws of the samples to forget."""
    records = []
    for draw in draws:
        for record in make_records(seeds=seeds, methods=methods, scenarios=("RandomSample",), seed=draw):
            record["run"]["draw_seed"] = draw
            records.append(record | {"key": f"{len(records):016x}"})
    return records


def rich_records():
    """A plan with all that can go wrong: failures, hostile names, an unknown metric, variants, shared devices."""
    records = make_records()
    rng = random.Random(1)
    for record in records:
        run = record["run"]
        record["metrics"]["forget/sharpness"] = rng.uniform(0.001, 2.0)
        record["contended"] = run["training_seed"] == 262
        if run["method"] == "LFSSD" and run["target"] == "7" and run["training_seed"] == 261:
            fail(record, message=HOSTILE)
        if run["method"] == "NegGrad" and run["scenario"] == "FullClass":
            fail(record, "RuntimeError", "out of memory")
    for variant in ("dampening=10", "dampening=2"):
        for source in [item for item in records if item["run"]["method"] == "SSD" and not item["run"]["variant"]]:
            twin = copy.deepcopy(source)
            twin["run"]["variant"] = variant
            twin["key"] = f"{len(records):016x}"
            records.append(twin)
    for training in (260, 261, 262):
        run = {"dataset": HOSTILE, "model": "ViT_b&16", "scenario": "FullClass", "target": "a%b_<i>", "seed": training}
        for method in ("Retrain", "my_pkg.<b>Bold</b>", "SSD"):
            records.append(record_of(len(records), {**run, "method": method, "variant": ""}, rng))
            records[-1]["metrics"]["x<y&z_$%"] = rng.random()
    return records


@pytest.fixture
def write_records(tmp_path):
    """Write records as the plan runner does; returns the output folder."""

    def write(records, name="out"):
        folder = tmp_path / name / "records"
        folder.mkdir(parents=True, exist_ok=True)
        for record in records:
            (folder / f"{record['key']}.json").write_text(json.dumps(record), encoding="utf-8")
        return folder.parent

    return write


def write_outputs(folder, records, classes=4, samples=120, seed=0, noise=None):
    """Stored outputs of every run: random logits, with the forgotten class known to M_o and not to the others.

    With ``noise``, the seed of further logits, the samples depend on ``seed`` alone.
    """
    rng = np.random.default_rng(seed)
    for record in records:
        record["stages"] = {**record["stages"], "evaluate": record["key"]}
        part = np.arange(samples) % 4
        target = np.where(np.isin(part, (1, 3)), 0, rng.integers(1, classes, samples))
        logits = (rng if noise is None else np.random.default_rng([seed, noise])).normal(size=(samples, classes))
        known = record["run"]["method"] == "Original"
        logits[np.arange(samples), target] += np.where(known | np.isin(part, (0, 2)), 4.0, -4.0)
        place = folder / "stages" / "evaluate" / record["key"]
        place.mkdir(parents=True, exist_ok=True)
        columns = {"index": np.arange(samples), "part": part, "target": target, "logits": logits.astype(np.float32)}
        save_file(columns, place / "outputs.safetensors")
    return records


@pytest.fixture
def plan():
    """The functions of this file."""

    class Plan:
        records = staticmethod(make_records)
        drawn = staticmethod(drawn_records)
        rich = staticmethod(rich_records)
        fail = staticmethod(fail)
        outputs = staticmethod(write_outputs)
        hostile = HOSTILE

    return Plan
