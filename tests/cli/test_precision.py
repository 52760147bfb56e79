"""Precisions on the command line: every name is known to every command; what cannot be is said in one sentence."""

import pytest

from supreme.precision import PRECISIONS

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
WORK_HERE = ("64-true", "32-true", "bf16-mixed", "16-true", "bf16-true")
REFUSED_HERE = [name for name in PRECISIONS if name not in WORK_HERE]
PLAN = """
name: small
datasets: [Digits]
models: [{{class_path: ResNet18, init_args: {{width: 8}}}}]
training: {{epochs: 1, lr: 0.01}}
scenarios: [{{class_path: FullClass, targets: [3]}}]
methods: [SSD, FineTune]
trainer: {{accelerator: cpu, precision: {precision}, strategy: {strategy}}}
"""


@pytest.fixture
def plan(inside):
    def write(precision, strategy="auto"):
        (inside / "small.yaml").write_text(PLAN.format(precision=precision, strategy=strategy))
        return "small.yaml"

    return write


@pytest.mark.parametrize("name", WORK_HERE)
def test_what_works(supreme, name):
    trial = ("--trainer.fast_dev_run=true", f"--trainer.precision={name}", "--network.width=8", *QUIET)
    assert supreme("fit", *trial).code == 0
    assert supreme("unlearn", "--method=SSD", *trial).code == 0


def test_a_model_is_evaluated_in_another_precision(supreme, unlearned, retrained, inside):
    words = ("evaluate", "--unlearned", unlearned, "--retrained", retrained, "--metrics", "Accuracy", *QUIET)
    shown = [supreme(*words, f"--trainer.precision={name}", "--output=here.json") for name in ("32-true", "bf16-true")]
    assert [result.code for result in shown] == [0, 0], shown
    assert shown[0].out.splitlines()[0] == shown[1].out.splitlines()[0]


@pytest.mark.parametrize("name", REFUSED_HERE)
@pytest.mark.parametrize("command", ["fit", "unlearn"])
def test_what_is_refused(supreme, refused, command, name):
    words = ("--method=FineTune",) if command == "unlearn" else ()
    refused(supreme(command, *words, f"--trainer.precision={name}", *QUIET), name)


def test_evaluation_refuses_too(supreme, unlearned, inside):
    result = supreme("evaluate", "--unlearned", unlearned, "--trainer.precision=nf4", "--output=here.json", *QUIET)
    assert result.code == 2
    assert "nf4 needs a CUDA GPU" in result.err
    assert len(result.err.splitlines()) == 1
    assert list(inside.iterdir()) == []


def test_a_slip_names_what_is_near(supreme, refused):
    refused(supreme("unlearn", "--method=SSD", "--trainer.precision=bf16mixed", *QUIET), "'bf16mixed'", "'bf16-mixed'")


@pytest.mark.parametrize(
    ("name", "strategy", "texts"),
    [
        ("nf4", "auto", ("A plan does not work in nf4", "integers")),
        ("16-mixed", "auto", ("16-mixed", "bf16-mixed")),
        ("int8-training", "auto", ("CUDA", "bitsandbytes")),
        ("64-true", "fsdp", ("FSDP2", "choose one of 32-true")),
        ("16-mixed", "deepspeed_stage_3", ("FSDP2", "16-mixed")),
        ("double", "auto", ("'double'", "64-true")),
    ],
)
def test_plans_are_refused(supreme, plan, inside, name, strategy, texts):
    result = supreme("run", plan(name, strategy), "--workers=1")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert all(text in result.err for text in texts), result.err
    assert [path.name for path in inside.iterdir() if path.name != "data"] == ["small.yaml"]


def test_methods_that_a_precision_does_not_suit_are_left_out(supreme, plan):
    result = supreme("run", plan("int8-training"), "--dry_run")
    assert result.code == 0, result.err
    assert "left out SSD in FullClass: it does not work in precision int8-training" in result.out
    assert "FineTune, FullClass 3" in result.out


def test_short_names_are_the_same_plan(supreme, plan):
    shown = [supreme("run", plan(name), "--dry_run").out for name in ("bf16", "bf16-mixed")]
    assert shown[0] == shown[1]


def test_the_list_of_methods_says_what_they_support(supreme, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = supreme("list", "methods").out.splitlines()
    assert "precision" in lines[0]
    assert next(line for line in lines if line.startswith("SSD ")).rstrip().endswith("float")
    assert "int8-training" in next(line for line in lines if line.startswith("FineTune"))
