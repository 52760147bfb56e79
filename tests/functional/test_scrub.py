"""SCRUB's losses, values and gradients, against stored results."""

import pytest
import torch
from safetensors.torch import load_file

from supreme.functional import scrub_distillation, scrub_forget, scrub_retain, scrub_smoothing


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def stored(case, request):
    golden = case("losses_on_logits", request.param)
    arrays = {name: torch.tensor(value) for name, value in golden.arrays.items()}
    given = {name: value.to(golden.dtype) if value.is_floating_point() else value for name, value in arrays.items()}
    for name, value in given.items():
        value.requires_grad_("student" in name)
    file = "expected_float64" if golden.double else "expected"
    return golden, given, load_file(golden.folder / f"{file}.safetensors")


def assert_stored(stored, name, value, wanted):
    golden, _, gradients = stored
    assert value.item() == pytest.approx(golden.json()[name]["value_reference"], rel=1e-6)
    for key, tensor in wanted.items():
        gradient = torch.autograd.grad(value, tensor, retain_graph=True)[0]
        assert (gradient - gradients[key]).abs().max() <= golden.tolerance, key


@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_published_distillation(stored, temperature):
    _, given, _ = stored
    student, teacher = given["student_logits"], given["teacher_logits"]
    losses = scrub_distillation(student, teacher, temperature)
    name = f"scrub_kd_T{temperature}"
    assert_stored(stored, name, losses.mean(), {f"grad.{name}": student})
    assert torch.equal(scrub_forget(student, teacher, temperature), -losses)


def test_published_retain_loss(stored):
    golden, given, _ = stored
    values = golden.meta["hyperparameters"]["scrub"]
    student = given["student_logits"]
    losses = scrub_retain(student, given["teacher_logits"], given["labels"], values["gamma"], values["alpha"], 2.0)
    assert losses.shape == (7,)
    assert_stored(
        stored,
        "scrub_retain_without_smoothing",
        losses.mean(),
        {"grad.scrub_retain_without_smoothing": student},
    )


def test_published_smoothing(stored):
    golden, given, _ = stored
    names = ("w1", "w2", "w3")
    own, start = ([given[f"param_{whose}_{name}"] for name in names] for whose in ("student", "teacher"))
    value = scrub_smoothing(own, start, golden.meta["hyperparameters"]["scrub"]["smoothing"])
    assert_stored(
        stored, "scrub_smoothing", value, {f"grad.scrub_smoothing.{n}": w for n, w in zip(names, own, strict=True)}
    )
    assert torch.equal(torch.autograd.grad(value, own[1])[0], torch.zeros(5, dtype=golden.dtype))  # w2 did not move
