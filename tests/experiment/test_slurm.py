"""Plans through SLURM: against a cluster of this machine where SLURM is installed, and by submitit's local executor."""

import importlib.util
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supreme.errors import ConfigError
from supreme.experiment import slurm, slurm_queue
from supreme.experiment.scheduler import run_plan
from supreme.experiment.slurm import SlurmSettings, submit
from supreme.experiment.slurm_queue import SlurmTask, tasks
from supreme.experiment.status import status
from supreme.experiment.store import Store

pytest.importorskip("submitit")
WORK = "slurm_work:execute"


def beside(name, folder=Path(__file__).parents[1]):
    spec = importlib.util.spec_from_file_location(f"supreme_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM cluster of one node with four cores."""
    found = beside("slurm_cluster")
    if found.missing():
        pytest.skip(f"SLURM is not installed here: no {', '.join(found.missing())}")
    with found.Cluster(tmp_path_factory.mktemp("cluster"), cpus=4) as running:
        yield running


@pytest.fixture
def here(make_plan, tmp_path, monkeypatch):
    """Tasks find the fake components and the executor above."""
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / "code", Path(__file__).parent, Path(__file__).parents[2]]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
    return make_plan


@pytest.fixture
def on_cluster(cluster, here, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield here
    cluster.command("scancel", "--name=supreme-tiny")


def counts(plan):
    report = status(plan.output, plan)
    return len(report.done), len(report.running), len(report.queued), len(report.failed)


def until(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


def calls(tmp_path):
    return [line.split() for line in (tmp_path / "calls").read_text().splitlines()]


def test_a_plan_on_a_cluster(on_cluster, tmp_path):
    """One task per run; each stage is computed once; what has a result or a task is not submitted again."""
    plan = on_cluster(methods="[FineTune, {class_path: SSD, init_args: {act: raise}}]", seeds="[1]")
    runs = plan.runs()
    assert len(runs) == 8
    (tmp_path / "wait-train").touch()
    first = submit(plan, runs, SlurmSettings(partition="test", time="5", max_concurrent=2), execute=WORK)
    assert len(first.submitted) == 8
    assert len(first.jobs) == 1
    until(lambda: counts(plan) == (0, 2, 6, 0))
    until((tmp_path / "calls").exists)
    assert "2 running, 6 waiting (array" in "\n".join(status(plan.output, plan).lines())
    again = submit(plan, runs, SlurmSettings(), execute=WORK)
    assert (again.submitted, len(again.waiting), again.jobs) == ((), 8, ())
    (tmp_path / "wait-train").unlink()
    until(lambda: counts(plan) == (6, 0, 0, 2))
    assert set(status(plan.output, plan).reasons.values()) == {
        f"'SSD, FullClass {target}, ResNet18 on Digits, seed 1' failed: ValueError: weights are not finite"
        for target in (3, 8)
    }
    keys = [key for key, *_ in calls(tmp_path)]
    assert len(set(keys)) == len(keys)
    assert len({task for *_, task, _ in calls(tmp_path)}) > 1
    assert len(list((plan.output / "records").glob("*.json"))) == 8
    until(lambda: not any(task.state == "running" for task in tasks(Store(plan.output)).values()))
    more = on_cluster(methods="[FineTune, SSD]", seeds="[1]")
    rest = submit(more, more.runs(), SlurmSettings(time="5"), execute=WORK)
    assert {run.method for run in rest.submitted} == {"SSD"}
    assert len(rest.done) == 6
    until(lambda: counts(more) == (8, 0, 0, 0))


def test_what_slurm_ends_is_failed_until_it_is_handed_in_again(on_cluster, tmp_path, cluster):
    plan = on_cluster(methods="[FineTune]", seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]")
    (tmp_path / "wait-train").touch()
    submit(plan, plan.runs(), SlurmSettings(max_concurrent=1), execute=WORK)
    until((tmp_path / "calls").exists)
    assert counts(plan) == (0, 1, 2, 0)
    cluster.command("scancel", "--name=supreme-tiny")
    until(lambda: counts(plan) == (0, 0, 0, 3))
    assert Store(plan.output).leases.active() == {}
    reason = next(iter(status(plan.output, plan).reasons.values()))
    assert reason.startswith("SLURM ended its task ")
    assert reason.endswith("start 'supreme run' again")
    assert len(submit(plan, plan.runs(), SlurmSettings(), execute=WORK).submitted) == 3
    (tmp_path / "wait-train").unlink()
    until(lambda: counts(plan) == (3, 0, 0, 0))


def test_a_task_that_is_preempted_goes_on_in_the_queue(on_cluster, tmp_path, cluster):
    plan = on_cluster(methods="[FineTune]", seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]")
    (tmp_path / "wait-unlearn").touch()
    only = [run for run in plan.runs() if run.method == "FineTune"]
    (job,) = submit(plan, only, SlurmSettings(), execute=WORK).jobs
    until(lambda: any(kind == "unlearn" for _, kind, *_ in calls(tmp_path)) if (tmp_path / "calls").exists() else False)
    cluster.command("scancel", "--signal=USR2", job)
    until(lambda: status(plan.output, plan).queued == tuple(only) or counts(plan)[2] == 3)
    assert Store(plan.output).leases.active() == {}
    assert [kind for _, kind, *_ in calls(tmp_path)].count("train") == 1
    (tmp_path / "wait-unlearn").unlink()
    until(lambda: counts(plan)[0] == 1)
    assert [kind for _, kind, *_ in calls(tmp_path)].count("train") == 1  # what was finished stays


def test_forced_stages_are_computed_again(on_cluster, tmp_path):
    plan = on_cluster(methods="[FineTune]", seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]")
    submit(plan, plan.runs(), SlurmSettings(), execute=WORK)
    until(lambda: counts(plan) == (3, 0, 0, 0))
    until(lambda: all(task.state == "gone" for task in tasks(Store(plan.output)).values()))
    forced = {run.stage for run in plan.runs()}
    assert len(submit(plan, plan.runs(), SlurmSettings(), forced, execute=WORK).submitted) == 3
    until(lambda: counts(plan) == (3, 0, 0, 0))
    kinds = [kind for _, kind, *_ in calls(tmp_path)]
    assert (kinds.count("evaluate"), kinds.count("train")) == (6, 1)


def test_what_slurm_refuses_leaves_nothing(on_cluster):
    plan = on_cluster(seeds="[1]")
    with pytest.raises(ConfigError, match=r"SLURM refused the tasks: .*partition name.*; correct the --slurm options"):
        submit(plan, plan.runs(), SlurmSettings(partition="nowhere"), execute=WORK)
    assert not plan.output.exists()


# --- without a cluster -----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(here, monkeypatch):
    """submitit's local executor in place of SLURM's, and what it was asked for."""
    import submitit

    given = {}

    def executor(folder):
        made = submitit.AutoExecutor(folder=folder, cluster="local")
        keep = made.update_parameters
        made.update_parameters = lambda **settings: (given.update(settings), keep(**settings))[1]
        return made

    monkeypatch.setattr(slurm, "_executor", executor)
    monkeypatch.setattr(slurm, "release", lambda _: None)  # these tasks are not held back
    monkeypatch.setattr(slurm_queue, "_states", lambda _: None)
    return given


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Programs in place of SLURM's, with an exit code each; gives the lines that they were called with."""
    folder = tmp_path / "programs"
    folder.mkdir()

    def make(**codes):
        for name, code in codes.items():
            script = folder / name
            script.write_text(
                f"#!/bin/sh\necho $(basename $0) $* >> {folder}/log\necho 'error: busy' >&2\nexit {code}\n"
            )
            script.chmod(0o755)
        return lambda: (folder / "log").read_text().splitlines() if (folder / "log").exists() else []

    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return make


def test_a_plan_through_submitit(asked, here, tmp_path):
    plan = here(methods="[FineTune]", seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]")
    settings = SlurmSettings(partition="gpu", account="me", time="2:00:00", gpus_per_node=1, max_concurrent=3)
    assert len(submit(plan, plan.runs(), settings, execute=WORK).submitted) == 3
    expected = {"timeout_min": 120, "nodes": 1, "cpus_per_task": 1, "gpus_per_node": 1, "slurm_partition": "gpu"}
    expected |= {"slurm_account": "me", "slurm_array_parallelism": 3, "name": "supreme-tiny"}
    expected["slurm_additional_parameters"] = {"hold": True}
    assert asked == expected
    until(lambda: counts(plan) == (3, 0, 0, 0))
    keys = [key for key, *_ in calls(tmp_path)]
    assert len(set(keys)) == len(keys) == 8
    assert submit(plan, plan.runs(), settings, execute=WORK).done == tuple(plan.runs())


@pytest.mark.parametrize(
    ("state", "shown"), [("waiting", 2), ("running", 1), ("gone", 3), ("unknown", 2)], ids=lambda value: str(value)
)
def test_status_by_the_queue(here, monkeypatch, state, shown):
    """Of three runs, one has a result; the second has a task; the third was never handed in."""
    plan = here(methods="[FineTune]", seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]")
    run = plan.runs()[1]
    store = Store(plan.output).open()
    task = SlurmTask("7_1", state, run.stage.key, Path("log"))
    monkeypatch.setattr("supreme.experiment.status.tasks", lambda _: {run.key: task})
    assert counts(plan)[shown] - (shown == 2) * 2 == 1
    other = SlurmTask("7_1", state, "of an earlier configuration", Path("log"))
    monkeypatch.setattr("supreme.experiment.status.tasks", lambda _: {run.key: other})
    assert counts(plan)[3] == 0
    assert store.plans() == []


def test_the_queue_is_read_from_squeue(tmp_path, monkeypatch):
    script = tmp_path / "squeue"
    script.write_text("#!/bin/sh\necho '7_0 RUNNING'\necho '7_1 PENDING'\necho '7_2 COMPLETING'\n")
    script.chmod(0o755)
    store = Store(tmp_path / "out").open()
    (store.root / "slurm").mkdir()
    slurm_queue.note(store, "tiny", {"a": ("7_0", "s"), "b": ("7_1", "s")})
    slurm_queue.note(store, "tiny", {"b": ("7_3", "s"), "c": ("7_2", "s")})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert {key: task.state for key, task in tasks(store).items()} == {"a": "running", "b": "gone", "c": "running"}
    script.write_text("#!/bin/sh\nexit 1\n")
    assert {task.state for task in tasks(store).values()} == {"unknown"}


def test_neighbours_in_the_array_wait_for_different_models(here):
    plan = here(seeds="[1, 2]")
    first = [run.training_seed for run in slurm._spread(plan.runs())]
    assert first[:6] == [1, 2] * 3
    assert sorted(first) == [1] * 8 + [2] * 8


def test_arrays_are_no_longer_than_slurm_allows(asked, here, monkeypatch):
    monkeypatch.setattr(slurm, "largest_array", lambda: 3)
    handed = []
    monkeypatch.setattr(slurm, "_hand_in", lambda executor, work: [_Job(f"{len(handed)}_{n}") for n in hand(work)])

    def hand(work):
        handed.append((len(work), asked.get("slurm_dependency")))
        return range(len(work))

    plan = here(seeds="[1]")
    (plan.output / "slurm").mkdir(parents=True)
    submission = submit(plan, plan.runs(), SlurmSettings(), execute=WORK)
    assert handed == [(3, None), (3, "afterany:1"), (2, "afterany:2")]
    assert submission.jobs == ("1", "2", "3")


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize(
    "error", [ConfigError("SLURM refused the tasks"), KeyboardInterrupt()], ids=["refused", "Ctrl-C"]
)
def test_an_array_in_the_queue_is_cancelled_if_the_next_one_is_not_handed_in(
    asked, here, commands, monkeypatch, error, fresh
):
    """Else its tasks would begin, and find that what they read has been removed."""
    called = commands(scancel=0, scontrol=0)
    plan = here(seeds="[1]")
    folder = plan.output / "slurm"
    left = [] if fresh else ["earlier.pkl"]
    if not fresh:
        folder.mkdir(parents=True)
        (folder / "earlier.pkl").touch()
    handed = []

    def hand_in(_executor, work):
        assert asked["slurm_additional_parameters"] == {"hold": True}
        if len(handed) == 2:
            raise error
        handed.append(len(work))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len(handed)}.pkl").touch()
        return [_Job(f"{len(handed)}_{n}") for n in range(len(work))]

    monkeypatch.setattr(slurm, "largest_array", lambda: 3)
    monkeypatch.setattr(slurm, "_hand_in", hand_in)
    with pytest.raises(type(error)):
        submit(plan, plan.runs(), SlurmSettings(), execute=WORK)
    assert called() == ["scancel 1 2"]
    assert plan.output.exists() != fresh
    assert [path.name for path in folder.glob("*")] == left


def test_what_cannot_be_cancelled_keeps_what_it_reads(asked, here, commands, monkeypatch):
    commands(scancel=1)
    plan = here(seeds="[1]")

    def hand_in(_executor, work):
        if (plan.output / "slurm" / "1.pkl").exists():
            raise ConfigError("no more")
        (plan.output / "slurm").mkdir(exist_ok=True)
        (plan.output / "slurm" / "1.pkl").touch()
        return [_Job(f"1_{n}") for n in range(len(work))]

    monkeypatch.setattr(slurm, "largest_array", lambda: 3)
    monkeypatch.setattr(slurm, "_hand_in", hand_in)
    with pytest.raises(ConfigError, match="did not cancel the arrays 1: busy; do it with 'scancel 1'"):
        submit(plan, plan.runs(), SlurmSettings(), execute=WORK)
    assert (plan.output / "slurm" / "1.pkl").exists()


def test_tasks_that_are_not_released_are_cancelled(commands):
    called = commands(scontrol=1, scancel=0)
    with pytest.raises(ConfigError, match="did not release the tasks: busy; they were cancelled, so start this again"):
        slurm_queue.release(["7", "8"])
    assert called() == ["scontrol release 7 8", "scancel 7 8"]


def test_a_task_may_be_cut_off_as_often_as_a_run_has_stages(commands, here, tmp_path):
    """submitit gives up after three times by default, and a run with M_r has more stages than that."""
    commands(sbatch=0, srun=0)
    plan = here(seeds="[1]")
    assert slurm._executor(tmp_path)._executor.max_num_timeout >= max(len(run.stages()) for run in plan.runs()) > 3


def test_a_rank_outlives_the_signal_of_a_preemption(tmp_path):
    """It is meant for the task, which ends its ranks itself."""
    script = """
import pickle, signal, sys, types
from pathlib import Path
from supreme.experiment import slurm_nodes
def execute_share(stage, settings):
    signal.raise_signal(signal.SIGUSR2)
    (Path(sys.argv[1]) / "done").touch()
sys.modules["supreme.experiment.launchers"] = types.SimpleNamespace(execute_share=execute_share)
slurm_nodes.work(Path(sys.argv[1]))
"""
    (tmp_path / "work.pkl").write_bytes(pickle.dumps((None, {})))
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=here, timeout=120, check=False)
    assert done.returncode == 0
    assert (tmp_path / "done").exists()


class _Job:
    def __init__(self, job_id):
        self.job_id = job_id


@pytest.mark.parametrize(
    ("trainer", "settings", "words"),
    [
        ("{num_nodes: 2, devices: 1}", {"nodes": 3}, ("--slurm.nodes 2", "3")),
        ("{num_nodes: 2, devices: auto}", {}, ("devices", "2 nodes")),
        ("{accelerator: cuda, devices: 4}", {"gpus_per_node": 2}, ("at least 4", "2")),
    ],
)
def test_settings_that_do_not_fit_the_plan(here, trainer, settings, words):
    plan = here(trainer=trainer)
    with pytest.raises(ConfigError) as error:
        submit(plan, plan.runs(), SlurmSettings(**settings))
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not plan.output.exists()


def test_devices_of_the_plan_are_asked_for(asked, here):
    for trainer, gpus, cores in (
        ("{accelerator: cuda, devices: 4}", 4, 1),
        ("{accelerator: cpu, devices: 2}", None, 2),
    ):
        plan = here(trainer=trainer)
        wanted = slurm._requested(plan, SlurmSettings())
        assert (wanted.get("gpus_per_node"), wanted["cpus_per_task"]) == (gpus, cores)


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"nodes": 0}, "nodes"), ({"gpus_per_node": -1}, "gpus"), ({"max_concurrent": 0}, "max"), ({"time": "x"}, "time")],
    ids=lambda value: str(value),
)
def test_settings_that_cannot_be(settings, word):
    with pytest.raises(ConfigError, match=word):
        SlurmSettings(**settings)


def test_without_submitit_or_sbatch(here, monkeypatch):
    plan = here(seeds="[1]")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="no 'sbatch'"):
        submit(plan, plan.runs(), SlurmSettings())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'supreme-lightning\[slurm\]'"):
        submit(plan, plan.runs(), SlurmSettings())
    assert not plan.output.exists()


def test_records_of_results_are_there_when_nothing_is_left(asked, here):
    """A task writes its record after its result; who comes in between writes it too."""
    plan = here(methods="[FineTune]", seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]")
    run_plan(plan, "tiny_executor:execute")
    for record in (plan.output / "records").glob("*.json"):
        record.unlink()
    assert len(submit(plan, plan.runs(), SlurmSettings(), execute=WORK).done) == 3
    assert len(list((plan.output / "records").glob("*.json"))) == 3
