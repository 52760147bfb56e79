"""A teacher sees every sample once, and everything where its logits cannot be kept."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from supreme.batch import Batch, ForgetRequest, Step
from supreme.distributed import Frozen
from supreme.methods import SCRUB, remembered
from supreme.methods.remembered import Remembered
from supreme.scenarios.given_sets import GivenSets

FORGET = torch.tensor([1, 4, 5])  # of 8 samples


@pytest.fixture
def images():
    return torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Counts(nn.Module):
    """A linear network that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(48, 5), 0

    def forward(self, images):
        self.seen += len(images)
        return self.layer(images.flatten(1))


def kept(size=8):
    return Remembered(Frozen(Counts()), ForgetRequest(5, None, "", FORGET, train_size=size))


def one_pass(teacher, images, order, part, size=2, first=0):
    """Logits by position in D; ``first`` leaves out batches, as after a checkpoint."""
    batches, found = torch.tensor(order).split(size), {}
    for number, index in list(enumerate(batches))[first:]:
        step = Step(0, 0, number, len(index), number == len(batches) - 1, False, 1.0)
        ones = torch.ones(len(index))
        logits = teacher(Batch(images[index], ones.long(), index, ones, torch.isin(index, FORGET), step), part)
        found.update(zip(index.tolist(), logits, strict=True))
    return found


def close(found, network, images):
    return all(torch.allclose(row, network.layer(images[k].flatten()), atol=1e-6) for k, row in found.items())


def test_every_sample_is_seen_once(images):
    teacher = kept()
    network = teacher.teacher.model
    for order, part in (([5, 1, 4], "forget"), ([7, 0, 3, 2, 6], "retain"), ([1, 4, 5], "forget")):
        assert close(one_pass(teacher, images, order, part), network, images)
    assert network.seen == 8
    assert close(one_pass(teacher, images, [2, 3, 0, 6, 7], "retain", size=3), network, images)
    assert network.seen == 8


def test_a_pass_that_began_before_a_checkpoint_is_not_whole(images):
    teacher = kept()
    network = teacher.teacher.model
    assert close(one_pass(teacher, images, [7, 0, 3, 2, 6], "retain", first=1), network, images)
    assert network.seen == 3
    assert close(one_pass(teacher, images, [0, 2, 3, 6, 7], "retain"), network, images)
    assert network.seen == 8
    assert close(one_pass(teacher, images, [0, 7, 3, 6, 2], "retain"), network, images)
    assert network.seen == 8


def test_images_that_change_from_pass_to_pass_are_noticed(images):
    teacher = kept()
    network = teacher.teacher.model
    one_pass(teacher, images, [5, 1, 4], "forget")
    for shown, seen in ((images.flip(3), 6), (images, 6), (images + 1, 9)):
        assert close(one_pass(teacher, shown, [4, 1, 5], "forget"), network, shown)
        assert network.seen == seen


def test_what_would_take_too_much_memory_is_not_kept(images, monkeypatch):
    for size, largest in ((None, 2**30), (8, 5 * (5 + 16) * 4 - 1)):
        monkeypatch.setattr(remembered, "LARGEST_BYTES", largest)
        teacher = kept(size)
        for _ in range(2):
            one_pass(teacher, images, [0, 2, 3, 6, 7], "retain")
        assert teacher.teacher.model.seen == 10
    monkeypatch.setattr(remembered, "LARGEST_BYTES", 5 * (5 + 16) * 4)
    teacher = kept()
    for _ in range(2):
        one_pass(teacher, images, [0, 2, 3, 6, 7], "retain")
    assert teacher.teacher.model.seen == 5


def test_logits_keep_their_type(images):
    teacher = kept()
    teacher.teacher.model.bfloat16()
    found = [one_pass(teacher, images.bfloat16(), [1, 4, 5], "forget") for _ in range(2)]
    assert all(row.dtype == torch.bfloat16 and torch.equal(row, found[1][k]) for k, row in found[0].items())


# --- in a fit


def rows_seen(monkeypatch):
    """Numbers of images of each call of a frozen teacher."""
    seen, call = [], Frozen.__call__
    monkeypatch.setattr(Frozen, "__call__", lambda self, images: (seen.append(len(images)), call(self, images))[1])
    return seen


def test_scrub_asks_its_teacher_once_per_sample(tiny, fit, monkeypatch):
    seen = rows_seen(monkeypatch)
    method = fit(SCRUB(tiny.network(), epochs=4, max_steps=2, lr=0.01, reference_error=0.5), tiny.scenario())
    assert sum(seen) == 45
    method.release()
    assert method._remembered is None


class Flipped(Dataset):
    """Images that are mirrored whenever they are read again."""

    def __init__(self, images, labels):
        self.images, self.labels = images.clone(), labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.images[index] = self.images[index].flip(2)
        return self.images[index].clone(), int(self.labels[index])


def test_datasets_that_augment_get_logits_of_the_images_shown(tiny, fit, monkeypatch):
    def run():
        sets = [Flipped(*part.tensors) for part in tiny.sets(dtype=torch.float64)]
        method = SCRUB(tiny.network("group").double(), epochs=4, max_steps=2, lr=0.01, optimizer="sgd")
        return fit(method, GivenSets(*sets, 4, batch_size=8), precision="64-true").model[0].weight

    found = run()
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "_changed", lambda batch, pixels: False)
        assert (run() - found).abs().max() > 1e-5
    monkeypatch.setattr(remembered, "LARGEST_BYTES", 0)  # the teacher sees every batch
    torch.testing.assert_close(found, run(), rtol=0, atol=1e-12)
