"""Loaders: global batches that are the same sets on any number of processes; every sample exactly once."""

import itertools

import pytest
import torch

from supreme.batch import PARTS, Phase
from supreme.scenarios.loader import EvaluationLoader, Place
from supreme.scenarios.source import MemorySource

PHASES = (Phase("retain", passes=2, batch_size=9), Phase("forget"), Phase("none", passes=2, synthetic=5, batch_size=3))
MIXED = Phase("retain", synthetic=7, batch_size=6, augment=True, reduction="sum")


def flat(batches):
    return [torch.cat([b.index[b.weight > 0] for b in group]).sort().values.tolist() for group in batches]


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("count", [45, 46, 50, 57])
def test_global_batches_are_the_same_sets(loader, world, count):
    phases = (*PHASES, MIXED)
    alone = [[batch] for batch in loader(*phases, count=count)]
    together = list(zip(*(loader(*phases, count=count, rank=r, world=world) for r in range(world)), strict=True))
    assert flat(alone) == flat(together)
    assert len(alone) == len(loader(*phases, count=count))
    for (one,), several in zip(alone, together, strict=True):
        for rank, batch in enumerate(several):
            fields = {"scale": batch.step.scale, "filler": one.step.size <= rank}
            assert batch.step == one.step._replace(**fields)
            assert batch.step.scale == pytest.approx(one.step.scale * world, rel=1e-15)
            assert batch.step.filler == (not bool(batch.weight.any()))
            assert len(batch.index) >= 1
        assert max(len(b.index) for b in several) - min(int(b.weight.sum()) for b in several) <= 1


def test_what_a_batch_holds(loader):
    for batch in loader(MIXED, PHASES[0], Phase("full")):
        real = batch.index >= 0
        assert (batch.image[real, 0, 0, 0] == batch.index[real]).all()
        assert (batch.target[real] == batch.index[real] % 4).all()
        assert (batch.forget[real] == (batch.index[real] % 7 == 0)).all()
        assert (batch.target[~real] == -1).all()
        assert not batch.forget[~real].any()
        assert len(batch.image) == len(batch.index) == batch.step.size
        assert batch.step.scale == (1.0 if batch.step.phase == 0 else 1 / batch.step.size)
        assert batch.step.augment == (batch.step.phase == 0)


def test_every_sample_once_per_pass(loader):
    seen = {}
    for batch in loader(*PHASES, MIXED):
        seen.setdefault((batch.step.phase, batch.step.epoch), []).extend(batch.index.tolist())
    forget = list(range(0, 45, 7))
    retain = [k for k in range(45) if k % 7]
    expected = {(0, 0): retain, (0, 1): retain, (1, 0): forget, (3, 0): [*range(-7, 0), *retain]}
    expected |= {(2, epoch): list(range(-5, 0)) for epoch in (0, 1)}
    assert {key: sorted(rows) for key, rows in seen.items()} == expected


def orders(loader):
    seen = {}
    for batch in loader:
        seen.setdefault((batch.step.phase, batch.step.epoch), []).extend(batch.index.tolist())
    return list(map(tuple, seen.values()))


def test_orders_differ_between_passes_phases_seeds_and_epochs(loader):
    phases = [Phase("full", passes=3), Phase("full", passes=2)]
    found = orders(loader(*phases)) + orders(loader(*phases, seed=1))
    later = loader(*phases)
    later.set_epoch(5)
    found += orders(later)
    assert len(set(found)) == len(found) == 15
    assert orders(loader(*phases)) == orders(loader(*phases))


def test_a_later_epoch_goes_on_where_the_passes_end(loader):
    """Three epochs of one pass are one epoch of three passes: what makes Retrain equal to fit."""
    passes = orders(loader(Phase("full", passes=3)))
    single = loader(Phase("full"))
    for epoch in range(3):
        single.set_epoch(epoch)
        assert orders(single) == [passes[epoch]]


def test_without_shuffling(loader):
    phase = Phase("full", shuffle=False, passes=2)
    assert orders(loader(phase)) == [tuple(range(45))] * 2
    assert orders(loader(Phase("full"), shuffle=False)) == [tuple(range(45))]


def test_selected_samples_keep_their_order(loader):
    phase = Phase("retain", shuffle=False, select=lambda samples: samples.index[samples.target == 1].flip(0))
    assert orders(loader(phase))[0] == tuple(k for k in range(44, -1, -1) if k % 4 == 1 and k % 7)


def test_last_batches_are_marked_once(loader):
    steps = [batch.step for batch in loader(*PHASES)]
    assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
    ends = [step.phase for step in steps if step.last_of_phase]
    assert ends == [0, 1, 2]
    for one, two in itertools.pairwise(steps):
        assert one.last_of_phase == (one.phase != two.phase)


def test_a_phase_without_samples_is_left_out(loader):
    nothing = Phase("forget", select=lambda samples: samples.index[:0])
    found = loader(Phase("retain"), nothing)
    batches = list(found)
    assert len(batches) == len(found) == 5
    assert batches[-1].step.last
    assert list(loader(nothing)) == []


@pytest.mark.parametrize("served", [1, 4, 9, 13])
def test_resume(loader, served):
    whole = list(loader(*PHASES))
    first = loader(*PHASES)
    for _ in itertools.islice(first, served):
        state = first.state_dict()
    second = loader(*PHASES)
    second.load_state_dict(state)
    rest = list(second)
    assert len(rest) == len(whole) - served
    for ours, theirs in zip(rest, whole[served:], strict=True):
        assert ours.step == theirs.step
        assert torch.equal(ours.index, theirs.index)
        assert torch.equal(ours.image, theirs.image)
    assert second.state_dict() == {"served": len(whole)}
    assert len(list(second)) == len(whole)  # the next epoch is whole again


def test_an_epoch_that_was_not_read_to_its_end_does_not_shorten_the_next(loader):
    """Lightning stops asking after the last batch, so that the iterator never learns that it is exhausted."""
    found = loader(Phase("full"))
    iterator = iter(found)
    for _ in range(len(found)):
        next(iterator)
    assert len(list(found)) == len(found)
    state = found.state_dict()
    other = loader(Phase("full"))
    other.load_state_dict(state)
    assert len(list(other)) == len(other)


def evaluation(rank=0, world=1, batch_size=10):
    sizes = {"retain_test": 23, "forget_test": 1, "forget_train": 12}
    parts = {}
    for name, size in sizes.items():
        images = torch.arange(size, dtype=torch.float32)[:, None, None, None]
        parts[name] = (MemorySource(images, torch.arange(size) % 3), torch.arange(0, size))
    return EvaluationLoader(parts, batch_size, Place(rank, world))


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_evaluation_image_once(world):
    """Also where a rank has no row of a part at all (forget_test has one)."""
    ranks = [list(evaluation(rank, world)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {len(evaluation())} == {6}
    seen = []
    for batch in itertools.chain(*ranks):
        assert set(batch.part.tolist()) == {PARTS.index(batch.place)}
        assert batch.filler == (not bool(batch.weight.any()))
        assert (batch.image[:, 0, 0, 0] == batch.index).all()
        assert (batch.target == batch.index % 3).all()
        real = batch.weight > 0
        seen += list(zip(batch.part[real].tolist(), batch.index[real].tolist(), strict=True))
    sizes = {"retain_test": 23, "forget_test": 1, "forget_train": 12}
    assert sorted(seen) == sorted((PARTS.index(name), k) for name, size in sizes.items() for k in range(size))
