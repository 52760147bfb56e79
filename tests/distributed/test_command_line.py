"""The command line on several devices: Lightning's launcher, torchrun, two nodes on this machine, and failures."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from supreme.__main__ import main
from supreme.cli import run as run_command
from supreme.models.build import NetworkSpec, build
from supreme.models.stored import save_model
from supreme.testing.processes import free_port, in_processes

HERE = Path(__file__).parent
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
NEEDS_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
FIT = ("fit", "--network=plan_networks.Small", "--trainer.max_epochs=1", "--data.batch_size=71", *QUIET)
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node")
UNLEARN = ("unlearn", "--method=SSD", "--data.forget=3", *QUIET)


def start(folder, *words):
    """Start Python in a folder."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    here = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "SUPREME_DATA": str(folder / "data")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=here, start_new_session=True, **pipes)


def finish(process):
    """What a process printed; it and all that it has started are ended, should it take too long."""
    try:
        return process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"it does not end:\n{out}\n{err}") from None


def run(folder, *words, launcher=()):
    """Run a command; gives its output and what it wrote."""
    process = start(folder, *launcher, "-m", "supreme", *words)
    out, err = finish(process)
    assert process.returncode == 0, err
    return out


def weights(folder):
    """The newest stored model below a folder."""
    return max(folder.rglob("version_*/model.safetensors"), key=lambda path: path.stat().st_mtime)


def check_same(found, expected, tolerance):
    ours, theirs = load_file(found), load_file(expected)
    assert ours.keys() == theirs.keys()
    assert max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours) <= tolerance


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """What one process trains."""
    folder = tmp_path_factory.mktemp("one")
    run(folder, *FIT)
    return weights(folder)


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory, fitted):
    """What one process makes of it."""
    folder = tmp_path_factory.mktemp("unlearned")
    run(folder, *UNLEARN, "--original", fitted.parent)
    return weights(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["ddp", "fsdp", *(pytest.param(f"deepspeed_stage_{k}", marks=NEEDS_DEEPSPEED) for k in (1, 2, 3))]
)
def test_fit_with_lightnings_launcher(tmp_path, fitted, strategy):
    run(tmp_path, *FIT, "--trainer.devices=2", f"--trainer.strategy={strategy}")
    check_same(weights(tmp_path), fitted, 1e-5)


@pytest.mark.slow
def test_fit_with_torchrun(tmp_path, fitted):
    words = (*FIT, "--trainer.devices=2", "--trainer.strategy=ddp")
    run(tmp_path, *words, launcher=(*TORCHRUN, 2, "--standalone"))
    check_same(weights(tmp_path), fitted, 1e-5)


@pytest.mark.slow
def test_fit_on_two_nodes(tmp_path, fitted):
    """Two agents of torchrun on this machine, each with one process."""
    place = ("--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={free_port()}")
    words = ("-m", "supreme", *FIT, "--trainer.devices=1", "--trainer.num_nodes=2", "--trainer.strategy=ddp")
    agents = [start(tmp_path, *TORCHRUN, 1, *place, f"--node-rank={node}", *words) for node in range(2)]
    errors = [finish(agent)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1
    check_same(weights(tmp_path), fitted, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", pytest.param("deepspeed_stage_3", marks=NEEDS_DEEPSPEED)])
def test_unlearn_with_lightnings_launcher(tmp_path, fitted, unlearned, strategy):
    run(tmp_path, *UNLEARN, "--original", fitted.parent, "--trainer.devices=2", f"--trainer.strategy={strategy}")
    check_same(weights(tmp_path), unlearned, 1e-6)


@pytest.mark.parametrize(("strategy", "shown", "later"), [("ddp", "DDPStrategy", False), ("fsdp", "FSDP2", True)])
def test_no_rank_holds_a_network_whole_where_weights_are_split(group_work, tmp_path, strategy, shown, later):
    """Neither M_o, nor M_u when both are evaluated; the weights are those of one process."""
    original = save_model(tmp_path, build(NetworkSpec("plan_networks.Small"), 10, 0), {})
    words = [*UNLEARN[1:], "--method.selection_weight=1.2", "--original", str(original.parent)]
    one, two = (tmp_path / name for name in ("one", "two"))
    one.mkdir()
    two.mkdir()
    (alone,) = in_processes(1, group_work.commanded, one, *words)
    assert alone == (0, [False, False], ["SingleDeviceStrategy"] * 2)
    several = "--trainer.devices=2", f"--trainer.strategy={strategy}"
    assert in_processes(2, group_work.commanded, two, *words, *several) == [(0, [later] * 2, [shown] * 2)] * 2
    check_same(weights(two), weights(one), 1e-6)
    before, after = load_file(original), load_file(weights(one))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    about = [json.loads(weights(folder).with_name("model.json").read_text()) for folder in (one, two)]
    assert about[0]["accuracy"] == about[1]["accuracy"]


@pytest.mark.slow
def test_unlearn_with_torchrun_trains_the_original_once(tmp_path):
    words = (*UNLEARN, "--network=plan_networks.Small", "--training.epochs=1")
    devices = ("--trainer.devices=2", "--trainer.strategy=ddp")
    several = run(tmp_path, *words, *devices, launcher=(*TORCHRUN, 2, "--standalone"))
    assert len(list(tmp_path.rglob("stage.json"))) == 1
    (tmp_path / "one").mkdir()
    alone = run(tmp_path / "one", *words)
    line = next(line for line in alone.splitlines() if line.startswith(" M_o"))
    assert line.split() in [line.split() for line in several.splitlines()]


@pytest.mark.slow
@NEEDS_DEEPSPEED
def test_evaluate_says_what_ran(tmp_path, fitted, unlearned):
    models = ("evaluate", "--unlearned", unlearned.parent, "--retrained", fitted.parent, *QUIET)
    run(tmp_path, *models, "--output", tmp_path / "one.json")
    several = ("--trainer.devices=2", "--trainer.strategy=deepspeed_stage_3")
    run(tmp_path, *models, "--output", tmp_path / "two.json", *several)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-6, abs=1e-7)
    assert (two["trainer"]["strategy"], two["trainer"]["evaluated_as"]) == ("deepspeed_stage_3", "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_failing_rank_ends_the_command_and_is_recorded(tmp_path, rank):
    words = ("fit", "--network=plan_networks.Failing", f"--network.rank={rank}", "--trainer.max_epochs=1", *QUIET)
    started = time.monotonic()
    process = start(tmp_path, "-m", "supreme", *words, "--trainer.devices=2", "--trainer.strategy=ddp")
    _, err = finish(process)
    assert time.monotonic() - started < 200
    assert process.returncode != 0
    assert "this rank has had enough" in err
    record = json.loads(next(tmp_path.rglob("run.json")).read_text())
    assert record["status"] == "failed"
    assert (record["error"]["message"], record["error"]["rank"]) == ("this rank has had enough", rank)


LAUNCHERS = {
    "torchrun": {"LOCAL_RANK": "0", "WORLD_SIZE": "2"},
    "srun": {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "mine"},
    "srun by node": {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "mine"},
}


@pytest.mark.parametrize("devices", ["1", "2", "auto"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_plan_is_not_started_by_a_launcher(tmp_path, monkeypatch, capsys, launcher, devices):
    plan = tmp_path / "plan.yaml"
    lists = "datasets: [Digits]\nmodels: [ResNet18]\nmethods: [SSD]\nscenarios: [{class_path: FullClass, targets: [3]}]"
    trainer = f"{{accelerator: cpu, devices: {devices}, strategy: ddp}}"
    plan.write_text(f"{lists}\noutput: {tmp_path / 'out'}\ntrainer: {trainer}\n")
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    assert main(["run", str(plan)]) == 2
    assert "start it once, without torchrun, srun or mpirun" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["run", str(plan), "--dry_run"]) == 0


def test_a_job_of_one_task_is_alone(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    run_command._check_alone()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("strategy: fsdp1", 'use strategy "fsdp"'),
        ("strategy: fsdp_cpu_offload", 'use strategy "fsdp"'),
        ("strategy: deepspeed_stage_4", "did you mean 'deepspeed_stage_"),
        ("strategy: ddp_spawn", "Unknown strategy of a plan"),
        ("matmul_precision: hihg", "did you mean 'high'"),
    ],
)
def test_settings_that_no_stage_could_use(tmp_path, capsys, setting, message):
    plan = tmp_path / "plan.yaml"
    lists = "datasets: [Digits]\nmodels: [ResNet18]\nmethods: [SSD]\nscenarios: [{class_path: FullClass, targets: [3]}]"
    plan.write_text(f"{lists}\noutput: {tmp_path / 'out'}\ntrainer: {{{setting}}}\n")
    assert main(["run", str(plan)]) == 2
    assert message in capsys.readouterr().err
