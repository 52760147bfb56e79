"""``supreme run`` on several devices: ranks for each stage, the results of one process, and failures that end."""

import importlib.util
import json
import time

import pytest
import torch.distributed as dist
from safetensors.torch import load_file

from supreme.experiment.plan import load_plan
from supreme.experiment.scheduler import run_plan

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]
COUNTS = ("accuracy", "completeness", "mia")
COSTS = ("time_s", "time_s_reused", "speedup", "peak_memory_bytes", "utilisation")

PLAN = """
name: two
datasets: [{{class_path: Digits, init_args: {{test_fraction: 0.8}}}}]
models: [{model}]
training: {{epochs: 2, lr: 0.05, batch_size: 71, warmup_epochs: 0.0}}
scenarios: [{{class_path: FullClass, targets: [3]}}]
methods: [{methods}]
seeds: [1]
trainer: {{accelerator: cpu, {trainer}}}
evaluation: {{batch_size: 301}}
output: {output}
"""


@pytest.fixture(scope="module")
def run(group_work, tmp_path_factory):
    """Run a plan once: ``run(trainer, methods, model)`` gives the summary and the output folder."""
    known = {}

    def start(trainer, methods="SSD", model="plan_networks.Small", workers=1):
        key = trainer, methods, model, workers
        if key not in known:
            folder = tmp_path_factory.mktemp("plan")
            (folder / "plan.yaml").write_text(
                PLAN.format(trainer=trainer, methods=methods, model=model, output=folder / "out")
            )
            known[key] = run_plan(load_plan(folder / "plan.yaml"), workers=workers), folder / "out"
        return known[key]

    return start


def records(folder):
    found = [json.loads(path.read_text()) for path in (folder / "records").glob("*.json")]
    return {record["run"]["method"]: record for record in found}


def check_same(one, several, weights, values):
    """The same weights and the same metrics, counts exactly."""
    alone, together = records(one), records(several)
    assert alone.keys() == together.keys()
    for method, record in alone.items():
        metrics = together[method]["metrics"]
        assert metrics.keys() == record["metrics"].keys()
        for name, value in record["metrics"].items():
            if name.split("/")[-1].removesuffix("_gap") in COUNTS:
                assert metrics[name] == value, name
            elif name not in COSTS:
                assert metrics[name] == pytest.approx(value, rel=values, abs=values), name
        states = [
            load_file(next(folder.glob(f"stages/*/{r['stages']['unlearn']}/model.safetensors")))
            for folder, r in ((one, record), (several, together[method]))
        ]
        for name, value in states[0].items():
            assert (states[1][name].double() - value.double()).abs().max().item() <= weights, f"{method}: {name}"


def test_ddp_gives_what_one_process_gives(run):
    one, alone = run("precision: 64-true")
    two, several = run("precision: 64-true, devices: 2, strategy: ddp")
    assert [one.exit_code, two.exit_code] == [0, 0], two.failed
    assert not dist.is_initialized()
    check_same(alone, several, 1e-12, 1e-6)
    hardware = records(several)["SSD"]["hardware"]
    assert (hardware["devices"], hardware["strategy"], hardware["evaluated_as"]) == (2, "ddp", "ddp")
    costs = records(several)["SSD"]["metrics"]
    assert costs["time_s"] > 0
    assert costs["peak_memory_bytes"] > 0
    again = run_plan(load_plan(several.parent / "plan.yaml"))
    assert (again.reused, again.stages_done) == (3, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "evaluated"),
    [("fsdp", "fsdp"), ("deepspeed_stage_1", "ddp"), ("deepspeed_stage_2", "ddp"), ("deepspeed_stage_3", "fsdp")],
)
def test_other_strategies(run, strategy, evaluated):
    if strategy.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    alone = run("devices: 1")[1]
    summary, several = run(f"devices: 2, strategy: {strategy}", workers=1 if strategy == "fsdp" else 2)
    assert summary.exit_code == 0, summary.failed
    check_same(alone, several, 1e-5, 1e-4)
    hardware = records(several)["SSD"]["hardware"]
    assert (hardware["strategy"], hardware["evaluated_as"]) == (strategy, evaluated)


@pytest.mark.parametrize(
    ("rank", "how", "message"),
    [
        (1, "raise", "ArithmeticError: this rank has had enough"),
        pytest.param(0, "raise", "ArithmeticError: this rank has had enough", marks=pytest.mark.slow),
        pytest.param(1, "kill", "Rank 1 of 2 was killed by SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_a_failing_rank_fails_the_run_at_once(run, rank, how, message):
    model = f"{{class_path: plan_networks.Failing, init_args: {{rank: {rank}, how: {how}}}}}"
    started = time.monotonic()
    summary, folder = run("devices: 2, strategy: ddp", "Retrain", model)
    assert time.monotonic() - started < 200
    assert summary.exit_code == 1
    found = records(folder)
    assert {record["status"] for record in found.values()} == {"failed"}
    for record in found.values():
        assert message in record["error"]["message"]
    if how == "raise":
        assert f"Rank {rank} of 2 raised first" in found["Original"]["error"]["traceback"]


@pytest.mark.slow
def test_a_failing_rank_in_a_worker(run):
    summary, folder = run("devices: 2, strategy: ddp", "Retrain", "plan_networks.Failing", workers=2)
    assert summary.exit_code == 1
    assert "this rank has had enough" in records(folder)["Retrain"]["error"]["message"]
