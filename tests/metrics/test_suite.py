"""The suite: which metric sees which rows."""

import pytest
import torch
from torch import nn

from supreme.batch import PARTS
from supreme.errors import ConfigError, DataError, UnknownNameError
from supreme.metrics import Suite, default_metrics
from supreme.metrics.accuracy import Accuracy
from supreme.metrics.base import SampleMean
from supreme.metrics.completeness import Completeness
from supreme.metrics.layerwise_distance import LayerwiseDistance
from supreme.metrics.loss import Loss
from supreme.metrics.mia import MIA

CODE = {name: code for code, name in enumerate(PARTS)}


def columns(n=120, seed=0, names=("unlearned", "retrained", "original", "incompetent"), part=None):
    generator = torch.Generator().manual_seed(seed)
    made = {name: 2 * torch.randn(n, 4, generator=generator) for name in names}
    made["target"] = torch.randint(4, (n,), generator=generator)
    made["part"] = torch.arange(n) % 4 if part is None else part
    made["index"] = torch.arange(n)
    return made


def networks():
    torch.manual_seed(0)
    return {"unlearned_model": nn.Linear(3, 2), "retrained_model": nn.Linear(3, 2)}


def rows(data, *parts):
    chosen = torch.isin(data["part"], torch.tensor([CODE[part] for part in parts]))
    return {name: column[chosen] for name, column in data.items()}


TARGETED = {"whole": ("retain_test", "forget_test"), "retain": ("retain_test",), "forget": ("forget_test",)}
RANDOM = {"whole": ("retain_test",), "retain": ("retain_test",), "forget": ("forget_train",)}


@pytest.mark.parametrize(("random", "sets"), [(False, TARGETED), (True, RANDOM)])
def test_every_value_equals_the_metric_on_rows_chosen_by_hand(random, sets):
    data = columns()
    if random:
        data = rows(data, "retain_test", "retain_train", "forget_train")
    suite = Suite(random=random, seed=7)
    for start in range(0, 120, 50):
        suite.update({name: column[start : start + 50] for name, column in data.items()})
    suite.update_models(networks())
    expected = {}
    for metric in default_metrics(7):
        for place in metric.sets or ("",):
            copied = metric.clone()
            source = rows(data, *sets[place]) if place else {**data, **networks()}
            copied.update(*(source[name] for name in metric.inputs))
            result = copied.compute()
            result = result if isinstance(result, dict) else {metric.key: result}
            expected |= {f"{place}/{key}".removeprefix("/"): value.item() for key, value in result.items()}
    assert suite.compute() == pytest.approx(expected, rel=1e-12)


def test_keys_of_the_default_suite():
    suite = Suite()
    suite.update(columns())
    suite.update_models(networks())
    per_set = ("accuracy", "loss", "activation_distance", "js_divergence", "completeness")
    assert set(suite.compute()) == {
        *(f"{place}/{key}" for place in ("whole", "retain", "forget") for key in per_set),
        "layerwise_distance",
        "forget/zrf",
        "forget/zrf_original",
        "forget/zrf_retrained",
        "mia",
        "mia_auc",
    }
    assert all(isinstance(value, float) for value in suite.compute().values())


def test_metrics_without_their_inputs_are_left_out():
    suite = Suite()
    suite.update(columns(names=("unlearned",)))
    suite.update_models({"unlearned_model": nn.Linear(3, 2)})
    per_set = {f"{place}/{key}" for place in ("whole", "retain", "forget") for key in ("accuracy", "loss")}
    assert set(suite.compute()) == per_set | {"mia", "mia_auc"}


def test_the_given_metrics_are_copied():
    metric = Accuracy()
    Suite([metric]).update(columns())
    assert not metric.update_called


def test_whole_is_retain_and_forget_together():
    data = columns(part=torch.tensor([CODE["retain_test"]] * 90 + [CODE["forget_test"]] * 30))
    suite = Suite([Accuracy(), Completeness()])
    suite.update(data)
    values = suite.compute()
    for key in ("accuracy", "completeness"):
        mixed = (90 * values[f"retain/{key}"] + 30 * values[f"forget/{key}"]) / 120
        assert values[f"whole/{key}"] == pytest.approx(mixed, rel=1e-12)


def test_the_whole_is_no_third_pass():
    """Means over the whole take sums and counts of the two sets; a metric of another kind sees all rows itself."""

    class Counted(Accuracy):
        def update(self, unlearned, target):
            calls.append(len(target))
            super().update(unlearned, target)

    class Kept(Counted):
        key = "kept"

        def __init__(self):
            super().__init__()
            self.add_state("most", torch.zeros(()), dist_reduce_fx="max")

    for metric, expected in ((Counted(), [30, 30]), (Kept(), [30, 30, 30, 30])):
        calls = []
        suite = Suite([metric])
        suite.update(columns())
        assert calls == expected
        whole = rows(columns(), "retain_test", "forget_test")
        right = (whole["unlearned"].argmax(1) == whole["target"]).double().mean().item()
        assert suite.compute()[f"whole/{metric.key}"] == pytest.approx(right, rel=1e-14)


def test_a_model_against_itself():
    data = columns()
    data["retrained"] = data["unlearned"].clone()
    model = nn.Linear(3, 2)
    suite = Suite()
    suite.update(data)
    suite.update_models({"unlearned_model": model, "retrained_model": model})
    values = suite.compute()
    for place in ("whole", "retain", "forget"):
        assert values[f"{place}/activation_distance"] == values[f"{place}/js_divergence"] == 0.0
        assert values[f"{place}/completeness"] == 1.0
    assert values["layerwise_distance"] == 0.0


def test_an_empty_set_is_an_error_that_names_it():
    suite = Suite([Accuracy()])
    suite.update(columns(part=torch.full((120,), CODE["retain_test"])))
    with pytest.raises(DataError, match="forget/accuracy: Expected at least one sample"):
        suite.compute()


def test_without_training_rows_the_attack_is_an_error():
    suite = Suite([MIA()])
    suite.update(columns(part=torch.arange(120) % 2))
    with pytest.raises(DataError, match="mia: Expected samples of D_r"):
        suite.compute()


def test_nothing_given_is_an_error():
    with pytest.raises(DataError, match="call update first"):
        Suite().compute()


def test_a_part_column_is_needed():
    with pytest.raises(ConfigError, match="column 'part'"):
        Suite().update({"unlearned": torch.zeros(2, 3)})


def test_two_metrics_with_one_key_are_refused():
    with pytest.raises(ConfigError, match="got 'accuracy' twice"):
        Suite([Accuracy(), Accuracy()])
    assert len(Suite([Accuracy(), Accuracy("batch_mean")]).copies) == 6


def test_an_unknown_set_is_refused():
    class Odd(Accuracy):
        sets = ("wohle",)

    with pytest.raises(UnknownNameError, match="did you mean 'whole'"):
        Suite([Odd()])


def test_reset_forgets_all_rows():
    suite = Suite([Accuracy(), MIA()])
    suite.update(columns(seed=1))
    suite.compute()
    suite.reset()
    with pytest.raises(DataError, match="call update first"):
        suite.compute()
    suite.update(columns(seed=2))
    fresh = Suite([Accuracy(), MIA()])
    fresh.update(columns(seed=2))
    assert suite.compute() == fresh.compute()


@pytest.mark.parametrize(("random", "sets"), [(False, TARGETED), (True, RANDOM)])
def test_parts_that_a_column_is_read_in(random, sets):
    suite = Suite(random=random)
    assert suite.parts("unlearned") == suite.parts("index") == set(PARTS)
    assert suite.parts("retrained") == {part for place in sets.values() for part in place}
    assert suite.parts("incompetent") == suite.parts("original") == set(sets["forget"])
    assert Suite([Accuracy()]).parts("retrained") == set()


def test_it_works_inside_and_outside_of_inference_mode():
    suite = Suite([Accuracy(), MIA(), LayerwiseDistance()])
    with torch.inference_mode():
        suite.update(columns())
        suite.update_models(networks())
        first = suite.compute()
        suite.reset()
    suite.update(columns())
    suite.update_models(networks())
    assert suite.compute() == first


def test_gaps_are_formed_of_values_of_the_unlearned_model_alone():
    places = ("whole", "retain", "forget")
    expected = {f"{place}/{key}" for place in places for key in ("accuracy", "loss")} | {"forget/zrf", "mia"}
    assert Suite().gap_keys == expected


def test_a_metric_of_a_user_joins_in():
    class Confidence(SampleMean):
        """Mean largest probability."""

        key = "confidence"
        sets = ("forget",)
        inputs = ("unlearned",)

        def update(self, unlearned):
            self._add(self._wide(unlearned).softmax(dim=1).amax(dim=1))

    data = columns()
    suite = Suite([Confidence(), Loss()])
    suite.update(data)
    expected = rows(data, "forget_test")["unlearned"].double().softmax(dim=1).amax(dim=1).mean().item()
    assert suite.compute()["forget/confidence"] == pytest.approx(expected, rel=1e-12)
