"""What no plan refers to is found, with its size; what may be in use is never touched."""

import os
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from supreme.errors import ConfigError, OutputError
from supreme.experiment import garbage as module
from supreme.experiment.garbage import Garbage, Leftover
from supreme.experiment.lease import host_name
from supreme.experiment.plan import Plan
from supreme.experiment.scheduler import Summary, run_plan
from supreme.experiment.store import DROPPED_FILE, STAGE_FILE, Store

MakePlan = Callable[..., Plan]
SMALL = {"scenarios": "[{class_path: FullClass, targets: [3]}]", "seeds": "[1]"}
SLOW = "[FineTune, {class_path: SSD, init_args: {selection_weight: 5.0}}]"


@pytest.fixture(autouse=True)
def fake_plans(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans name the fake components."""
    original = module.load_plan
    monkeypatch.setattr(module, "load_plan", lambda path: original(path, package))


def run(plan: Plan) -> Summary:
    return run_plan(plan, "tiny_executor:execute")


def stages(plan: Plan) -> set[str]:
    return {path.name for path in (plan.output / "stages").glob("*/[!.]*")}


def keys(plan: Plan) -> set[str]:
    return {stage.key for one in plan.runs() for stage in one.stages()}


def remove(garbage: Garbage) -> list[bool]:
    return [went for _, went in garbage.remove(garbage.find())]


def test_a_finished_plan_leaves_nothing(make_plan: MakePlan) -> None:
    plan = make_plan(**SMALL)
    run(plan)
    assert Garbage(plan.output).find() == []


def test_what_changed_settings_left_is_found_and_goes(make_plan: MakePlan) -> None:
    before = make_plan(**SMALL)
    run(before)
    after = make_plan(**SMALL, methods=SLOW)
    run(after)
    stale = keys(before) - keys(after)
    found = Garbage(after.output).find()
    assert {leftover.key for leftover in found} == stale
    assert len(stale) == 2
    assert {leftover.reason for leftover in found} == {"other settings or code"}
    assert {leftover.label.partition(",")[0] for leftover in found} == {"SSD", "evaluate SSD"}
    for leftover in found:
        assert leftover.size_bytes == sum(file.stat().st_size for file in leftover.path.iterdir()) > 0
    records = set((after.output / "records").iterdir())
    assert remove(Garbage(after.output)) == [True, True]
    assert stages(after) == keys(after)
    assert set((after.output / "records").iterdir()) == records
    assert run(after).stages_done == 0
    assert not list((after.output / "stages").glob("*/.*"))
    assert [path.name for path in (after.output / "leases").iterdir() if path.name != ".clock"] == []


def test_every_plan_of_the_folder_counts(make_plan: MakePlan) -> None:
    run(make_plan(**SMALL))
    other = make_plan(**SMALL, name="other", methods=SLOW)
    run(other)
    assert Garbage(other.output).find() == []
    (other.output / "plans/tiny.yaml").unlink()
    (leftover,) = [one for one in Garbage(other.output).find() if one.path.parent.name == "unlearn"]
    assert leftover.label.startswith("SSD")


def test_a_target_that_is_not_asked_for_any_more(make_plan: MakePlan) -> None:
    run(make_plan(seeds="[1]"))
    plan = make_plan(**SMALL)
    run(plan)
    found = Garbage(plan.output).find()
    assert {leftover.reason for leftover in found} == {"of no plan"}
    assert len(found) == 3 + 1 + 4  # M_r and two M_u, outputs of M_r, evaluations of the other target


def folder_of(plan: Plan, host: str, pid: int, age_s: float = 0.0) -> Path:
    """A half-written folder."""
    stage = plan.runs()[0].stages()[0]
    digest = sha256(host.encode()).hexdigest()[:8]
    folder = plan.output / "stages/train" / f".{stage.key}.{digest}.{pid}.0123abcd"
    folder.mkdir(parents=True)
    (folder / "weights").write_text("half")
    os.utime(folder, (folder.stat().st_mtime - age_s,) * 2)
    return folder


def test_what_dead_processes_left_half_written(make_plan: MakePlan) -> None:
    plan = make_plan(**SMALL)
    run(plan)
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = folder_of(plan, host_name(), ended.pid)
    alive = folder_of(plan, host_name(), os.getpid())
    far, busy = folder_of(plan, "elsewhere", 1, age_s=1000), folder_of(plan, "elsewhere", 2)
    found = Garbage(plan.output).find()
    assert {leftover.path for leftover in found} == {dead, far}
    assert {leftover.reason for leftover in found} == {"half-written by a process that is dead"}
    assert {leftover.size_bytes for leftover in found} == {4}
    remove(Garbage(plan.output))
    assert [path.exists() for path in (dead, far, alive, busy)] == [False, False, True, True]


def test_weights_whose_removal_was_cut_short(make_plan: MakePlan) -> None:
    plan = make_plan(**SMALL)
    run(plan)
    store = Store(plan.output)
    stage = next(one.stage.inputs["unlearned"] for one in plan.runs() if one.method == "SSD")
    folder = store.path(stage)
    (folder / STAGE_FILE).rename(folder / DROPPED_FILE)
    (folder / "model.safetensors").write_text("weights")
    (leftover,) = Garbage(plan.output).find()
    assert (leftover.path, leftover.reason, leftover.size_bytes) == (
        folder / "model.safetensors",
        "dropped weights",
        7,
    )
    assert remove(Garbage(plan.output)) == [True]
    assert (folder / DROPPED_FILE).exists()


def test_what_is_in_use_stays(make_plan: MakePlan) -> None:
    run(make_plan(**SMALL))
    plan = make_plan(**SMALL, methods=SLOW)
    run(plan)
    garbage, store = Garbage(plan.output), Store(plan.output)
    found = garbage.find()
    lease = store.leases.acquire(found[0].key)  # somebody has taken it since
    assert [went for _, went in garbage.remove(found)] == [False, True]
    assert found[0].path.exists()
    with pytest.raises(ConfigError, match="on what no plan there refers to"):
        Garbage(plan.output).find()
    assert lease is not None
    lease.release()
    with store.claim(plan.runs()[0].stages()[0]):  # work on what the plan refers to is no hindrance
        assert [one.key for one in Garbage(plan.output).find()] == [found[0].key]


def test_a_plan_that_is_started_in_between_ends_it(make_plan: MakePlan) -> None:
    before = make_plan(**SMALL)
    run(before)
    run(make_plan(**SMALL, methods=SLOW))
    garbage = Garbage(before.output)
    found = garbage.find()
    run(make_plan(**SMALL))
    with pytest.raises(ConfigError, match="A plan was started here in the meantime"):
        list(garbage.remove(found))
    assert all(leftover.path.exists() for leftover in found)


def test_nothing_goes_where_a_plan_cannot_be_read(make_plan: MakePlan) -> None:
    plan = make_plan(**SMALL)
    run(plan)
    text = (plan.output / "plans/tiny.yaml").read_text()
    (plan.output / "plans/older.yaml").write_text(text.replace("FineTune", "GoneMethod"))
    with pytest.raises(ConfigError, match=r"Nothing is removed, as the plan '.*older\.yaml' cannot be read: Unknown"):
        Garbage(plan.output)


def test_folders_of_no_plan(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="No plan was ever run in"):
            Garbage(folder)


def test_a_plan_without_any_result_left_is_named(make_plan: MakePlan, package: Path) -> None:
    plan = make_plan(**SMALL)
    run(plan)
    assert Garbage(plan.output).stale == []
    path = package / "datasets/datasets.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    garbage = Garbage(plan.output)
    assert garbage.stale == ["tiny"]
    assert {leftover.key for leftover in garbage.find()} == stages(plan)


def test_what_cannot_be_removed_is_named(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(**SMALL)
    run(plan)
    leftover = Leftover(plan.output / "stages/train/x", "x", "x", "of no plan", 1)
    garbage = Garbage(plan.output)
    assert [went for _, went in garbage.remove([leftover])] == [True]  # gone already
    leftover.path.mkdir()

    def refuse(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(garbage.store, "remove", refuse)
    with pytest.raises(OutputError, match=r"Cannot remove '.*/stages/train/x': Permission denied"):
        list(garbage.remove([leftover]))
