"""The Lipschitz ratio, its value and gradient, against a stored result and at its corners."""

import pytest
import torch
from safetensors.torch import load_file

from supreme.functional import lipschitz_ratio, perturb


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published(case, dtype):
    golden = case("losses_on_logits", dtype)
    given = {name: torch.tensor(value).to(dtype) for name, value in golden.arrays.items()}
    student = given["student_logits"].requires_grad_()
    copies = perturb(given["inputs"], given["noise"], golden.meta["hyperparameters"]["jit"]["noise_std"])
    ratios = lipschitz_ratio(student, given["perturbed_logits"], given["inputs"], copies)
    assert ratios.shape == (3, 7)
    loss = ratios.mean(dim=0).sum()  # published: mean over copies, sum over the batch
    assert loss.item() == pytest.approx(golden.json()["jit"]["value_reference"], rel=1e-6)
    file = "expected_float64" if golden.double else "expected"
    expected = load_file(golden.folder / f"{file}.safetensors")["grad.jit"]
    assert (torch.autograd.grad(loss, student)[0] - expected).abs().max() <= golden.tolerance


def test_noise_stays_within_the_range():
    draw = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 5, 3, 4, 4, generator=draw, dtype=torch.float64)
    low, high = images.min(), images.max()
    expected = (images + 2.0 * noise).clamp(low, high)
    torch.testing.assert_close(perturb(images, noise, 2.0), expected, rtol=0, atol=0)
    wider = perturb(images[:2], noise[:2], 2.0, low, high)
    torch.testing.assert_close(wider, expected[:2], rtol=0, atol=0)


def test_one_copy_and_several():
    draw = torch.Generator().manual_seed(0)
    logits, moved = torch.randn(2, 4, 3, generator=draw)
    images, copies = torch.randn(2, 4, 1, 2, 2, generator=draw)
    one = lipschitz_ratio(logits, moved, images, copies)
    by_hand = [(a - b).norm() / (x - y).norm() for a, b, x, y in zip(logits, moved, images, copies, strict=True)]
    torch.testing.assert_close(one, torch.stack(by_hand))
    assert torch.equal(lipschitz_ratio(logits, moved[None], images, copies[None])[0], one)


def test_an_image_that_did_not_move_counts_nothing():
    images = torch.ones(2, 1, 2, 2)
    copies = torch.stack([images[0], images[1] + 1])
    logits = torch.zeros(2, 3, requires_grad=True)
    for moved in (torch.zeros(2, 3), torch.ones(2, 3)):
        ratios = lipschitz_ratio(logits, moved, images, copies)
        assert ratios[0] == 0
        gradient = torch.autograd.grad(ratios.sum(), logits)[0]
        assert gradient.isfinite().all()
        assert torch.equal(gradient[0], torch.zeros(3))


def test_half_precision_is_summed_in_float32():
    images = torch.zeros(1, 3, 40, 40, dtype=torch.float16)
    ratio = lipschitz_ratio(torch.zeros(1, 2).half(), torch.full((1, 2), 300.0).half(), images, images + 60)
    assert ratio.dtype == torch.float32
    assert ratio.item() == pytest.approx(300 * 2**0.5 / (60 * 4800**0.5), rel=1e-6)
