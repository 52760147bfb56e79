"""Preprocessing against stored results of the published pipelines, torchvision and a float64 computation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2 import functional

from supreme.errors import ConfigError
from supreme.transforms import Preprocess

GOLDEN = Path(__file__).parents[1] / "golden" / "transforms"


@pytest.fixture(scope="module")
def golden():
    constants = json.loads((GOLDEN / "expected.json").read_text())["normalisation"]
    return np.load(GOLDEN / "data.npz"), load_file(GOLDEN / "expected.safetensors"), constants


@pytest.mark.parametrize("name", ["cifar10", "cifar20", "cifar100"])
def test_golden_cifar(golden, name):
    arrays, expected, constants = golden
    preprocess = Preprocess(tuple(constants[name]["mean"]), tuple(constants[name]["std"]), size=(32, 32))
    got = preprocess(torch.from_numpy(arrays["images32"]).permute(0, 3, 1, 2))
    torch.testing.assert_close(got, expected[f"{name}.images32"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "picture"), [("faces", "image_other_size"), ("caltech", "image_other_size"), ("caltech", "image_gray")]
)
def test_golden_resize_on_bytes_and_again_on_floats(golden, name, picture):
    """The published order is normalise, then resize; both are linear, so only rounding can differ."""
    arrays, expected, constants = golden
    stored = np.asarray(Image.fromarray(arrays[picture]).resize((36, 36), Image.Resampling.BILINEAR))
    images = torch.from_numpy(stored.copy()).reshape(1, 36, 36, -1).permute(0, 3, 1, 2)
    preprocess = Preprocess(tuple(constants[name]["mean"]), tuple(constants[name]["std"]), size=(32, 32))
    torch.testing.assert_close(preprocess(images)[0], expected[f"{name}.{picture}"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "picture"), [("cifar10", "images32"), ("faces", "image_other_size"), ("caltech", "image_gray")]
)
def test_golden_vit_shorter_side_and_the_middle(golden, name, picture):
    """Resized on bytes as published (Pillow): equal; resized here, on floats: within one grey level."""
    arrays, expected, constants = golden
    first = "first_of_" * (picture == "images32")
    stored = expected[f"vit_every_14th.{name}.{first}{picture}"]
    image = arrays[picture][0] if first else arrays[picture]
    sides = [256 * side // min(image.shape[:2]) for side in image.shape[:2]]
    larger = np.asarray(Image.fromarray(image).resize(sides[::-1], Image.Resampling.BILINEAR))
    preprocess = Preprocess(**constants["imagenet"], size=(224, 224), shorter_side=256)
    for pixels, tolerance in ((larger, 1e-6), (image, 1 / 255 / 0.224)):
        tensor = torch.from_numpy(pixels.copy()).reshape(1, *pixels.shape[:2], -1).permute(0, 3, 1, 2)
        got = preprocess(tensor)[0, :, ::14, ::14]
        torch.testing.assert_close(got, stored, rtol=0, atol=tolerance)


def test_the_middle_is_torchvisions():
    images = torch.randint(0, 256, (2, 3, 37, 52), dtype=torch.uint8)
    got = Preprocess((0.0,), (1.0,), size=(17, 20), shorter_side=23).scale(images)
    whole = functional.resize(images.float() / 255, [23], antialias=True)
    torch.testing.assert_close(got, functional.center_crop(whole, [17, 20]), rtol=0, atol=1e-6)


def test_scaling_and_normalisation_in_float64():
    images = torch.randint(0, 256, (5, 3, 9, 11), dtype=torch.uint8)
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.3, 0.4)
    expected = (images.double().numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    got = Preprocess(mean, std)(images)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("values", [1, 3])
def test_grey_becomes_three_equal_channels_before_normalisation(values):
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    mean, std = (0.1, 0.5, 0.7)[:values], (0.2, 0.3, 0.4)[:values]
    got = Preprocess(mean, std)(images)
    assert got.shape == (2, 3, 8, 8)
    assert torch.equal(got, Preprocess(mean, std)(images.expand(-1, 3, -1, -1)))
    one = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)
    expected = [(1 - m) / s for m, s in zip((mean * 3)[:3], (std * 3)[:3], strict=True)]
    assert Preprocess(mean, std)(one).flatten().tolist() == pytest.approx(expected)


def test_resize_is_torchvisions_antialiased_bilinear():
    images = torch.randint(0, 256, (2, 3, 47, 61), dtype=torch.uint8)
    got = Preprocess((0.0,), (1.0,), size=(32, 24)).scale(images)
    expected = functional.resize(images.float() / 255, [32, 24], antialias=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_steps_compose_and_scale_keeps_channels():
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    preprocess = Preprocess((0.3,), (0.4,), size=(16, 16))
    scaled = preprocess.scale(images)
    assert scaled.shape == (2, 1, 16, 16)
    assert float(scaled.min()) >= 0.0
    assert float(scaled.max()) <= 1.0
    assert torch.equal(preprocess(images), preprocess.normalise(scaled))


def test_float_images_count_as_scaled_already():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    preprocess = Preprocess((0.3,), (0.4,))
    assert torch.equal(preprocess(images.float() / 255), preprocess(images))
    assert preprocess(images.double() / 255).dtype == torch.float32


def test_the_argument_is_not_changed():
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    Preprocess((0.3,), (0.4,))(images)
    assert torch.equal(images, before)


def test_an_empty_batch_has_the_right_shape():
    empty = torch.zeros(0, 1, 8, 8, dtype=torch.uint8)
    assert Preprocess((0.3,), (0.4,), size=(16, 16))(empty).shape == (0, 3, 16, 16)


def test_gradients_reach_the_images_also_after_a_first_call_in_inference_mode():
    preprocess = Preprocess((0.123,), (0.456,))
    with torch.inference_mode():
        preprocess(torch.rand(1, 3, 8, 8))
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    preprocess(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 1 / 0.456))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((0.1, 0.2), (1.0,)), "1 or 3 values of mean"),
        (((0.1,), (1.0, 1.0)), "1 or 3 values of std"),
        (((0.1,), (0.0,)), "std above 0"),
        (((0.1,), (1.0,), (0, 4)), "at least 1 x 1"),
        (((0.1,), (1.0,), (8, 9), 8), "size within shorter_side"),
        (((0.1,), (1.0,), None, 8), "size within shorter_side"),
    ],
)
def test_constants_without_meaning_are_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        Preprocess(*arguments)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(3, 8, 8), "n, C, H, W"),
        (torch.zeros(1, 4, 8, 8), "1 or 3 channels"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "torch.int64"),
    ],
)
def test_other_images_are_refused(images, text):
    with pytest.raises(ConfigError, match=text):
        Preprocess((0.5,), (0.5,))(images)


def test_lists_are_taken_and_equal_settings_compare_equal():
    assert Preprocess([0.5], [0.25], [8, 8]) == Preprocess((0.5,), (0.25,), (8, 8))
