"""The comparison with the published implementation, without it: images, table, and our side of every job."""

import csv
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from supreme.experiment.plan import load_plan
from supreme.models import ResNet18

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch):
    """Modules of the folder, by name."""
    monkeypatch.syspath_prepend(str(PEERS))
    yield importlib.import_module
    for name in ("installed", "table", "side_by_side", "ours"):
        sys.modules.pop(name, None)


def folder_of_images(folder, train=4, test=2):
    draw = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def run(*words):
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, env=here, capture_output=True, text=True, timeout=240, check=False)


def test_a_missing_folder_is_refused_in_one_sentence_before_anything_is_installed(tmp_path):
    done = run(PEERS / "side_by_side.py", tmp_path / "none", "--environment", tmp_path / "environment")
    assert done.returncode == 2
    assert done.stderr == f"error: Expected a folder of images, but there is no '{tmp_path / 'none'}'.\n"
    assert not (tmp_path / "environment").exists()


def test_the_first_images_of_every_class_are_copied(peers, tmp_path):
    side_by_side = peers("side_by_side")
    source = folder_of_images(tmp_path / "source")
    for _ in range(2):  # the copies are made anew
        assert side_by_side.choose(source, tmp_path / "chosen", {"train": 6, "test": 2}) == ["cat", "dog"]
    chosen = sorted(str(f.relative_to(tmp_path / "chosen")) for f in (tmp_path / "chosen").rglob("*.png"))
    train = [f"train/{name}/{number}.png" for name in ("cat", "dog") for number in range(3)]
    assert chosen == ["test/cat/0.png", "test/dog/0.png", *train]
    same = source / "train" / "dog" / "2.png", tmp_path / "chosen" / "train" / "dog" / "2.png"
    assert same[0].read_bytes() == same[1].read_bytes()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"train": 10, "test": 2}, "Expected 5 train images of 'cat'"),
        ({"train": 3, "test": 2}, "multiple of 2 train images"),
        ({"train": 4, "test": 0}, "one per class at least, got 0"),
    ],
)
def test_numbers_of_images_that_do_not_fit_are_refused(peers, tmp_path, sizes, words):
    side_by_side = peers("side_by_side")
    with pytest.raises(side_by_side.PeerError, match=words):
        side_by_side.choose(folder_of_images(tmp_path / "source"), tmp_path / "chosen", sizes)


def test_folders_of_other_classes_are_refused(peers, tmp_path):
    side_by_side, source = peers("side_by_side"), folder_of_images(tmp_path / "source")
    (source / "test" / "dog").rename(source / "test" / "fox")
    with pytest.raises(side_by_side.PeerError, match="the same two or more class folders"):
        side_by_side.choose(source, tmp_path / "chosen", {"train": 4, "test": 2})


def test_ratios_are_published_over_ours_and_held_against_the_bars(peers):
    table = peers("table")
    rows = [
        table.Row("evaluation", "published", "evaluation", "s", 90.0, (90.0, 99.0, 80.0)),
        table.Row("evaluation", "published, loader workers 0", "evaluation", "s", 50.0, (50.0, 50.0, 50.0)),
        table.Row("evaluation", "ours", "evaluation", "s", 10.0, (10.0, 10.0, 20.0)),
        table.Row("evaluation", "ours", "evaluation, outputs cached", "s", 9.0, (9.0, 9.0, 9.0)),
        table.Row("evaluation", "ours", "evaluation", "CPU s", 1.0, (1.0, 1.0, 1.0)),
        table.Row("evaluation", "ours", "accuracy", "", 50.0, (50.0, 50.0, 50.0)),
    ]
    found = {row.quantity: row for row in table.ratios(rows)}
    assert {name: row.median for name, row in found.items()} == {
        "as shipped": 9.0,
        "loader workers 0": 5.0,
        "as shipped, outputs cached": 10.0,
    }
    assert found["as shipped"].values == (9.0, 9.9, 4.0)
    verdicts = {name: table.verdict(row) for name, row in found.items()}
    assert verdicts == {"as shipped": "reached", "loader workers 0": "missed", "as shipped, outputs cached": "reached"}


def test_a_cell_has_shares_and_the_ratio_of_every_stage(peers):
    table = peers("table")
    took = {"published": (100.0, 60.0, 30.0, 10.0), "ours": (40.0, 30.0, 5.0, 5.0)}
    rows = [
        table.Row("cell", side, name, "s", value, (value,))
        for side, values in took.items()
        for name, value in zip(("total", "train", "SSD", "other"), values, strict=True)
    ]
    found = {(row.side, row.quantity): row.median for row in table.ratios(rows)}
    assert found == {
        ("ratio", "total"): 2.5,
        ("ratio", "train"): 2.0,
        ("ratio", "SSD"): 6.0,
        **{("published", f"share of {name}"): share for name, share in (("train", 0.6), ("SSD", 0.3), ("other", 0.1))},
        **{("ours", f"share of {name}"): share for name, share in (("train", 0.75), ("SSD", 0.125), ("other", 0.125))},
    }


def test_the_file_has_all_repeats_and_the_conditions_on_every_line(peers, tmp_path, capsys):
    table = peers("table")
    rows = [
        table.Row("cell", "ours", "total", "s", 2.0, (1.0, 2.0, 3.0)),
        table.Row("cell", "ratio", "total", "x", 3.0, (3.0,), 2.5),
    ]
    table.write(rows, {"threads": 2, "torch": "2.15.0"}, tmp_path / "new" / "found.csv")
    with (tmp_path / "new" / "found.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["n"], first["all"], first["verdict"]) == ("3", "1.0000 2.0000 3.0000", "")
    assert (second["bar"], second["verdict"], second["torch"], second["threads"]) == ("2.5", "reached", "2.15.0", "2")
    assert "| cell | ratio | total | 1 | 3.000 x | >= 2.5 x | reached |" in capsys.readouterr().out


def test_the_cell_is_a_plan_of_eight_runs(peers, tmp_path):
    ours = peers("ours")
    job = {"images": str(tmp_path), "workspace": str(tmp_path), "epochs": 2, "threads": 1, "targets": ["cat", "dog"]}
    plan = load_plan(ours.plan(job, tmp_path))
    assert [run.method for run in plan.runs()] == ["Original", *ours.METHODS]


def test_our_side_of_evaluation_and_importances(peers, tmp_path):
    folder_of_images(tmp_path / "images")
    models = {}
    for seed, name in enumerate(("Original", "Retrain", "SSD")):
        torch.manual_seed(seed)
        models[name] = str(tmp_path / f"{name}.pth")
        torch.save({"model": ResNet18(2).state_dict()}, models[name])
    job = {
        "images": str(tmp_path / "images"),
        "workspace": str(tmp_path),
        "classes": ["cat", "dog"],
        "targets": ["cat", "dog"],
        "epochs": 1,
        "threads": 1,
        "prepared": {"models": models, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }
    found = {}
    ours = peers("ours")
    for name in ("prepare", "evaluation", "importances"):
        found[name] = json.loads(json.dumps(ours.JOBS[name](job)))
    floors = {"floor", "floor, outputs cached"}
    assert set(found["evaluation"]["seconds"]) == {"evaluation", "evaluation, outputs cached"} | floors
    steps = {f"{method}, {name} target" for method in ("SSD", "LFSSD") for name in ("first", "further")}
    assert set(found["importances"]["seconds"]) == steps
    assert all(value > 0 for result in found.values() for value in result["seconds"].values())
    for name in ("evaluation", "importances"):
        assert found[name]["seconds"].keys() - floors == found[name]["cpu_seconds"].keys()
    weights = [torch.load(models[name], weights_only=True)["model"] for name in ("SSD", "Retrain")]
    learnt = [name for name, _ in ResNet18(2).named_parameters()]
    distance = sum((weights[0][name] - weights[1][name]).double().square().sum() for name in learnt).sqrt()
    assert found["evaluation"]["values"]["layerwise_distance"] == pytest.approx(float(distance), rel=1e-6)
