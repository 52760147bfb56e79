import json

import pytest
import torch

from supreme.datasets import Digits
from supreme.distributed import quiet_trainer
from supreme.evaluation import Evaluation
from supreme.models.build import reinitialise
from supreme.models.stored import load_model
from supreme.scenarios import FullClass
from supreme.seeding import derive

QUIET = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def read(path):
    return json.loads(path.read_text())["metrics"]


def test_two_evaluations_give_the_same_numbers(unlearned, retrained, fitted, supreme, inside):
    """Whatever was drawn in between."""
    models = ("--unlearned", unlearned, "--retrained", retrained, "--original", fitted)
    first = supreme("evaluate", *models, "--output=a/first.json", *QUIET)
    assert first.code == 0, first.err
    torch.rand(3)
    second = supreme("evaluate", *models, "--output=second.json", *QUIET)
    assert second.code == 0
    values = read(inside / "a" / "first.json")
    assert values == read(inside / "second.json")
    assert {"forget/accuracy", "whole/js_divergence", "layerwise_distance", "forget/zrf", "mia", "mia_gap"} <= set(
        values
    )
    for name in ("accuracy", "completeness", "layerwise_distance", "mia_auc"):
        assert name in first.out
    assert f"{values['retain/accuracy']:.4f}" in first.out


def test_the_numbers_are_those_of_the_evaluation_module(unlearned, retrained, supreme, inside):
    """The request comes from the file: the digit 3."""
    supreme("evaluate", "--unlearned", unlearned, "--retrained", retrained, "--output=scores.json", *QUIET)
    scenario = FullClass(Digits(), forget=3)
    networks = [load_model(folder)[0] for folder in (unlearned, retrained)]
    teacher = reinitialise(networks[0], derive(scenario.request.fingerprint, "incompetent teacher"))
    evaluation = Evaluation(*networks, incompetent=teacher)
    quiet_trainer("cpu").test(evaluation, datamodule=scenario, verbose=False)
    assert read(inside / "scores.json") == evaluation.scores


def test_a_model_against_itself(retrained, supreme, inside):
    supreme("evaluate", "--unlearned", retrained, "--retrained", retrained, "--output=scores.json", *QUIET)
    values = read(inside / "scores.json")
    assert values["whole/activation_distance"] == values["layerwise_distance"] == values["whole/accuracy_gap"] == 0
    assert values["whole/completeness"] == 1


def test_chosen_metrics_and_another_request(unlearned, supreme, inside):
    words = ("--metrics", "Accuracy", "MIA", "--data=RandomSample", "--data.fraction=0.2", "--output=scores.json")
    assert supreme("evaluate", "--unlearned", unlearned, *words, *QUIET).code == 0
    content = json.loads((inside / "scores.json").read_text())
    assert content["dataset"] == "Digits"
    assert set(content["metrics"]) == {"whole/accuracy", "retain/accuracy", "forget/accuracy", "mia", "mia_auc"}
    assert (content["scenario"], content["target"]) == ("RandomSample", "0.2")


def test_without_output_the_scores_lie_beside_the_model(unlearned, supreme):
    assert supreme("evaluate", "--unlearned", unlearned / "model.safetensors", "--metrics=Loss", *QUIET).code == 0
    assert set(read(unlearned / "scores.json")) == {"whole/loss", "retain/loss", "forget/loss"}


def test_what_each_metric_costs(unlearned, supreme, inside):
    words = ("--metrics", "Accuracy", "MIA", "--output=scores.json", "--track_evaluation")
    result = supreme("evaluate", "--unlearned", unlearned, *words, *QUIET)
    assert result.code == 0, result.err
    content = json.loads((inside / "scores.json").read_text())
    kinds = ("metric_time_s", "metric_peak_memory_bytes")
    assert set(content["evaluation_costs"]) == {f"{kind}/{key}" for kind in kinds for key in ("accuracy", "mia")}
    assert not any("metric_" in key for key in content["metrics"])
    assert "memory (MiB)" in result.out
    supreme("evaluate", "--unlearned", unlearned, "--metrics=Accuracy", "--output=scores.json", *QUIET)
    assert "evaluation_costs" not in json.loads((inside / "scores.json").read_text())


@pytest.mark.parametrize("words", [(), ("--metrics", "Acuracy"), ("--output", "file/x.json"), ("--data.forget", "12")])
def test_wrong_words(words, unlearned, supreme, inside, refused):
    (inside / "file").write_text("")
    text = {"--metrics": "'Accuracy'", "--output": "is a file", "--data.forget": "0 to 9"}.get(
        words[0] if words else ""
    )
    given = ("--unlearned", unlearned, *words) if words else ()
    (inside / "file").unlink() if "--output" not in words else None
    before = set(inside.rglob("*"))
    result = supreme("evaluate", *given, *QUIET)
    assert result.code == 2
    assert (text or "Missing --unlearned") in result.err
    assert set(inside.rglob("*")) == before


def test_a_model_without_a_request_needs_one(fitted, supreme, refused):
    refused(supreme("evaluate", "--unlearned", fitted, *QUIET), "--data")


def test_a_part_of_the_request_can_be_changed(unlearned, supreme, inside):
    words = ("--metrics=Accuracy", "--output=scores.json", "--data.forget=[3, 5]")
    assert supreme("evaluate", "--unlearned", unlearned, *words, *QUIET).code == 0
    assert json.loads((inside / "scores.json").read_text())["target"] == "3+5"
