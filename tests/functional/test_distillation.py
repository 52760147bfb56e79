"""Distillation losses, values and gradients, against stored results and a second formula."""

import pytest
import torch
from safetensors.torch import load_file

from supreme.functional.distillation import divergence_from_teacher, two_teachers


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def logits(case, request):
    golden = case("losses_on_logits", request.param)
    arrays = {name: torch.tensor(value) for name, value in golden.arrays.items()}
    wide = {name: value.to(golden.dtype) if value.is_floating_point() else value for name, value in arrays.items()}
    wide["student_logits"].requires_grad_()
    return golden, wide


def gradient(value, logits):
    return torch.autograd.grad(value, logits["student_logits"])[0]


@pytest.mark.parametrize("temperature", [1, 2])
def test_published_two_teachers(logits, temperature):
    golden, given = logits
    losses = two_teachers(
        given["student_logits"],
        given["teacher_logits"],
        given["incompetent_teacher_logits"],
        given["is_forget"],
        temperature,
    )
    expected = golden.json()[f"bad_teacher_T{temperature}"]
    assert losses.mean().item() == pytest.approx(expected["value_by_definition"], rel=1e-6)
    published = losses.mean() / given["student_logits"].shape[1]
    assert published.item() == pytest.approx(expected["value_reference"], rel=1e-5)
    check(golden, f"grad.bad_teacher_T{temperature}", gradient(published, given))


def check(golden, name, value):
    expected = load_file(golden.folder / f"{'expected_float64' if golden.double else 'expected'}.safetensors")[name]
    assert (value - expected).abs().max() <= golden.tolerance


@pytest.mark.parametrize("temperature", [2.0, 4.0])
def test_published_distillation(logits, temperature):
    golden, given = logits
    losses = temperature**2 * divergence_from_teacher(given["student_logits"], given["teacher_logits"], temperature)
    expected = golden.json()[f"scrub_kd_T{temperature}"]
    assert losses.mean().item() == pytest.approx(expected["value_by_definition"], rel=1e-9 if golden.double else 1e-6)
    check(golden, f"grad.scrub_kd_T{temperature}", gradient(losses.mean(), given))


def test_values_by_hand():
    draw = torch.Generator().manual_seed(0)
    student, first, second = torch.randn(3, 9, 5, generator=draw, dtype=torch.float64)
    forget = torch.arange(9) % 2 == 0
    p, q = (torch.softmax(x / 3, dim=1) for x in (student, torch.where(forget[:, None], second, first)))
    expected = (q * (q.log() - p.log())).sum(1)
    torch.testing.assert_close(two_teachers(student, first, second, forget, 3.0), expected)
    torch.testing.assert_close(divergence_from_teacher(student, first, 3.0)[~forget], expected[~forget])


def test_zero_against_itself_and_finite_at_extremes():
    values = torch.tensor([[300.0, -300.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    assert (divergence_from_teacher(values, values.detach()) == 0).all()
    opposite = -values.detach()
    for loss in (
        divergence_from_teacher(values, opposite),
        two_teachers(values, opposite, values.detach(), torch.tensor([True, False])),
    ):
        assert loss.isfinite().all()
        assert (loss >= 0).all()
        assert torch.autograd.grad(loss.sum(), values)[0].isfinite().all()
