"""The preview of a plan: runs, stages, what is shared, what is done, and how long the rest takes."""

import itertools
import json
import random
from collections.abc import Callable

import pytest

from supreme.experiment.costs import Costs
from supreme.experiment.plan import Plan
from supreme.experiment.preview import makespan, preview
from supreme.experiment.scheduler import run_plan
from supreme.experiment.selection import select_stages
from supreme.experiment.stage import Stage
from supreme.experiment.store import STAGE_FILE, Store

MakePlan = Callable[..., Plan]


def rows(plan: Plan, **options: object) -> dict[str, tuple[int, int, int, int]]:
    found = preview(plan, plan.runs(), **options)  # type: ignore[arg-type]
    return {kind: (row.stages, row.done, row.due, row.shared) for kind, row in found.kinds.items()}


def take(plan: Plan, seconds: dict[str, float]) -> None:
    """Have the finished stages of a kind taken so long."""
    for path in (plan.output / "stages").glob(f"*/*/{STAGE_FILE}"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "seconds": seconds[content["kind"]]}))


def test_stages_are_counted_by_kind(make_plan: MakePlan) -> None:
    plan = make_plan()  # 2 seeds x 2 targets x (Original, Retrain, FineTune, SSD)
    assert rows(plan) == {
        "train": (2, 0, 2, 2),
        "unlearn": (12, 0, 12, 4),  # M_r serves all methods of its target
        "outputs": (6, 0, 6, 6),
        "evaluate": (16, 0, 16, 0),
    }
    assert not plan.output.exists()
    run_plan(plan, "tiny_executor:execute", only="seed=1")
    expected = {"train": (2, 1, 1, 2), "unlearn": (12, 6, 6, 4), "outputs": (6, 3, 3, 6), "evaluate": (16, 8, 8, 0)}
    assert rows(plan) == expected
    forced = select_stages(plan.runs(), "stage=evaluate,method=SSD")
    assert rows(plan, forced=forced)["evaluate"] == (16, 6, 10, 0)
    states = preview(plan, plan.runs(), forced).states
    assert {state for run, state in states.items() if run.method == "SSD"} == {"queued"}
    assert {state for run, state in states.items() if run.method != "SSD"} == {"queued", "done"}


def test_a_part_of_a_plan_shares_less(make_plan: MakePlan) -> None:
    plan = make_plan()
    chosen = [run for run in plan.runs() if (run.method, run.training_seed, run.target) == ("SSD", 1, "3")]
    found = preview(plan, chosen)
    assert found.shared == {}
    assert [row.due for row in found.kinds.values()] == [1, 2, 2, 1]


def test_the_time_comes_from_earlier_stages(make_plan: MakePlan) -> None:
    plan = make_plan()
    run_plan(plan, "tiny_executor:execute", only="seed=1")
    take(plan, {"train": 100.0, "unlearn": 20.0, "outputs": 3.0, "evaluate": 0.5})
    found = preview(plan, plan.runs(), workers=1)
    assert {kind: row.seconds for kind, row in found.kinds.items()} == {
        "train": 100.0,
        "unlearn": 6 * 20.0,
        "outputs": 3 * 3.0,
        "evaluate": 8 * 0.5,
    }
    assert found.seconds == pytest.approx(100 + 120 + 9 + 4)
    many = preview(plan, plan.runs(), workers=100).seconds
    assert many == pytest.approx(100 + 20 + 3 + 0.5 - 3)  # M_o, then M_u beside the outputs of M_o, then metrics
    lines = list(found.lines())
    assert sum(line.startswith("queued ") for line in lines) == 8
    assert sum(line.startswith("done ") for line in lines) == 8
    assert "shared   train ResNet18 on Digits, seed 2: 8 runs" in lines
    assert sum(line.startswith("shared ") for line in lines) == 2 + 4 + 6
    assert lines[-1].split() == [
        "in",
        "all",
        "36",
        "18",
        "18",
        "12",
        "about",
        "3",
        "min",
        "53",
        "s",
        "with",
        "1",
        "worker",
    ]
    run_plan(plan, "tiny_executor:execute")
    done = list(preview(plan, plan.runs()).lines())
    assert " ".join(done[-1].split()) == "in all 36 36 0 12 -"


def test_without_earlier_stages_the_time_is_unknown(make_plan: MakePlan) -> None:
    plan = make_plan()
    assert preview(plan, plan.runs()).seconds is None
    assert list(preview(plan, plan.runs()).lines())[-1].startswith("The time is not known: nothing of the kind")


def test_other_settings_and_other_plans_lend_their_times(make_plan: MakePlan, tmp_path) -> None:  # type: ignore[no-untyped-def]
    plan = make_plan()
    run_plan(plan, "tiny_executor:execute", only="seed=1")
    take(plan, {"train": 8.0, "unlearn": 4.0, "outputs": 2.0, "evaluate": 1.0})
    (tmp_path / "out/stages/train/broken").mkdir()
    (tmp_path / "out/stages/train/broken/stage.json").write_text("{")
    changed = make_plan(threads="2")
    assert Store(changed.output).having(s for r in changed.runs() for s in r.stages()) == set()
    assert preview(changed, changed.runs()).kinds["train"].seconds == 16.0
    beside = make_plan(output=str(tmp_path / "elsewhere"))
    assert preview(beside, beside.runs()).kinds["evaluate"].seconds == 16.0
    longer = make_plan(output=str(tmp_path / "elsewhere"), training="{epochs: 50}")
    assert {s.group for r in longer.runs() for s in r.stages() if s.kind == "train"} == {
        "train Digits ResNet18 50 epochs"
    }
    assert preview(longer, longer.runs()).kinds["train"].seconds == 16.0  # no such group yet: that of the kind


def brute_force(seconds: dict[Stage, float], workers: int) -> float:
    """The shortest time over all orders in which idle workers could take ready stages."""
    best = float("inf")
    for order in itertools.permutations(seconds):
        end: dict[Stage, float] = {}
        free = [0.0] * workers
        for stage in order:
            if any(source not in end for source in stage.inputs.values()):
                break
            free.sort()
            ready = max([0.0, *(end[source] for source in stage.inputs.values())])
            end[stage] = max(free[0], ready) + seconds[stage]
            free[0] = end[stage]
        else:
            best = min(best, max(end.values()))
    return best


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_makespan_lies_between_the_best_order_and_the_bound_of_list_scheduling(workers: int) -> None:
    """Graham 1969: no list schedule takes more than 2 - 1/workers times the best one."""
    draw = random.Random(0)
    for _ in range(15):
        stages: list[Stage] = []
        for number in range(6):
            sources = draw.sample(stages, min(len(stages), draw.randrange(3)))
            stages.append(Stage("unlearn", {"n": number}, {str(i): s for i, s in enumerate(sources)}))
        seconds = {stage: float(draw.randrange(1, 9)) for stage in stages}
        best, found = brute_force(seconds, workers), makespan(seconds, workers)
        assert best <= found <= (2 - 1 / workers) * best
        if workers == 1:
            assert found == sum(seconds.values())


def test_costs_prefer_what_the_plan_itself_took(make_plan: MakePlan) -> None:
    plan = make_plan()
    run_plan(plan, "tiny_executor:execute", only="seed=1")
    take(plan, {"train": 8.0, "unlearn": 4.0, "outputs": 2.0, "evaluate": 1.0})
    costs, train = Costs(), plan.runs()[0].stages()[0]
    assert costs.known(train) is None
    costs.observe(train, 3.0)
    costs.borrow(plan.output, [train])
    assert costs.known(train) == 3.0
