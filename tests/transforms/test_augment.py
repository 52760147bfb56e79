"""The batched augmentation against torchvision's v2 transforms, applied sample by sample."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from supreme.errors import ConfigError
from supreme.seeding import uniform
from supreme.transforms import Augment


def coordinates(n, height, width):
    """Images whose pixels say where they come from: row + 1 and column + 1 (0 is the fill)."""
    row = torch.arange(1.0, height + 1)[:, None].expand(height, width)
    column = torch.arange(1.0, width + 1)[None, :].expand(height, width)
    return torch.stack((row, column)).expand(n, 2, height, width).clone()


def by_torchvision(image, draws, padding, flip, limit, crop=None):
    """The same draws through torchvision's functional transforms, for one image."""
    height, width = crop or image.shape[-2:]
    if padding or crop:
        places = [whole - part + 2 * padding + 1 for whole, part in zip(image.shape[-2:], (height, width), strict=True)]
        row, column = (math.floor(float(u) * count) for u, count in zip(draws[:2], places, strict=True))
        image = functional.pad(image, [padding] * 4, fill=0)
        image = functional.crop(image, row, column, height, width)
    if flip and draws[2] < 0.5:
        image = functional.horizontal_flip(image)
    if limit:
        angle = (2.0 * float(draws[3]) - 1.0) * limit
        image = functional.rotate(image, angle, interpolation=v2.InterpolationMode.NEAREST, fill=0)
    return image


@pytest.mark.parametrize(
    ("padding", "flip", "rotation"),
    [(4, False, 0.0), (0, True, 0.0), (0, False, 15.0), (4, True, 15.0), (1, True, 180.0), (40, True, 90.0)],
)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 24, 41), (3, 41, 24)])
def test_same_pixels_as_torchvision_for_the_same_draws(padding, flip, rotation, shape):
    n = 25
    images = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) + 0.1
    index = torch.arange(1000, 1000 + n)
    got = Augment(padding, flip, rotation)(images, seed=5, epoch=2, index=index)
    draws = uniform(5, 2, index, 4)
    expected = torch.stack([by_torchvision(images[i], draws[i], padding, flip, rotation) for i in range(n)])
    assert got.shape == images.shape
    assert got.dtype == images.dtype
    # A source position on the border between two pixels may fall to either side in the last bit.
    assert (got != expected).float().mean() < 1e-4


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize(("crop", "shape"), [((32, 32), (3, 36, 36)), ((9, 20), (1, 12, 24))])
def test_crops_of_larger_images_are_torchvisions(crop, shape, padding):
    n = 40
    images = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) + 0.1
    index = torch.arange(n)
    got = Augment(padding, True, 15.0, crop)(images, seed=5, epoch=2, index=index)
    draws = uniform(5, 2, index, 4)
    expected = torch.stack([by_torchvision(images[i], draws[i], padding, True, 15.0, crop) for i in range(n)])
    assert got.shape == expected.shape == (n, shape[0], *crop)
    assert (got != expected).float().mean() < 1e-4
    assert Augment(crop_size=crop)(images[:0], 0, 0, index[:0]).shape == (0, shape[0], *crop)
    assert Augment(crop_size=crop).active


def test_a_crop_has_to_fit():
    with pytest.raises(ConfigError, match="Expected images of 9 or more pixels to crop, got 6"):
        Augment(1, crop_size=(9, 9))(torch.rand(2, 3, 6, 12), 0, 0, torch.arange(2))


def offsets(crops):
    """Row and column offset of every crop of a coordinate image, from a pixel that no padding reaches."""
    middle = crops.shape[-1] // 2
    return (crops[:, :, middle, middle] - (middle + 1)).long()


def angles(turned):
    """Angle of every turned coordinate image in degrees, by least squares over the pixels that are not filled."""
    n, _, height, width = turned.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1) - np.array([[(height - 1) / 2], [(width - 1) / 2]])
    found = []
    for image in turned.double().numpy().reshape(n, 2, -1):
        kept = image[0] > 0
        v, u = image[0][kept] - (height + 1) / 2, image[1][kept] - (width + 1) / 2
        a, b = x[kept], y[kept]
        found.append(math.degrees(math.atan2((a @ v - b @ u), (a @ u + b @ v))))
    return np.array(found)


def v2_sample_by_sample(transform, images, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.stack([transform(image) for image in images])


def test_crop_offsets_are_uniform_over_all_positions_as_in_torchvision():
    images = coordinates(8100, 16, 16)
    ours = offsets(Augment(crop_padding=4)(images, 0, 0, torch.arange(8100)))
    counts = torch.bincount((ours[:, 0] + 4) * 9 + ours[:, 1] + 4, minlength=81)
    assert len(counts) == 81
    assert stats.chisquare(counts.numpy()).pvalue > 0.001
    theirs = offsets(v2_sample_by_sample(v2.RandomCrop(16, padding=4), images[:1000], seed=0))
    for axis in (0, 1):
        pair = torch.stack([torch.bincount(part[:, axis] + 4, minlength=9) for part in (ours, theirs)])
        assert stats.chi2_contingency(pair.numpy()).pvalue > 0.001


def test_half_of_the_images_are_mirrored():
    images = coordinates(8000, 8, 8)
    got = Augment(flip=True)(images, 0, 0, torch.arange(8000))
    mirrored = (got == images.flip(-1)).flatten(1).all(1)
    assert bool((mirrored | (got == images).flatten(1).all(1)).all())
    assert stats.binomtest(int(mirrored.sum()), 8000).pvalue > 0.001


def test_angles_are_uniform_and_turn_the_way_torchvision_turns():
    """In wide bins: an angle is found to half a degree, and turns below two degrees move hardly any pixel."""
    images = coordinates(1000, 24, 24)
    ours = angles(Augment(rotation=15.0)(images, 0, 0, torch.arange(1000)))
    theirs = angles(v2_sample_by_sample(v2.RandomRotation(15), images[:300], seed=0))
    edges = np.array([-16, -10, -6, 6, 10, 16])
    counts = np.stack([np.histogram(part, edges)[0] for part in (ours, theirs)])
    assert counts.sum(1).tolist() == [1000, 300]
    assert stats.chisquare(counts[0], 1000 * np.array([5, 4, 12, 4, 5]) / 30).pvalue > 0.001
    assert stats.chi2_contingency(counts).pvalue > 0.001
    ten = functional.rotate(images[:1], 10.0, interpolation=v2.InterpolationMode.NEAREST)
    assert angles(ten)[0] == pytest.approx(10.0, abs=0.5)


def test_crop_offset_flip_and_angle_are_independent_of_each_other():
    draws = uniform(3, 1, torch.arange(20000), 4).double().numpy()
    correlation = np.corrcoef(draws.T)[np.triu_indices(4, 1)]
    assert abs(correlation).max() < 4 / math.sqrt(20000)


def test_a_sample_does_not_depend_on_its_batch():
    images = torch.rand(50, 3, 32, 32)
    index = torch.randperm(10_000)[:50]
    augment = Augment(4, True, 15.0)
    together = augment(images, 7, 3, index)
    order = torch.randperm(50)
    assert torch.equal(augment(images[order], 7, 3, index[order]), together[order])
    alone = torch.cat([augment(images[i : i + 1], 7, 3, index[i : i + 1]) for i in range(50)])
    assert torch.equal(alone, together)


def test_seed_epoch_and_index_each_change_the_draws():
    images = torch.rand(1, 3, 32, 32).expand(8, -1, -1, -1)
    augment = Augment(4, True, 15.0)
    index = torch.arange(8)
    first = augment(images, 0, 0, index)
    assert torch.equal(first, augment(images, 0, 0, index))
    for other in (augment(images, 1, 0, index), augment(images, 0, 1, index), augment(images, 0, 0, index + 8)):
        assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_switching_one_step_off_leaves_the_others_as_they_are():
    images = coordinates(200, 16, 16)
    index = torch.arange(200)
    mirrored = (Augment(flip=True)(images, 0, 0, index)[:, 1, 0, 0] > 1)[:, None, None, None]
    cropped = Augment(crop_padding=2)(images, 0, 0, index)
    both = Augment(crop_padding=2, flip=True)(images, 0, 0, index)
    assert torch.equal(both, torch.where(mirrored, cropped.flip(-1), cropped))


def test_what_leaves_the_image_does_not_come_back_on_the_other_side():
    images = coordinates(300, 16, 16)
    got = Augment(crop_padding=4)(images, 0, 0, torch.arange(300))
    shift = offsets(got)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    row, column = y + shift[:, 0, None, None], x + shift[:, 1, None, None]
    inside = (row >= 0) & (row < 16) & (column >= 0) & (column < 16)
    assert torch.equal(got[:, 0], torch.where(inside, row + 1, 0).float())
    assert torch.equal(got[:, 1], torch.where(inside, column + 1, 0).float())


def test_bytes_are_augmented_like_floats():
    images = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    augment = Augment(4, True, 15.0)
    got = augment(images, 0, 0, torch.arange(20))
    assert got.dtype == torch.uint8
    assert torch.equal(got.float(), augment(images.float(), 0, 0, torch.arange(20)))


def test_without_settings_or_without_images_nothing_happens():
    images = torch.rand(4, 1, 8, 8)
    assert not Augment().active
    assert Augment()(images, 0, 0, torch.arange(4)) is images
    assert Augment(4, True, 15.0)(images[:0], 0, 0, torch.arange(0)).shape == (0, 1, 8, 8)


def test_the_argument_is_not_changed():
    images = torch.rand(4, 3, 8, 8)
    before = images.clone()
    Augment(2, True, 15.0)(images, 0, 0, torch.arange(4))
    assert torch.equal(images, before)


def test_negative_indices_of_synthetic_rows_are_fine():
    images = torch.zeros(3, 3, 8, 8)
    assert torch.equal(Augment(2, True, 15.0)(images, 0, 0, torch.tensor([-1, -2, -3])), images)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"crop_padding": -1}, "crop_padding >= 0"),
        ({"rotation": -1.0}, "0 to 180"),
        ({"rotation": 181.0}, "181.0"),
        ({"crop_size": (4, 0)}, "4 x 0"),
    ],
)
def test_settings_without_meaning_are_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        Augment(**arguments)


@pytest.mark.parametrize(("shape", "n"), [((3, 8, 8), 3), ((2, 3, 8, 8), 3)])
def test_wrong_shapes_are_refused(shape, n):
    with pytest.raises(ConfigError, match="one index per image"):
        Augment(2)(torch.rand(shape), 0, 0, torch.arange(n))


def test_settings_compare_and_print():
    assert Augment(4, True, 15.0) == Augment(crop_padding=4, flip=True, rotation=15.0)
    assert repr(Augment()) == "Augment(crop_padding=0, flip=False, rotation=0.0, crop_size=None)"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_gives_the_same_pixels():
    images = torch.rand(512, 3, 32, 32)
    augment = Augment(4, True, 15.0)
    there = augment(images.cuda(), 0, 0, torch.arange(512).cuda())
    assert (there.cpu() != augment(images, 0, 0, torch.arange(512))).float().mean() < 1e-5
