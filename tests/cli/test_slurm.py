"""``supreme run --launcher slurm``: what it says and refuses; the whole of it on a cluster of this machine."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from supreme.cli import slurm
from supreme.experiment.slurm import SlurmSettings, Submission


def test_options_reach_the_tasks(plan, supreme, monkeypatch):
    given = []

    def submit(plan, runs, settings, forced, track_evaluation):
        given.append((settings, {stage.kind for stage in forced}, [run.method for run in runs]))
        return Submission(("7",), tuple(runs), (), ())

    monkeypatch.setattr(slurm, "submit", submit)
    options = {"partition": "gpu", "account": "me", "time": "1:00:00", "nodes": 1, "gpus_per_node": 2}
    options["max_concurrent"] = 4
    words = [f"--slurm.{name}={value}" for name, value in options.items()]
    result = supreme("run", plan(), "--launcher=slurm", *words, "--only=method=SSD", "--force=stage=evaluate")
    assert result.code == 0, result.err
    assert given == [(SlurmSettings(**options), {"evaluate"}, ["SSD"])]
    assert "submitted: 1 runs, one task each, as SLURM array 7" in result.err
    assert "'supreme status runs/small'" in result.err


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (("--launcher=slrum",), ("'slrum'", "'slurm'")),
        (("--slurm.time=5",), ("--launcher slurm", "--slurm.time")),
        (("--launcher=slurm", "--workers=2"), ("--workers", "--slurm.max_concurrent")),
        (("--launcher=slurm", "--slurm.time=soon"), ("--slurm.time", "'soon'")),
        (("--launcher=slurm", "--slurm.nodes=0"), ("--slurm.nodes >= 1",)),
        (("--launcher=slurm", "--slurm.nodes=2"), ("num_nodes",)),
        (("--launcher=slurm", "--slurm.gpus=2"), ("'--slurm.gpus'", "'--slurm.gpus_per_node'")),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_words(words, texts, plan, supreme, inside):
    name = plan()
    result = supreme("run", name, *words)
    assert result.code == 2
    assert len(result.err.strip().splitlines()) == 1
    assert all(text in result.err for text in texts), result.err
    assert [path.name for path in inside.iterdir()] == ["small.yaml"]


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """A SLURM cluster of two nodes with two cores each."""
    file = Path(__file__).parents[1] / "slurm_cluster.py"
    spec = importlib.util.spec_from_file_location("supreme_slurm_cluster", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.missing():
        pytest.skip(f"SLURM is not installed here: no {', '.join(module.missing())}")
    with module.Cluster(tmp_path_factory.mktemp("cluster"), cpus=2, nodes=2) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_plan_on_a_cluster(nodes, plan, supreme, inside, cluster):
    """From the submission to the tables; with two nodes, each stage is computed by one rank on each of them."""
    pytest.importorskip("submitit")
    several = {"num_nodes": 2, "strategy": "ddp"} if nodes == 2 else {}
    words = ("run", plan(trainer={"accelerator": "cpu", **several}), "--launcher=slurm")
    first = supreme(*words, "--slurm.partition=test", "--slurm.time=10", "--slurm.max_concurrent=1")
    assert first.code == 0, first.err
    assert "submitted: 3 runs" in first.err
    end = time.monotonic() + 270
    while "3 done" not in (shown := supreme("status", "runs/small").out):
        assert "0 failed" in shown, shown
        assert time.monotonic() < end, shown
        time.sleep(2)
    last = supreme(*words)
    assert "with a result: 3 runs" in last.err
    assert "SSD" in last.out
    train = next((inside / "runs" / "small" / "stages" / "train").iterdir())
    assert f'"num_nodes": {nodes}' in (train / "stage.json").read_text() or nodes == 1


TINY = """
from torch import nn

def Tiny(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, num_classes),
    )
"""


@pytest.mark.slow
def test_fit_and_unlearn_under_srun(process, inside, cluster):
    """Two tasks find each other by what SLURM tells them, and give the model of one process."""
    (inside / "tiny.py").write_text(TINY)
    words = ["--network=tiny.Tiny", "--trainer.accelerator=cpu", "--trainer.precision=64-true"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"]
    one = process("fit", *words, "--trainer.default_root_dir=one")
    assert one.code == 0, one.err
    task = ["srun", "--partition=test", "--nodes=1", "--ntasks-per-node=2", sys.executable, "-m", "supreme"]
    several = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    here = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}  # the name of the node is made up
    for name, command in {
        "fitted": ["fit", *words, *several, "--trainer.default_root_dir=two"],
        "unlearned": ["unlearn", "--method=FineTune", "--original=one/version_0", *words[1:-1], *several],
    }.items():
        done = subprocess.run([*task, *command], env=here, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, (name, done.stderr)
    first, second = (load_file(inside / name / "version_0" / "model.safetensors") for name in ("one", "two"))
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-10
    assert [path.name for path in (inside / "runs" / "unlearn").glob("*/version_*/model.safetensors")]


STUCK = """
import os, time
from torch import nn

class Stuck(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, images):
        if os.environ["SLURM_PROCID"] == "1":
            raise ArithmeticError("this rank has had enough")
        time.sleep(600)
"""


@pytest.mark.slow
def test_a_failing_rank_ends_the_others_under_srun(inside, cluster):
    """With --kill-on-bad-exit, also one that waits for it; the record says who failed."""
    (inside / "stuck.py").write_text(STUCK)
    task = ["srun", "--partition=test", "--nodes=1", "--ntasks-per-node=2", "--kill-on-bad-exit=1", sys.executable]
    words = ["fit", "--network=stuck.Stuck", "--trainer.accelerator=cpu", "--trainer.devices=2"]
    words += ["--trainer.strategy=ddp", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    here = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    command = [*task, "-m", "supreme", *words]
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert "this rank has had enough" in done.stderr
    record = json.loads(next(inside.rglob("run.json")).read_text())
    assert (record["status"], record["error"]["rank"]) == ("failed", 1)
    assert record["error"]["message"] == "this rank has had enough"
