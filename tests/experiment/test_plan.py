"""Plans: what is asked for becomes runs, and runs become stages that are shared where they can be."""

import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from supreme.errors import ConfigError, UnknownNameError
from supreme.experiment.plan import Plan, Run, load_plan
from supreme.experiment.seeds import Seeds, seed_grid
from supreme.experiment.selection import select, select_stages
from supreme.experiment.stage import Stage, digest

MakePlan = Callable[..., Plan]


def stages(runs: list[Run]) -> set[Stage]:
    return {stage for run in runs for stage in run.stages()}


def one(plan: Plan, **wanted: object) -> Run:
    (run,) = [run for run in plan.runs() if all(getattr(run, name) == value for name, value in wanted.items())]
    return run


# --- runs


def test_runs_are_the_product_and_hold_the_reference_rows(make_plan: MakePlan) -> None:
    plan = make_plan(models="[ResNet18, {class_path: ResNet18, init_args: {width: 32}, name: slim}]")
    runs = plan.runs()
    assert [method.label for method in plan.methods] == ["Original", "Retrain", "FineTune", "SSD"]
    assert len(runs) == 2 * 2 * 4 * 2  # models, targets, methods, seeds
    assert len({run.key for run in runs}) == len({run.stage for run in runs}) == len(runs)
    assert {(run.model, run.config["network"]["init_args"].get("width")) for run in runs} == {
        ("ResNet18", None),
        ("slim", 32),
    }
    run = one(plan, model="slim", target="8", method="SSD", training_seed=2)
    names = {"dataset": "Digits", "model": "slim", "scenario": "FullClass", "target": "8", "method": "SSD"}
    seeds = {"training_seed": 2, "unlearning_seed": 2, "evaluation_seed": 2, "draw_seed": None}
    assert run.identity == names | {"variant": ""} | seeds
    assert run.label == "SSD, FullClass 8, slim on Digits, seed 2"
    assert run.config["method"]["class_path"] == "fake.methods.methods.SSD"
    assert run.config["trainer"] == {"accelerator": "auto", "devices": 1, "strategy": "auto", "precision": "32-true"}


def test_stages_are_shared(make_plan: MakePlan) -> None:
    counts = Counter(stage.kind for stage in stages(make_plan().runs()))
    # 2 seeds; x 2 targets x (Retrain, FineTune, SSD); M_o, M_r of 2 targets; every run
    assert counts == {"train": 2, "unlearn": 12, "outputs": 2 + 4, "evaluate": 16}


def test_chain_of_a_run(make_plan: MakePlan) -> None:
    plan = make_plan()
    run = one(plan, target="3", method="SSD", training_seed=1)
    inputs = run.stage.inputs
    assert set(inputs) == {"unlearned", "retrained", "original_outputs", "retrained_outputs"}
    train = inputs["unlearned"].inputs["original"]
    assert train.kind == "train"
    assert inputs["original_outputs"].inputs == {"model": train}
    assert inputs["retrained_outputs"].inputs == {"model": inputs["retrained"]}
    assert inputs["retrained"].inputs == {}
    assert inputs["retrained"].config["method"]["class_path"].endswith(".Retrain")
    order = list(run.stages())
    assert order[-1] == run.stage
    assert all(order.index(source) < order.index(stage) for stage in order for source in stage.inputs.values())
    original = one(plan, target="3", method="Original", training_seed=1)
    assert original.stage.inputs["unlearned"] == train
    retrain = one(plan, target="3", method="Retrain", training_seed=1)
    assert retrain.stage.inputs["unlearned"] == retrain.stage.inputs["retrained"] == inputs["retrained"]


def test_targets_reach_the_scenario(make_plan: MakePlan) -> None:
    scenarios = """
        [{class_path: FullClass, targets: [cat, 3, [3, 8]]},
         {class_path: RandomSample, targets: [0.05]},
         {class_path: RandomSample, targets: [0.05], init_args: {draw_seed: 7}, name: fixed}]"""
    plan = make_plan(scenarios=" ".join(scenarios.split()), seeds="{training: [1], unlearning: 2}", methods="[SSD]")
    found = {(r.scenario, r.target): r.stage.config["scenario"]["init_args"] for r in plan.runs()}
    assert found["FullClass", "cat"] == {"forget": "cat"}
    assert found["FullClass", "3"] == {"forget": 3}
    assert found["FullClass", "3+8"] == {"forget": [3, 8]}
    draws = {r.unlearning_seed: r.stage.config["scenario"]["init_args"] for r in plan.runs() if r.target == "0.05"}
    drawn = [r for r in plan.runs() if r.scenario == "RandomSample"]
    assert {r.stage.config["scenario"]["init_args"]["draw_seed"] for r in drawn} == {1000, 1001}
    assert draws[1000] == {"draw_seed": 7, "fraction": 0.05}  # the last scenario listed: its draw is fixed
    assert len({r.config_hash for r in drawn if r.method == "SSD"}) == 1  # the seed is no configuration


def test_methods_that_need_a_class_are_left_out_of_random_scenarios(make_plan: MakePlan) -> None:
    scenarios = "[{class_path: FullClass, targets: [3]}, {class_path: RandomSample, targets: [0.1]}]"
    plan = make_plan(scenarios=scenarios, methods="[UNSIR]")
    assert {(run.scenario, run.method) for run in plan.runs() if run.method == "UNSIR"} == {("FullClass", "UNSIR")}
    (left_out,) = plan.not_applicable()
    assert (left_out.method, left_out.scenario) == ("UNSIR", "RandomSample")
    assert "class" in left_out.reason


def test_variants_tell_entries_of_one_method_apart(make_plan: MakePlan) -> None:
    plan = make_plan(methods="[FT, SSD, {class_path: SSD, init_args: {selection_weight: 5.0}, name: alpha 5}]")
    rows = {(r.method, r.variant, r.config["method"]["init_args"].get("selection_weight")) for r in plan.runs()}
    assert {("SSD", "", None), ("SSD", "alpha 5", 5.0), ("FineTune", "", None)} < rows


# --- keys


def changed(plan: Plan, other: Plan) -> set[str]:
    """Kinds of stages of ``plan`` that are not in ``other``."""
    return {stage.kind for stage in stages(plan.runs()) - stages(other.runs())}


@pytest.mark.parametrize(
    ("replacement", "kinds"),
    [
        ({"name": "other"}, set()),
        ({"output": "elsewhere"}, set()),
        ({"datasets": "[{class_path: Digits, init_args: {root: /data}, name: numerals}]"}, set()),
        ({"metrics": "{add: [MIA]}"}, {"evaluate"}),
        ({"methods": "[FineTune, {class_path: SSD, init_args: {selection_weight: 5}}]"}, {"unlearn", "evaluate"}),
        ({"evaluation": "{batch_size: 32}"}, {"outputs", "evaluate"}),
        ({"scenarios": "[{class_path: FullClass, targets: [3, 9]}]"}, {"unlearn", "outputs", "evaluate"}),
        ({"training": "{epochs: 3}"}, {"train", "unlearn", "outputs", "evaluate"}),
        ({"training": "{epochs: 2, augmentation: {flip: true}}"}, {"train", "unlearn", "outputs", "evaluate"}),
        ({"threads": "2"}, {"train", "unlearn", "outputs", "evaluate"}),
        ({"trainer": "{precision: 64-true}"}, {"train", "unlearn", "outputs", "evaluate"}),
        ({"fingerprints": "{Digits: abc}"}, {"train", "unlearn", "outputs", "evaluate"}),
    ],
)
def test_a_changed_setting_recomputes_just_what_it_touches(
    make_plan: MakePlan, replacement: dict[str, str], kinds: set[str]
) -> None:
    assert changed(make_plan(**replacement), make_plan()) == kinds


def test_changed_code_recomputes_what_it_touches(make_plan: MakePlan, package: Path) -> None:
    before = make_plan().runs()
    path = package / "metrics/metrics.py"
    plan = make_plan(metrics="[Accuracy]")
    named = plan.runs()
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    assert {s.kind for s in stages(plan.runs()) - stages(named)} == {"evaluate"}
    path = package / "methods/methods.py"
    path.write_text(path.read_text() + "\nEXTRA = 1\n")
    kinds = {s.kind for s in stages(make_plan().runs()) - stages(before)}
    assert kinds == {"unlearn", "outputs", "evaluate"}  # M_r changes, so its outputs do; M_o does not
    unchanged = stages(make_plan().runs()) & stages(before)
    assert Counter(stage.kind for stage in unchanged) == {"train": 2, "outputs": 2}


def test_fingerprints_pin_the_data(make_plan: MakePlan) -> None:
    plan = make_plan()
    pinned = plan.with_fingerprints({"Digits": "0123"})
    assert not stages(plan.runs()) & stages(pinned.runs())
    assert pinned.content["fingerprints"] == {"Digits": "0123"}
    assert {stage.config["dataset"]["fingerprint"] for stage in stages(pinned.runs())} == {"0123"}


def test_keys_are_canonical() -> None:
    assert digest({"a": 1.0, "b": [None, "ä"]}) == digest({"b": [None, "ä"], "a": 1.0})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert Stage("train", {"a": 1}, label="x").key == Stage("train", {"a": 1}, label="y").key
    assert Stage("train", {"a": 1}).key != Stage("unlearn", {"a": 1}).key


# --- seeds


def test_seed_grid() -> None:
    assert seed_grid([3, 4]) == [Seeds(3, 3, 3), Seeds(4, 4, 4)]
    grid = seed_grid([3, 4], 2, 3)
    assert len(grid) == len(set(grid)) == 12
    assert grid[4] == Seeds(3, 3001, 3001001)
    for bad in ([], [1, 1], [-1]):
        with pytest.raises(ConfigError, match="distinct training seeds"):
            seed_grid(bad)
    with pytest.raises(ConfigError, match="1 to 1000 unlearning"):
        seed_grid([1], 0)
    with pytest.raises(ConfigError, match="share a seed"):
        seed_grid([0], 2)
    with pytest.raises(ConfigError, match="share a seed"):
        seed_grid([1, 1000], 2)


def test_more_unlearning_seeds_share_the_original_model(make_plan: MakePlan) -> None:
    runs = make_plan(seeds="{training: [1], unlearning: 2, evaluation: 2}", methods="[SSD]").runs()
    counts = Counter(stage.kind for stage in stages(runs))
    # 2 targets x 2 unlearning seeds x (Retrain, SSD); outputs: M_o once, M_r each
    assert counts == {"train": 1, "unlearn": 8, "outputs": 1 + 4, "evaluate": 2 * 4 * 3}


# --- mistakes


@pytest.mark.parametrize(
    ("replacement", "text"),
    [
        ({"metods": "[SSD]"}, "'metods'; did you mean 'methods'"),
        ({"methods": "[LFSD]"}, "Unknown method 'LFSD'; did you mean 'SSD'"),
        ({"methods": "[{class_path: SSD, init_args: {selection_wieght: 5}}]"}, "did you mean 'selection_weight'"),
        ({"methods": "[{class_path: SSD, init_arg: {}}]"}, "did you mean 'init_args'"),
        ({"methods": "[{class_path: SSD, init_args: {seed: 5}}]"}, "Unknown key in init_args of SSD: 'seed'"),
        ({"methods": "[SSD, SSD]"}, r"'SSD' stands twice in methods; give each entry a 'name'"),
        ({"methods": "[{class_path: Retrain, init_args: {epochs: 3}}]"}, "Retrain takes no name and no init_args"),
        ({"methods": "[]"}, "at least one item in methods"),
        ({"methods": "SSD"}, "Expected a list"),
        ({"methods": "[3]"}, "Expected a mapping|Expected a class name"),
        ({"methods": "[no_such_pkg.Mine]"}, "Module 'no_such_pkg' of 'no_such_pkg.Mine' is not found"),
        ({"methods": "[fake.methods.methods.SDD]"}, "did you mean 'SSD'"),
        ({"models": "[ResNet18, ResNet18]"}, "stands twice in models"),
        ({"models": "[ResNet19]"}, "did you mean 'ResNet18'"),
        ({"datasets": "[Digit]"}, "did you mean 'Digits'"),
        ({"metrics": "[Acuracy]"}, "did you mean 'Accuracy'"),
        ({"metrics": "{ad: [MIA]}"}, "did you mean 'add'"),
        ({"scenarios": "[FullClass]"}, "targets of FullClass"),
        ({"scenarios": "[{class_path: FullClass, targets: [3, 3]}]"}, "'FullClass 3' stands twice"),
        ({"scenarios": "[{class_path: FullClass, targets: [0.5]}]"}, "a class name, a class index or a list"),
        ({"scenarios": "[{class_path: RandomSample, targets: [3]}]"}, r"a fraction inside \(0, 1\)"),
        ({"scenarios": "[{class_path: RandomSample, targets: [true]}]"}, r"a fraction inside \(0, 1\)"),
        ({"scenarios": "[{class_path: GivenSets, targets: [3]}]"}, "Unknown scenario 'GivenSets'"),
        ({"scenarios": "[{class_path: fake.scenarios.scenarios.GivenSets, targets: [3]}]"}, "cannot stand in a plan"),
        ({"scenarios": ""}, "has no key 'scenarios'"),
        ({"seeds": "{training: [1, 1]}"}, "list each seed once"),
        ({"seeds": "{trainig: [1]}"}, "did you mean 'training'"),
        ({"seeds": "[a]"}, "whole number >= 0 in seeds.training"),
        ({"threads": "0"}, "whole number >= 1 in threads"),
        ({"training": "{epochs: many}"}, "whole number >= 1 in training.epochs"),
        ({"training": "{learning_rate: 0.1, epochs: 1}"}, "key in training: 'learning_rate'"),
        ({"training": "{augmentation: {flipp: true}}"}, "key in training.augmentation: 'flipp'; did you mean 'flip'"),
        ({"trainer": "{precison: 32-true}"}, "did you mean 'precision'"),
        ({"evaluation": "{batchsize: 3}"}, "did you mean 'batch_size'"),
        ({"name": "a/b"}, "in the name of a plan, got 'a/b'"),
    ],
)
def test_mistakes_are_named(make_plan: MakePlan, replacement: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        make_plan(**replacement)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 1 is not valid YAML: key 'a' is given twice"),
        ("a: [1", "line 1 is not valid YAML"),
        ("- a", "Expected keys such as 'datasets'"),
        ("", "Expected keys such as 'datasets'"),
        ("name: 2020-01-01", "put other values in quotes"),
        ("name: !!python/object:os.system x", "not valid YAML"),
        (b"\xff\xfe\xff", "Cannot read the plan"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError, match=message):
        load_plan(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read the plan '.*none\.yaml': No such file"):
        load_plan(tmp_path / "none.yaml")


def test_numbers_are_read_as_people_write_them(make_plan: MakePlan) -> None:
    training = make_plan(training="{lr: 1e-3, weight_decay: 5E-4, momentum: .9, epochs: 10}").training
    assert training == {"lr": 1e-3, "weight_decay": 5e-4, "momentum": 0.9, "epochs": 10}
    assert isinstance(training["epochs"], int)


def test_defaults(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(name="", seeds="", output="")
    assert plan.name == "tiny"  # the file's
    assert plan.output == Path("runs/tiny")
    assert plan.seeds == (Seeds(0, 0, 0),)


# --- selections


def test_select(make_plan: MakePlan) -> None:
    runs = make_plan().runs()
    assert select(runs, "") == runs
    chosen = select(runs, "method=SSD|FineTune, seed=2")
    assert {(r.method, r.training_seed) for r in chosen} == {("SSD", 2), ("FineTune", 2)}
    assert select(runs, "method=SSD,method=FineTune,seed=2") == chosen
    for text, message in [
        ("method", "Expected pairs"),
        ("methods=SSD", "did you mean 'method'"),
        ("method=SDD", "did you mean 'SSD'"),
        ("seed=7", "Unknown seed in the selection: '7'; known: 1, 2"),
    ]:
        with pytest.raises(ConfigError, match=message):
            select(runs, text)


def test_select_stages_takes_what_follows(make_plan: MakePlan) -> None:
    runs = make_plan().runs()
    assert Counter(s.kind for s in select_stages(runs, "stage=evaluate")) == {"evaluate": 16}
    assert Counter(s.kind for s in select_stages(runs, "method=SSD,seed=1")) == {"unlearn": 2, "evaluate": 2}
    all_of_seed = {s for run in runs if run.training_seed == 1 for s in run.stages()}
    made = select_stages(runs, "stage=train,seed=1")
    left = Counter((s.kind, s.label.partition(",")[0]) for s in all_of_seed - made)
    assert left == {("unlearn", "Retrain"): 2, ("outputs", "outputs of M_r"): 2}  # M_r does not come from M_o
    assert made <= all_of_seed
    with pytest.raises(UnknownNameError, match="did you mean 'evaluate'"):
        select_stages(runs, "stage=evaluat")


# --- the shipped plan


QUICKSTART = Path(__file__).parents[2] / "configs/quickstart.yaml"


def test_quickstart_asks_for_what_it_should() -> None:
    plan = load_plan(QUICKSTART)
    assert (plan.name, plan.output) == ("quickstart", Path("runs/quickstart"))
    assert [seeds.training for seeds in plan.seeds] == [260, 261, 262]
    assert plan.models[0].init_args["width"] >= 32
    methods = ["Original", "Retrain", "FineTune", "BadTeacher", "RandomLabels", "UNSIR", "SSD", "LFSSD"]
    assert [method.name for method in plan.methods] == methods
    assert len(plan.runs()) == 2 * 3 * 8 + 3 * 7
    assert [item.method for item in plan.not_applicable()] == ["UNSIR"]


def test_reading_a_plan_imports_no_torch() -> None:
    code = f"""
        import sys
        from supreme.experiment.plan import load_plan
        import supreme.experiment.scheduler, supreme.experiment.status, supreme.experiment.progress
        runs = load_plan({str(QUICKSTART)!r}).runs()
        assert len({{stage for run in runs for stage in run.stages()}}) > len(runs)
        assert not {{"torch", "lightning", "pandas", "numpy"}} & set(sys.modules)
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=200)
