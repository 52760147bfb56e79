"""The scheduler: every stage once, in order, whatever fails; several schedulers share the work."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import supreme
from supreme.errors import ConfigError, OutputError, UnknownNameError
from supreme.experiment.plan import Plan
from supreme.experiment.progress import Counts, PlainProgress, Progress, RichProgress, duration, progress_for
from supreme.experiment.scheduler import Summary, run_plan
from supreme.experiment.status import status
from supreme.experiment.store import Store

MakePlan = Callable[..., Plan]
Launch = Callable[..., "subprocess.Popen[str]"]
EXECUTE = "tiny_executor:execute"
STAGES = 2 + 12 + 6 + 16  # train, unlearn, outputs (M_o, M_r of each target), evaluate of the small plan
RUNS = 16


def ssd(act: str, seconds: float = 0.0) -> str:
    return f"[FineTune, {{class_path: SSD, init_args: {{act: {act}, seconds: {seconds}}}}}]"


def calls(plan: Plan) -> list[list[str]]:
    path = plan.output.parent / "calls"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def begun(plan: Plan) -> Counter[str]:
    return Counter(key for what, key, *_ in calls(plan) if what == "begin")


def records(plan: Plan) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted((plan.output / "records").glob("*.json"))]


def leases(plan: Plan) -> list[str]:
    return [path.name for path in (plan.output / "leases").iterdir() if not path.name.startswith(".")]


def unfinished(plan: Plan) -> list[Path]:
    return list((plan.output / "stages").rglob(".*"))


def run(plan: Plan, **options: object) -> Summary:
    return run_plan(plan, EXECUTE, **options)  # type: ignore[arg-type]


# --- the whole plan


@pytest.mark.parametrize("workers", [1, 2])
def test_every_stage_once_in_order_and_a_second_run_does_nothing(make_plan: MakePlan, workers: int) -> None:
    plan = make_plan()
    summary = run(plan, workers=workers)  # the executor asserts that its inputs are there
    assert (summary.runs, summary.done, summary.reused, summary.failed) == (RUNS, RUNS, 0, ())
    assert (summary.stages_done, summary.stages_reused, summary.exit_code) == (STAGES, 0, 0)
    assert len(begun(plan)) == STAGES
    assert set(begun(plan).values()) == {1}
    processes = {int(pid) for _, _, _, pid, _ in calls(plan)}
    assert len(processes) == workers
    assert (os.getpid() in processes) == (workers == 1)
    assert leases(plan) == unfinished(plan) == []

    seen: set[str] = set()
    for what, key, *_ in calls(plan):
        if what == "end":
            seen.add(key)
        else:
            stage = next(s for r in plan.runs() for s in r.stages() if s.key == key)
            assert {source.key for source in stage.inputs.values()} <= seen

    started = time.process_time()
    again = run(plan, workers=workers)
    assert time.process_time() - started < 1.0
    assert (again.done, again.reused, again.stages_done, again.stages_reused) == (0, RUNS, 0, STAGES)
    assert sum(begun(plan).values()) == STAGES


def test_records(make_plan: MakePlan) -> None:
    plan = make_plan()
    run(plan)
    found = {record["key"]: record for record in records(plan)}
    assert set(found) == {r.key for r in plan.runs()}
    chosen = next(r for r in plan.runs() if r.method == "SSD")
    record = found[chosen.key]
    assert record["run"] == chosen.identity
    assert (record["schema"], record["plan"], record["status"], record["error"]) == (1, "tiny", "done", None)
    assert record["metrics"] == {"forget/accuracy": 0.5}
    assert record["config"] == json.loads(json.dumps(chosen.config))
    assert record["config_hash"] == chosen.config_hash
    assert record["method_arguments"] == {}
    assert record["contended"] is False
    inputs = chosen.stage.inputs
    assert record["stages"] == {
        "train": inputs["unlearned"].inputs["original"].key,
        "retrain": inputs["retrained"].key,
        "unlearn": inputs["unlearned"].key,
        "evaluate": chosen.stage.key,
    }
    assert {"versions", "hardware", "started", "finished"} <= set(record)


def test_a_changed_setting_replaces_the_record(make_plan: MakePlan) -> None:
    run(make_plan())
    other = make_plan(methods="[FineTune, {class_path: SSD, init_args: {selection_weight: 5.0}}]")
    stale = [r for r in other.runs() if r.method == "SSD"]
    assert status(other.output, other).queued == tuple(stale)
    summary = run(other, only="method=SSD,seed=1")
    assert (summary.runs, summary.done, summary.stages_done) == (2, 2, 4)
    summary = run(other, only="seed=1")
    assert (summary.done, summary.reused) == (0, 8)
    assert len(records(other)) == RUNS  # those of seed 2 have not been looked at
    kept = [r for r in records(other) if r["method_arguments"] == {"selection_weight": 5.0}]
    assert len(kept) == 2
    run(other, only="method=FineTune")
    run(make_plan())  # back again: nothing to compute, records of the first configuration
    assert all(r["method_arguments"] == {} for r in records(other))
    assert len(records(other)) == RUNS
    assert sum(begun(other).values()) == STAGES + 4


EXECUTED = (
    "    def write(folder):\n",
    '    began = store.root.parent / f"seconds-{stage.key}"\n'
    "    began.write_text(str(float(began.read_text()) + 1 if began.exists() else 1.0))\n"
    '    source = stage.inputs.get("unlearned", stage)\n'
    '    seconds = float((store.root.parent / f"seconds-{source.key}").read_text())\n\n'
    "    def write(folder):\n",
)


def results(plan: Plan) -> dict[str, dict[str, object]]:
    """What the store says of every run, read without the code that makes records."""
    found = {}
    for r in plan.runs():
        folder = plan.output / "stages/evaluate" / r.stage.key
        said, about = (json.loads((folder / name).read_text()) for name in ("result.json", "stage.json"))
        found[r.key] = {**said, **{name: about[name] for name in ("versions", "hardware", "started", "finished")}}
    return found


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("force", ["stage=evaluate", "stage=unlearn", "stage=train,seed=2"])
def test_what_was_forced_is_what_the_records_say(make_plan: MakePlan, package: Path, force: str, workers: int) -> None:
    """The executor counts how often a model was made, and an evaluation says it as the model's time."""
    text = (package.parent / "tiny_executor.py").read_text().replace(*EXECUTED)
    text = text.replace('"metrics": {"forget/accuracy": 0.5}', '"metrics": {"time_s": seconds}')
    (package.parent / "counting_executor.py").write_text(text)
    plan = make_plan()

    def said() -> dict[str, dict[str, object]]:
        return {str(record["key"]): record for record in records(plan)}

    run_plan(plan, "counting_executor:execute", workers)
    before = said()
    assert {record["metrics"]["time_s"] for record in before.values()} == {1.0}  # type: ignore[index]
    run_plan(plan, "counting_executor:execute", workers, force=force)
    after = said()
    for key, result in results(plan).items():
        assert {name: after[key][name] for name in result} == result
    again = [r for r in plan.runs() if "seed" not in force or r.training_seed == 2]
    assert {key for key in after if after[key]["finished"] != before[key]["finished"]} == {r.key for r in again}
    remade = 2.0 if force != "stage=evaluate" else 1.0
    assert {after[r.key]["metrics"]["time_s"] for r in again if r.method == "SSD"} == {remade}  # type: ignore[index]


def test_a_record_that_says_what_the_store_says_is_left_alone(make_plan: MakePlan) -> None:
    plan = make_plan()
    run(plan)
    files = sorted((plan.output / "records").glob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in files]
    texts = [path.read_text() for path in files]
    files[3].write_text(texts[3].replace('"forget/accuracy": 0.5', '"forget/accuracy": 0.6'))
    files[5].write_text(texts[5][:100])
    run(plan)
    assert [path.read_text() for path in files] == texts
    for changed in (5, 3):
        del stamps[changed], files[changed]
    assert [path.stat().st_mtime_ns for path in files] == stamps


def test_records_name_the_plan_as_it_was_and_a_later_start_renews_that(make_plan: MakePlan) -> None:
    plan = make_plan()
    run(plan)
    assert {record["plan_hash"] for record in records(plan)} == {plan.hash}
    for path in (plan.output / "records").glob("*.json"):  # as records were made before there was a hash
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "plan_hash" not in line))
    assert all("plan_hash" not in record for record in records(plan))
    assert run(plan).stages_done == 0
    assert {record["plan_hash"] for record in records(plan)} == {plan.hash}

    longer = make_plan(seeds="[1, 2, 3]")
    assert longer.hash != plan.hash
    run(longer, only="seed=3")
    hashes = {record["run"]["training_seed"]: record["plan_hash"] for record in records(plan)}  # type: ignore[index]
    assert hashes == {1: plan.hash, 2: plan.hash, 3: longer.hash}
    assert run(longer).stages_done == 0
    assert {record["plan_hash"] for record in records(plan)} == {longer.hash}


def test_only_and_force(make_plan: MakePlan) -> None:
    plan = make_plan()
    summary = run(plan, only="method=SSD,training_seed=1,target=3")
    assert (summary.runs, summary.done, summary.stages_done) == (1, 1, 1 + 2 + 2 + 1)
    run(plan)
    assert set(begun(plan).values()) == {1}
    summary = run(plan, force="stage=evaluate")
    assert (summary.done, summary.stages_done) == (RUNS, RUNS)
    summary = run(plan, only="seed=2", force="stage=train")
    assert summary.stages_done == 1 + 4 + 1 + 8  # M_o; its M_u; its outputs; all evaluations of the seed
    assert len(records(plan)) == RUNS
    with pytest.raises(UnknownNameError, match="did you mean 'SSD'"):
        run(plan, only="method=SDD")


def test_a_plan_is_kept_beside_its_results(make_plan: MakePlan) -> None:
    plan = make_plan()
    run(plan)
    assert (plan.output / "plans/tiny.yaml").read_text().startswith("name: tiny")


def test_no_workers(make_plan: MakePlan) -> None:
    with pytest.raises(ConfigError, match="at least one worker, got 0"):
        run(make_plan(), workers=0)


def test_threads_and_gpus_are_set_in_workers(make_plan: MakePlan) -> None:
    plan = make_plan(threads="3", methods="[SSD]")
    run(plan, workers=2, gpus=["4", "5"])
    assert {gpu for *_, gpu in calls(plan)} == {"4", "5"}
    store = Store(plan.output)
    assert {store.description(s)["hardware"]["threads"] for r in plan.runs() for s in r.stages()} == {"3"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


# --- failures


@pytest.mark.parametrize(
    ("act", "kind", "text", "traced", "workers"),
    [
        ("raise", "ValueError", "ValueError: weights are not finite", True, 1),
        ("raise", "ValueError", "ValueError: weights are not finite", True, 2),
        ("refuse", "DataError", "Nothing to forget; choose another target.", True, 1),
        ("leave", "RuntimeError", "it asked Python to exit with code 3", False, 1),
        ("nothing", "SupremeError", "The executor returned without committing a result.", False, 1),
    ],
)
def test_a_failing_stage_blocks_its_runs_only(
    make_plan: MakePlan, act: str, kind: str, text: str, traced: bool, workers: int
) -> None:
    plan = make_plan(methods=ssd(act))
    summary = run(plan, workers=workers)
    assert (summary.done, len(summary.failed), summary.exit_code) == (RUNS - 4, 4, 1)
    assert {failed.run.method for failed in summary.failed} == {"SSD"}
    for failed in summary.failed:
        assert failed.stage.kind == "unlearn"
        assert failed.reason.startswith("'SSD, FullClass")
        assert text in failed.reason
        assert ("tiny_executor.py" in failed.traceback) == traced
    assert len(list((plan.output / "failures").iterdir())) == 4
    bad = [record for record in records(plan) if record["status"] == "failed"]
    assert len(bad) == 4
    assert all(record["metrics"] == {} and record["error"]["type"] == kind for record in bad)  # type: ignore[index]
    report = status(plan.output, plan)
    assert (len(report.done), len(report.failed), len(report.queued)) == (RUNS - 4, 4, 0)
    assert all(text in reason for reason in report.reasons.values())
    assert leases(plan) == []


def test_failed_stages_are_tried_again(make_plan: MakePlan) -> None:
    plan = make_plan(methods=ssd("once"))
    assert len(run(plan).failed) == 1
    summary = run(plan)
    assert (summary.done, summary.reused, summary.failed) == (1, RUNS - 1, ())
    assert list((plan.output / "failures").iterdir()) == []
    assert {record["status"] for record in records(plan)} == {"done"}


def test_a_failing_retrained_model_blocks_its_cell(make_plan: MakePlan, package: Path) -> None:
    executor = package.parent / "tiny_executor.py"
    text = executor.read_text()
    rule = (
        '    if "Retrain" in str(method_path(stage)) and stage.config["seed"] == 1:\n        raise RuntimeError("no")\n'
    )
    helper = '\ndef method_path(stage):\n    return stage.config.get("method", {}).get("class_path")\n'
    changed = text.replace('    note(store, "begin", stage)\n', rule + '    note(store, "begin", stage)\n', 1)
    (package.parent / "failing_executor.py").write_text(changed + helper)
    plan = make_plan()
    progress = Listener()
    summary = run_plan(plan, "failing_executor.execute", progress=progress)
    assert len(summary.failed) == 8
    assert {failed.run.training_seed for failed in summary.failed} == {1}
    assert progress.ends["failed"] == 2
    assert progress.ends["blocked"] == 8 + 2  # evaluations; outputs of M_r
    assert progress.last == Counts(RUNS, 8, 8, STAGES, 0, 0.0)


def test_a_killed_worker_fails_its_stage_and_is_replaced(make_plan: MakePlan) -> None:
    plan = make_plan(methods=ssd("die"))
    summary = run(plan, workers=2)
    assert (summary.done, len(summary.failed)) == (RUNS - 4, 4)
    assert "The worker process was killed by SIGKILL; often the machine is out of memory" in summary.failed[0].reason
    assert leases(plan) == unfinished(plan) == []
    assert {r["error"]["type"] for r in records(plan) if r["error"]} == {"WorkerDied"}  # type: ignore[index]


def test_what_workers_print_is_kept_in_files(make_plan: MakePlan, capfd: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(methods=ssd("say"))
    run(plan, workers=2)
    assert capfd.readouterr() == ("", "")
    texts = [path.read_text() for path in (plan.output / "logs").iterdir()]
    assert texts == ["said in python\nsaid by a child\n"] * 4


def test_an_executor_that_cannot_be_imported(make_plan: MakePlan) -> None:
    summary = run_plan(make_plan(methods="[SSD]", seeds="[1]"), "no_such_module_x.execute")
    assert summary.done == 0
    assert all("Module 'no_such_module_x' of" in failed.reason for failed in summary.failed)


@pytest.mark.parametrize("below", ["", "/out"])
def test_output_below_a_file(make_plan: MakePlan, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("text")
    plan = make_plan(output=f"{tmp_path}/file{below}")
    with pytest.raises(OutputError, match="choose another output"):
        run(plan)
    assert (tmp_path / "file").read_text() == "text"
    assert not (tmp_path / "calls").exists()


def test_an_output_that_breaks_on_the_way_fails_stages(make_plan: MakePlan) -> None:
    plan = make_plan()
    Store(plan.output).open()
    (plan.output / "stages/outputs").write_text("in the way")
    summary = run(plan)
    assert len(summary.failed) == RUNS
    assert "Cannot write" in summary.failed[0].reason


# --- interruptions and several schedulers


SCRIPT = """
    import sys
    from pathlib import Path
    from supreme.experiment.plan import load_plan
    from supreme.experiment.scheduler import run_plan

    if __name__ == "__main__":
        sys.path.insert(0, sys.argv[2])
        try:
            plan = load_plan(sys.argv[1], Path(sys.argv[2]) / "fake")
            summary = run_plan(plan, sys.argv[4], int(sys.argv[3]))
        except KeyboardInterrupt:
            sys.exit(130)
        print(summary.done, summary.reused, summary.stages_done, len(summary.failed))
        sys.exit(summary.exit_code)
    """


@pytest.fixture
def launch(package: Path, tmp_path: Path) -> Iterator[Launch]:
    """Start the small plan in a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    started: list[subprocess.Popen[str]] = []

    def start(workers: int, execute: str = EXECUTE) -> "subprocess.Popen[str]":
        words = tmp_path / "tiny.yaml", package.parent, workers, execute
        command = [sys.executable, str(script), *map(str, words)]
        paths = {**os.environ, "PYTHONPATH": str(Path(supreme.__file__).parents[1])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=paths, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=0)[1]


def sleeping(plan: Plan) -> bool:
    """Whether a method is in its long sleep."""
    open_calls = Counter(key for what, key, *_ in calls(plan) if what == "begin")
    open_calls.subtract(key for what, key, *_ in calls(plan) if what == "end")
    slow = {r.stage.inputs["unlearned"].key for r in plan.runs() if r.method == "SSD"}
    return any(open_calls[key] > 0 for key in slow)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_and_leaves_no_lease(
    make_plan: MakePlan, launch: Launch, workers: int, sent: signal.Signals
) -> None:
    plan = make_plan(methods=ssd("", seconds=60))
    process = launch(workers)
    wait_for(lambda: sleeping(plan))
    children = family(process)
    started = time.monotonic()
    os.killpg(process.pid, sent) if sent == signal.SIGINT else process.send_signal(sent)  # as a terminal and as kill
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - started < 40  # the method would sleep on for 60
    assert errors == ""
    wait_for(lambda: gone(children), 30)
    assert leases(plan) == unfinished(plan) == []
    assert list((plan.output / "failures").iterdir()) == []


def test_a_killed_scheduler_takes_its_workers_along_and_is_resumed(make_plan: MakePlan, launch: Launch) -> None:
    slow = make_plan(methods=ssd("", seconds=60))
    process = launch(2)
    wait_for(lambda: sleeping(slow) and len(family(process)) == 3)  # two workers and Python's resource tracker
    children = family(process)
    process.kill()
    process.wait()
    wait_for(lambda: gone(children))
    report = status(slow.output, slow)
    assert report.working == {}  # its leases are stale at once
    assert report.failed == ()
    done = {path.parent.name for path in (slow.output / "stages").glob("*/*/stage.json")}
    done = {name for name in done if not name.startswith(".")}  # a worker may have been killed while it wrote
    assert done
    finish = run(slow, only="method=FineTune")
    assert finish.failed == ()
    counts = begun(slow)
    assert all(counts[key] == 1 for key in done)
    assert leases(slow) == []
    assert status(slow.output, slow).working == {}


def test_what_fails_after_the_scheduler_is_gone_is_no_failure(
    make_plan: MakePlan, package: Path, launch: Launch
) -> None:
    """A worker lives a moment longer than its scheduler; what it meets then (no lease, no ranks) is not the stage's."""
    executor = package.parent / "tiny_executor.py"
    orphaned = """
    import multiprocessing

    def fail_when_orphaned(stage, store):
        if stage.kind == "unlearn":
            note(store, "begin", stage)
            multiprocessing.parent_process().join()
            assert store.leases.holder(stage.key) is not None
        execute(stage, store)
    """
    executor.write_text(executor.read_text() + textwrap.dedent(orphaned))
    plan = make_plan()
    process = launch(2, "tiny_executor:fail_when_orphaned")
    wait_for(lambda: sum(what == "begin" and kind == "unlearn" for what, _, kind, *_ in calls(plan)) == 2)
    children = family(process)
    process.kill()
    process.wait()
    wait_for(lambda: gone(children))
    assert status(plan.output, plan).failed == ()
    assert run(plan).failed == ()


def test_two_schedulers_share_the_work(make_plan: MakePlan, launch: Launch) -> None:
    plan = make_plan(methods="[{class_path: FineTune, init_args: {seconds: 0.1}}, SSD]")
    processes = [launch(1), launch(2)]
    answers = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert len(begun(plan)) == STAGES
    assert set(begun(plan).values()) == {1}
    stages_done = [int(out.split()[2]) for out, _ in answers]
    assert sum(stages_done) == STAGES
    assert min(stages_done) > 0
    assert len(records(plan)) == RUNS
    assert leases(plan) == []


def test_a_failure_elsewhere_is_not_repeated(make_plan: MakePlan, launch: Launch) -> None:
    plan = make_plan(
        methods=ssd("raise", seconds=0.4), seeds="[1]", scenarios="[{class_path: FullClass, targets: [3]}]"
    )
    processes = [launch(1), launch(1)]
    answers = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [1, 1], answers
    assert [out.split()[3] for out, _ in answers] == ["1", "1"]
    assert set(begun(plan).values()) == {1}


def test_a_stale_lease_does_not_hold_a_plan_up(make_plan: MakePlan) -> None:
    plan = make_plan()
    store = Store(plan.output).open()
    train = plan.runs()[0].stages()[0]
    lease = store.leases.acquire(train.key)
    assert lease is not None
    content = json.loads(lease.path.read_text())
    store.leases.drop(lease)
    lease.path.write_text(json.dumps({**content, "created": 1.0}))
    assert run(plan).done == RUNS
    assert leases(plan) == []


def test_lightnings_exit_on_ctrl_c_is_an_interrupt(make_plan: MakePlan) -> None:
    plan = make_plan(methods=ssd("lightning"))
    with pytest.raises(KeyboardInterrupt):
        run(plan)
    assert leases(plan) == []
    assert list((plan.output / "failures").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- progress


class Listener(Progress):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.workers: set[int] = set()
        self.begun: list[str] = []
        self.last: Counts | None = None
        self.stopped = False

    def stage_started(self, worker: int, label: str) -> None:
        self.begun.append(label)
        self.workers.add(worker)

    def stage_ended(self, worker, label, end, seconds, reason, counts) -> None:  # type: ignore[no-untyped-def]
        self.ends[end] += 1
        self.last = counts

    def stop(self) -> None:
        self.stopped = True


def test_progress_is_told_everything(make_plan: MakePlan) -> None:
    progress = Listener()
    run(make_plan(), workers=2, progress=progress)
    assert progress.ends == {"done": STAGES}
    assert progress.workers == {0, 1}
    assert len(progress.begun) == STAGES
    assert progress.begun[0].startswith("train ")
    assert progress.last == Counts(RUNS, RUNS, 0, STAGES, 0, 0.0)
    assert progress.stopped


def test_the_longest_chain_begins_first(make_plan: MakePlan) -> None:
    listener = Listener()
    plan = make_plan(methods="[{class_path: FineTune, init_args: {seconds: 0.05}}, SSD]", seeds="[1]")
    run(plan)
    run(plan, force="stage=unlearn", progress=listener)  # times are known now
    methods = [label.partition(",")[0] for label in listener.begun if label.partition(",")[0] in ("FineTune", "SSD")]
    assert methods[:2] == ["FineTune", "FineTune"]


def test_plain_progress_has_a_line_per_stage(make_plan: MakePlan) -> None:
    stream = io.StringIO()
    run(make_plan(methods=ssd("raise")), progress=PlainProgress(stream))
    text = stream.getvalue()
    assert not re.search(r"[^\x20-\x7e\n]", text)
    lines = text.splitlines()
    assert len(lines) == 1 + STAGES
    assert lines[0] == f"{RUNS} runs, 0 done already; {STAGES} stages to do with 1 worker"
    pattern = rf"\[1/{STAGES}\] done in \d\.\d s: train ResNet18 on Digits, seed 1 \({RUNS} runs left\)"
    assert re.fullmatch(pattern, lines[1])
    failed = [line for line in lines if "] failed in" in line]
    assert len(failed) == 4
    assert ": ValueError: weights are not finite (" in failed[0]
    assert sum("] blocked: evaluate SSD" in line for line in lines) == 4
    assert re.search(r"\(1 run left, about \d\.\d s to go\)$", lines[-2])
    assert lines[-1].startswith(f"[{STAGES}/{STAGES}] ")
    assert lines[-1].endswith("(0 runs left)")


def test_rich_progress_draws_on_a_terminal(make_plan: MakePlan) -> None:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=160)
    run(make_plan(methods=ssd("raise")), progress=RichProgress(console))
    text = stream.getvalue()
    assert "\x1b[" in text
    assert f"runs {RUNS - 4}/{RUNS} done, 4 failed" in text
    assert "failed: SSD, FullClass 3, ResNet18 on Digits, seed 1: ValueError: weights are not finite" in text


def test_progress_for_a_file_is_plain() -> None:
    assert isinstance(progress_for(io.StringIO()), PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 0 s"), (3599.7, "1 h 0 min"), (90061, "1 d 1 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
