"""The membership attack against an independent scikit-learn computation and the stored published value."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from supreme.batch import PARTS
from supreme.errors import ConfigError, DataError
from supreme.metrics.mia import MIA


def columns(seed=0, sizes=(30, 8, 90, 25), surer=2.0):
    """Logits, parts and indices; training samples have larger logits, that is less entropy."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.cat([torch.full((size,), code) for code, size in enumerate(sizes)])
    scale = torch.where(part >= 2, surer, 1.0)
    logits = 2.0 * scale[:, None] * torch.randn(len(part), 5, generator=generator)
    index = torch.arange(len(part))
    return logits, part, index


def independent(logits, part, regularisation=2.0):
    """The attack written down with NumPy, SciPy and scikit-learn's default solver."""
    feature = scipy.stats.entropy(logits.double().softmax(dim=1).numpy(), axis=1)
    part = part.numpy()
    members, others = feature[part == 2], feature[(part == 0) | (part == 1)]
    x, y = np.concatenate([members, others])[:, None], np.array([1] * len(members) + [0] * len(others))
    attack = LogisticRegression(C=regularisation, class_weight="balanced").fit(x, y)
    return attack.predict(feature[part == 3][:, None]).mean()


def values(metric, batches):
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize("seed", range(8))
def test_equals_an_independent_computation(seed):
    data = columns(seed, surer=1.0 + seed / 4)
    assert values(MIA(), [data])["mia"] == independent(*data[:2])
    assert values(MIA(regularisation=0.5), [data])["mia"] == independent(*data[:2], regularisation=0.5)


def test_stored_value(golden):
    case = golden.expected["membership_inference_attack"]
    names = dict(zip(PARTS, ("test_retain", "test_forget", "train_retain", "train_forget"), strict=True))
    blocks = [golden.logits[f"unlearned.{name}"] for name in names.values()]
    part = torch.cat([torch.full((len(block),), code) for code, block in enumerate(blocks)])
    data = torch.cat(blocks), part, torch.arange(len(part))
    metric = MIA()
    assert values(metric, [data])["mia"] == pytest.approx(case["value_by_definition"], abs=1e-12)
    assert values(MIA(regularisation=1.0), [data])["mia"] == pytest.approx(case["binary_form_value"], abs=1e-12)
    members, others, forget = metric._features()
    np.testing.assert_allclose(members, case["entropy_members"], rtol=1e-5)
    np.testing.assert_allclose(np.sort(others), np.sort(case["entropy_nonmembers"]), rtol=1e-5)
    np.testing.assert_allclose(forget, case["entropy_attacked"], rtol=1e-5)


def test_the_forget_test_part_is_among_the_non_members():
    data = columns(3)
    moved = data[1].clone()
    moved[moved == 1] = 0
    moved_values = values(MIA(), [(data[0], moved, data[2])])
    assert moved_values["mia"] == values(MIA(), [data])["mia"] == independent(data[0], moved)


@pytest.mark.parametrize("batch_size", [1, 13, 500])
def test_order_repeats_and_batches_do_not_matter(batch_size):
    logits, part, index = columns(1)
    expected = values(MIA(), [(logits, part, index)])
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(2))
    order = torch.cat([order, order[:40]])
    batches = [(logits[rows], part[rows], index[rows]) for rows in order.split(batch_size)]
    assert values(MIA(), batches) == expected


def test_auc_of_a_perfect_a_useless_and_an_inverted_attack():
    perfect = columns(4)
    perfect[0][perfect[1] < 2] *= 0.01
    assert values(MIA(), [perfect])["mia_auc"] == 1.0
    useless = values(MIA(), [columns(5, sizes=(400, 100, 500, 5), surer=1.0)])["mia_auc"]
    assert useless == pytest.approx(0.5, abs=0.06)
    inverted = columns(6)
    inverted[0][inverted[1] >= 2] *= 0.01
    assert values(MIA(), [inverted])["mia_auc"] == 1.0  # the attack learns the direction


def test_auc_is_close_to_that_of_the_entropy_itself():
    logits, part, index = columns(7, sizes=(300, 100, 900, 20), surer=1.4)
    feature = scipy.stats.entropy(logits.double().softmax(dim=1).numpy(), axis=1)
    fitted = part.numpy() < 3
    expected = roc_auc_score(part.numpy()[fitted] == 2, -feature[fitted])
    assert values(MIA(), [(logits, part, index)])["mia_auc"] == pytest.approx(expected, abs=0.01)


def test_only_the_auc_depends_on_the_seed():
    data = columns(8, surer=1.2)
    first, again, other = (values(MIA(seed=seed), [data]) for seed in (1, 1, 10**12))
    assert first == again
    assert first["mia"] == other["mia"]
    assert first["mia_auc"] != other["mia_auc"]


def test_few_samples_get_fewer_folds_or_no_auc():
    assert set(values(MIA(), [columns(0, sizes=(2, 1, 9, 4))])) == {"mia", "mia_auc"}
    assert set(values(MIA(), [columns(0, sizes=(1, 0, 9, 4))])) == {"mia"}


@pytest.mark.filterwarnings("error")
def test_small_entropies_are_told_apart():
    logits, part, index = columns(2, sizes=(200, 50, 500, 100), surer=1.3)
    feature = 1e-4 * scipy.stats.entropy(logits.double().softmax(dim=1).numpy(), axis=1)
    metric = MIA()
    metric.update(logits[:0], part[:0], index[:0])
    metric._append(part, index, torch.from_numpy(feature)[:, None])
    result = metric.compute()
    assert 0.2 < result["mia"].item() < 0.8
    assert result["mia_auc"].item() > 0.55


@pytest.mark.filterwarnings("error")
def test_equal_features_are_no_failure():
    logits, part, index = columns(0)
    result = values(MIA(), [(torch.zeros_like(logits), part, index)])
    assert result == {"mia": 0.0, "mia_auc": 0.5}


@pytest.mark.parametrize("sizes", [(0, 0, 9, 4), (3, 2, 0, 4), (3, 2, 9, 0)])
def test_missing_parts_are_named(sizes):
    counts = f"{sizes[2]}, {sizes[0] + sizes[1]} and {sizes[3]}"
    metric = MIA()
    metric.update(*columns(0, sizes=sizes))
    with pytest.raises(DataError, match=f"got {counts}; evaluate the training set too"):
        metric.compute()


def test_a_diverged_network_is_refused():
    logits, part, index = columns(0)
    logits[3, 0] = torch.nan
    metric = MIA()
    metric.update(logits, part, index)
    with pytest.raises(DataError, match="for mia, got NaN"):
        metric.compute()


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="folds=1"):
        MIA(folds=1)
    with pytest.raises(ConfigError, match="regularisation=0"):
        MIA(regularisation=0)
