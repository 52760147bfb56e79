"""Seeds of a study: none serves twice, the forget draw has its own, and evaluation seeds repeat nothing."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from supreme.batch import PARTS
from supreme.errors import ConfigError
from supreme.experiment import run as executor
from supreme.experiment.plan import Plan, Run, load_plan
from supreme.experiment.record import publish
from supreme.experiment.run import OUTPUTS
from supreme.experiment.scheduler import run_plan
from supreme.experiment.seeds import Seeds, seed_grid
from supreme.experiment.selection import select
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store

MakePlan = Callable[..., Plan]
RANDOM = "[{class_path: FullClass, targets: [3]}, {class_path: RandomSample, targets: [0.1]}]"


def draws(runs: list[Run], **wanted: object) -> set[int | None]:
    chosen = [run for run in runs if all(getattr(run, name) == value for name, value in wanted.items())]
    return {run.draw_seed for run in chosen}


def stages(runs: list[Run], kind: str) -> set[str]:
    return {stage.key for run in runs for stage in run.stages() if stage.kind == kind}


# --- independence


@pytest.mark.parametrize(
    ("training", "unlearning", "evaluation", "text"),
    [
        ([0], 2, 1, "0 is a training seed and an unlearning seed"),
        ([1, 1000], 2, 1, "1000 is a training seed and an unlearning seed"),
        ([2, 2000003], 1, 5, "2000003 is a training seed and an evaluation seed"),
    ],
)
def test_a_collision_is_named(training: list[int], unlearning: int, evaluation: int, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        seed_grid(training, unlearning, evaluation)
    assert text in str(caught.value)
    assert "choose other training seeds, such as 260." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_number_serves_twice() -> None:
    grid = seed_grid([260, 261, 262], 7, 5)
    by_kind = [set(kind) for kind in zip(*grid, strict=True)]
    assert [len(kind) for kind in by_kind] == [3, 3 * 7, 3 * 7 * 5]
    assert len(set().union(*by_kind)) == 3 + 3 * 7 + 3 * 7 * 5
    assert {seeds.first.evaluation for seeds in grid} == {1000 * seeds.unlearning for seeds in grid}
    assert Seeds(4, 4, 4).first == Seeds(4, 4, 4)


# --- the forget draw


def test_the_draw_follows_the_unlearning_seed_unless_told_otherwise(make_plan: MakePlan) -> None:
    runs = make_plan(scenarios=RANDOM, seeds="[1, 2]").runs()
    assert draws(runs, scenario="FullClass") == {None}
    assert draws(runs, scenario="RandomSample", training_seed=2) == {2}


def test_a_fixed_draw_is_one_for_all_seeds(make_plan: MakePlan) -> None:
    fixed = "[{class_path: RandomSample, targets: [0.1], init_args: {draw_seed: 7}}]"
    listed = "[{class_path: RandomSample, targets: [0.1]}]"
    runs = make_plan(scenarios=fixed, seeds="[1, 2]").runs()
    same = make_plan(scenarios=listed, seeds="{training: [1, 2], draw: [7]}").runs()
    for found in (runs, same):
        assert draws(found) == {7}
        assert {r.stage.config["scenario"]["init_args"]["draw_seed"] for r in found} == {7}
    assert stages(runs, "unlearn") == stages(same, "unlearn")


def test_draws_are_crossed_with_all_other_seeds(make_plan: MakePlan) -> None:
    plan = make_plan(scenarios=RANDOM, seeds="{training: [1, 2], unlearning: 2, draw: [7, 8, 9]}")
    runs = plan.runs()
    random = [run for run in runs if run.scenario == "RandomSample"]
    seeds = {(run.training_seed, run.unlearning_seed, run.draw_seed) for run in random}
    assert seeds == {(t, 1000 * t + j, draw) for t in (1, 2) for j in (0, 1) for draw in (7, 8, 9)}
    assert len(random) == len({run.key for run in random}) == 2 * 2 * 3 * 4
    assert len([run for run in runs if run.scenario == "FullClass"]) == 2 * 2 * 4
    assert len(stages(random, "train")) == 2  # M_o knows nothing of the draw
    counts = Counter(
        stage.config["method"]["class_path"].rpartition(".")[2]
        for run in random
        for stage in {s for s in run.stages() if s.kind == "unlearn"}
        if stage == run.stage.inputs["unlearned"]
    )
    assert counts == {"Retrain": 12, "FineTune": 12, "SSD": 12}
    assert len(stages(random, "unlearn")) == 2 * 2 * 3 * 3  # M_r and M_u are of one draw each
    assert len({run.config_hash for run in random if run.method == "SSD"}) == 1
    assert {run.label for run in random if run.training_seed == 1} >= {
        "SSD, RandomSample 0.1 draw 8, ResNet18 on Digits, seeds 1/1001/1001000"
    }
    assert draws(select(runs, "draw_seed=8|9,method=SSD")) == {8, 9}


def test_records_tell_the_draw(make_plan: MakePlan) -> None:
    plan = make_plan(scenarios=RANDOM, seeds="{training: [1], draw: [7, 8]}", methods="[SSD]")
    summary = run_plan(plan, "tiny_executor:execute")
    assert (summary.done, summary.failed) == (3 + 2 * 3, ())
    found = [json.loads(path.read_text()) for path in (plan.output / "records").iterdir()]
    told = Counter((record["run"]["scenario"], record["run"]["draw_seed"]) for record in found)
    assert told == {("FullClass", None): 3, ("RandomSample", 7): 3, ("RandomSample", 8): 3}
    assert {record["config"]["seeds"]["draw"] for record in found} == {None, 7, 8}
    assert run_plan(plan, "tiny_executor:execute").stages_done == 0


@pytest.mark.parametrize(
    ("seeds", "scenarios", "text"),
    [
        ("{draw: 3}", RANDOM, "Expected a list under seeds.draw, such as [1] for one draw in all runs, got 3"),
        ("{draw: []}", RANDOM, "at least one item in seeds.draw"),
        ("{draw: [1, 1]}", RANDOM, "list each seed once"),
        ("{draw: [-1]}", RANDOM, "whole number >= 0 in seeds.draw"),
        ("{draw: [1]}", "[{class_path: FullClass, targets: [3]}]", "No scenario of the plan draws samples"),
        ("{drow: [1]}", RANDOM, "did you mean 'draw'"),
    ],
)
def test_wrong_draws(make_plan: MakePlan, seeds: str, scenarios: str, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        make_plan(seeds=seeds, scenarios=scenarios)


# --- evaluation seeds


def test_further_evaluation_seeds_read_the_result_of_the_first(make_plan: MakePlan) -> None:
    runs = make_plan(seeds="{training: [1], evaluation: 3}", methods="[SSD]").runs()
    ssd = [run for run in runs if run.method == "SSD" and run.target == "3"]
    first, *rest = ssd
    assert "first" not in first.stage.inputs
    assert [run.evaluation_seed for run in ssd] == [1000000, 1000001, 1000002]
    assert all(run.stage.inputs["first"] == first.stage for run in rest)
    assert all(run.stage.inputs["unlearned"] == first.stage.inputs["unlearned"] for run in rest)
    assert rest[0].stage.group == f"{first.stage.group} again"


PLAN = {
    "name": "several",
    "datasets": [{"class_path": "Digits", "init_args": {"test_fraction": 0.5}}],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "training": {"epochs": 1, "lr": 0.01},
    "scenarios": [{"class_path": "FullClass", "targets": [3]}],
    "methods": ["SSD"],
    "seeds": {"training": [5], "evaluation": 2},
    "trainer": {"accelerator": "cpu"},
}


@pytest.mark.parametrize("method", ["Original", "Retrain"])
def test_rows_of_original_and_retrained_forward_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Their logits on every image are those that the outputs stage has kept."""
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "output": str(tmp_path / "out")}))
    plan = load_plan(tmp_path / "plan.yaml")
    run = next(run for run in plan.runs() if run.method == method)
    store = Store(plan.output).open()
    for stage in run.stages():
        if stage.kind != "evaluate":
            executor.execute(stage, store)
    real, passes = executor.load_model, []

    def counted(path, **given):  # type: ignore[no-untyped-def]
        network, about = real(path, **given)
        network.register_forward_pre_hook(lambda *_: passes.append(path))
        return network, about

    monkeypatch.setattr(executor, "load_model", counted)
    executor.execute(run.stage, store)
    assert passes == []
    result = store.result(run.stage)
    kept = load_file(store.path(run.stage) / OUTPUTS)
    assert torch.bincount(kept["part"]).tolist() == [result["scenario_sizes"][part] for part in PARTS]
    role = {"Original": "original_outputs", "Retrain": "retrained_outputs"}[method]
    source = load_file(store.path(run.stage.inputs[role]) / OUTPUTS)
    if method == "Original":  # its outputs know of no request
        of_train = source["part"] == PARTS.index("retain_train")
        halves = [{name: rows[half] for name, rows in source.items()} for half in (of_train, ~of_train)]
        for half in halves:
            assert torch.equal(half["index"], torch.arange(len(half["index"])))
        sets = json.loads((store.path(run.stage) / "splits.json").read_text())["sets"]
        pairs = [(halves[part.endswith("test")], torch.tensor(sets[part])) for part in PARTS]
        source = {name: torch.cat([half[name][index] for half, index in pairs]) for name in ("logits", "target")}
    assert all(torch.equal(kept[name], source[name]) for name in source)
    own = {"Original": "forget/zrf_original", "Retrain": "forget/zrf_retrained"}[method]
    assert result["metrics"]["forget/zrf"] == result["metrics"][own]


def test_a_further_seed_forwards_nothing_and_gives_the_values_of_a_whole_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every metric as a full evaluation with that seed gives it; only the attack's folds differ from the first."""
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**PLAN, "output": str(tmp_path / "out")}))
    plan = load_plan(tmp_path / "plan.yaml")
    first, second = (run for run in plan.runs() if run.method == "SSD")
    store = Store(plan.output).open()
    for stage in first.stages():
        executor.execute(stage, store)

    inputs = {role: source for role, source in second.stage.inputs.items() if role != "first"}
    whole = Stage("evaluate", second.stage.config, inputs)
    executor.execute(whole, store)
    expected = store.result(whole)["metrics"]

    real, loaded = executor.load_model, []

    def barred(path, **given):  # type: ignore[no-untyped-def]
        network, about = real(path, **given)
        network.register_forward_pre_hook(lambda *_: pytest.fail("a model was forwarded"))
        loaded.append(path)
        return network, about

    monkeypatch.setattr(executor, "load_model", barred)
    executor.execute(second.stage, store)
    assert loaded
    values = store.result(second.stage)["metrics"]
    before = store.result(first.stage)["metrics"]
    assert values == expected
    differing = {name for name in values if values[name] != before[name]}
    assert differing <= {"mia_auc", "mia_auc_gap"}
    assert "mia_auc" in differing
    logits = [(store.path(run.stage) / OUTPUTS).read_bytes() for run in (first, second)]
    assert logits[0] == logits[1]
    publish(store, second)
    record = json.loads((store.root / "records" / f"{second.key}.json").read_text())
    assert record["run"]["evaluation_seed"] == 5000001
    assert record["scenario_sizes"]["forget_train"] > 0


def test_only_metrics_that_take_a_seed_are_computed_again() -> None:
    from supreme.metrics.suite import default_metrics

    draw = {metric.key for metric in default_metrics(3) if "seed" in inspect.signature(type(metric)).parameters}
    assert draw == {"mia"}
