"""Cross-entropy and its negative, values and gradients, against stored results."""

import pytest
import torch
from safetensors.torch import load_file

from supreme.functional import cross_entropy, neg_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("loss", "name"), [(cross_entropy, "train_ce"), (neg_grad, "neg_grad")])
def test_published(case, loss, name, dtype):
    golden = case("losses_on_logits", dtype)
    student = torch.tensor(golden.arrays["student_logits"]).to(dtype).requires_grad_()
    value = loss(student, torch.tensor(golden.arrays["labels"])).mean()
    assert value.item() == pytest.approx(golden.json()[name]["value_reference"], rel=1e-6)
    file = "expected_float64" if golden.double else "expected"
    expected = load_file(golden.folder / f"{file}.safetensors")[f"grad.{name}"]
    assert (torch.autograd.grad(value, student)[0] - expected).abs().max() <= golden.tolerance


def test_a_bound_stops_the_ascent_of_lost_samples():
    logits = torch.tensor([[9.0, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, 1])
    losses = neg_grad(logits, target, max_loss=2.0)
    torch.testing.assert_close(losses, torch.tensor([-2.0, -0.6931471805599453], dtype=torch.float64))
    gradient = torch.autograd.grad(losses.sum(), logits)[0]
    assert torch.equal(gradient[0], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(gradient[1], torch.tensor([-0.5, 0.5], dtype=torch.float64))
    assert torch.equal(neg_grad(logits, target), -cross_entropy(logits, target))
