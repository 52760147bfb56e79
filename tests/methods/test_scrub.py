"""SCRUB against stored results; what it turns into at its borders; which epoch a rewind chooses."""

import copy

import pytest
import torch
from torch.utils.data import TensorDataset

from supreme.errors import ConfigError, DataError
from supreme.methods import SCRUB, FineTune


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["scrub", "scrub_sgd"])
def test_published_weights(case, name, dtype):
    golden = case(name, dtype)
    values = golden.meta["hyperparameters"]
    result = golden.unlearn(
        "SCRUB",
        epochs=values["sgda_epochs"],
        lr=values["sgda_learning_rate"],
        gamma=values["gamma"],
        alpha=values["alpha"],
        smoothing=values["smoothing"],
        max_steps=values["msteps"],
        temperature=values["kd_T"],
        weight_decay=values["sgda_weight_decay"],
        milestones=values["lr_decay_epochs"],
        decay=values["lr_decay_rate"],
        optimizer=values["optimizer_type"],
        momentum=values.get("sgda_momentum", 0.9),
    )
    golden.check(result.model.state_dict())


def test_without_maximisation_and_distillation_it_is_fine_tuning(tiny, fit, same_weights):
    arguments = {"lr": 0.05, "momentum": 0.8, "weight_decay": 1e-3}
    scenario = tiny.scenario(shuffle=False)
    scrub = SCRUB(
        tiny.network(), epochs=3, max_steps=0, gamma=1.0, alpha=0.0, optimizer="sgd", milestones=(), **arguments
    )
    tuned = fit(FineTune(tiny.network(), epochs=3, **arguments), scenario)
    assert same_weights(fit(scrub, scenario).model, tuned.model)


def test_phases_and_learning_rates(tiny):
    method = SCRUB(tiny.network(), epochs=4, max_steps=2, lr=1.0, milestones=(1, 2), decay=0.1, forget_batch_size=3)
    assert [phase.data for phase in method.phases] == ["forget", "retain", "forget", "retain", "retain", "retain"]
    assert [phase.lr for phase in method.phases] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [phase.batch_size for phase in method.phases][:2] == [3, None]


def test_smoothing_pulls_towards_the_original(tiny, fit):
    start = tiny.network()

    def distance(smoothing):
        method = fit(SCRUB(start, epochs=4, smoothing=smoothing, weight_decay=0.0, lr=5e-3), tiny.scenario())
        pairs = zip(method.model.parameters(), start.parameters(), strict=True)
        return sum((a - b).square().sum().item() for a, b in pairs) ** 0.5

    assert distance(5.0) < 0.7 * distance(0.0)


def test_teacher_and_original_stay(tiny, fit, same_weights):
    network = tiny.network()
    before = copy.deepcopy(network)
    method = fit(SCRUB(network, epochs=2, max_steps=1, lr=0.05), tiny.scenario())
    assert same_weights(network, before)
    assert same_weights(method.teacher.model, before)
    assert not same_weights(method.model, before)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"max_steps": -1}, {"temperature": 0}, {"optimizer": "adamw"}])
def test_ranges(tiny, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SCRUB(tiny.network(), **wrong)


# --- SCRUB+R ---------------------------------------------------------------------------------------------------------

ERRING = {"max_steps": 3, "weight_decay": 1e-3, "milestones": (5,), "lr": 0.03, "smoothing": 0.3}


@pytest.fixture(scope="module")
def learnt(tasks):
    """A network that has learnt D, so that its error on D_f changes while it unlearns."""
    network = tasks.tiny_network()
    images, labels = tasks.tiny_images()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def scenario(tiny):
    """Fixed order: the order of a pass is keyed by its phase, and a rewind adds phases."""
    return lambda **settings: tiny.scenario(shuffle=False, **settings)


def error(model, images, labels):
    with torch.no_grad():
        return (model.eval()(images).argmax(1) != labels).double().mean().item()


@pytest.fixture(scope="module", params=["adam", "sgd"])
def epochs(request, tasks, learnt):
    """Optimiser, and the model that SCRUB has after 1, 2, ... epochs, each from a fit of its own."""
    scenario = tasks.tiny_scenario(shuffle=False)
    arguments = {**ERRING, "optimizer": request.param}
    return request.param, [tasks.fit(SCRUB(learnt, epochs=k, **arguments), scenario).model for k in range(1, 8)]


def rewound(fit, scenario, learnt, optimizer, **reference):
    return fit(SCRUB(learnt, epochs=7, optimizer=optimizer, **ERRING, **reference), scenario)


def test_a_rewind_ends_where_fewer_epochs_end(tiny, fit, scenario, learnt, epochs, same_weights):
    """Measuring moves neither weights nor moments nor statistics; the nearest epoch is chosen, the last of several."""
    optimizer, models = epochs
    forget = tiny.sets()[0].tensors
    errors = [error(model, *forget) for model in models]
    assert len(set(errors)) >= 3
    for reference in (0.0, 0.2, 0.5, 1.0):
        method = rewound(fit, scenario(), learnt, optimizer, reference_error=reference)
        best = min(range(7), key=lambda k: (abs(errors[k] - reference), -k))
        assert method.rewind.errors == errors
        assert method.rewind.epoch == best + 1
        assert same_weights(method.model, models[best])
        assert not method.model.training


def test_the_reference_is_the_error_of_the_last_model_on_unseen_samples(
    tiny, fit, scenario, learnt, epochs, same_weights
):
    optimizer, models = epochs
    images, labels = (values[45:] for values in tiny.images(105))
    for classes in ([2], [0, 1, 2, 3]):  # samples of classes that D_f lacks count nothing
        keep = torch.isin(labels, torch.tensor(classes))
        held_out = TensorDataset(images[keep], labels[keep])
        method = rewound(fit, scenario(), learnt, optimizer, validation=held_out)
        expected = error(models[-1], images[labels == 2], labels[labels == 2])
        assert method.rewind.reference == pytest.approx(expected, abs=1e-12)
        assert same_weights(method.model, models[method.rewind.epoch - 1])
        gaps = [abs(value - expected) for value in method.rewind.errors]
        assert gaps[method.rewind.epoch - 1] == min(gaps)


def test_classes_weigh_as_much_as_in_the_forget_set(tiny, fit, learnt):
    """D_f with classes 0 and 1 as 9 : 3, held-out samples as 5 : 34."""
    from supreme.scenarios.given_sets import GivenSets

    images, labels = tiny.images(80)
    index = [(labels == k).nonzero().flatten() for k in range(4)]
    forget = torch.cat([index[0][:9], index[1][:3]])
    held = torch.cat([index[0][9:14], index[1][3:], index[1][3:]])
    sets = [TensorDataset(images[part], labels[part]) for part in (forget, torch.cat(index[2:]))]
    held_out = TensorDataset(images[held], labels[held])
    data = GivenSets(*sets, 4, batch_size=8, shuffle=False)
    method = fit(SCRUB(learnt, epochs=5, validation=held_out, **ERRING), data)
    last = fit(SCRUB(learnt, epochs=5, **ERRING), data).model
    rates = [error(last, images[held][labels[held] == k], labels[held][labels[held] == k]) for k in (0, 1)]
    assert method.rewind.reference == pytest.approx(0.75 * rates[0] + 0.25 * rates[1], abs=1e-12)
    assert abs(rates[0] - rates[1]) > 0.1


def test_without_held_out_samples_of_a_class_there_is_no_reference(tiny, fit, learnt):
    images, labels = tiny.images(20)
    others = TensorDataset(images[labels != 2], labels[labels != 2])
    with pytest.raises(DataError, match=r"SCRUB\+R has no reference error: D_f has samples of class 2"):
        fit(SCRUB(learnt, epochs=2, validation=others), tiny.scenario())


def test_references_that_cannot_be_used(tiny):
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"reference_error in \[0, 1\]"):
            SCRUB(tiny.network(), reference_error=wrong)
    with pytest.raises(ConfigError, match="got both"):
        SCRUB(tiny.network(), reference_error=0.1, validation=tiny.sets()[0])


def test_a_rewind_needs_all_epochs(tiny, fit, tmp_path):
    from lightning.pytorch import Callback

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 1:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    arguments = {"epochs": 2, "reference_error": 0.5}
    fit(SCRUB(tiny.network(), **arguments), tiny.scenario(), callbacks=[Save()])
    with pytest.raises(ConfigError, match="cannot go on from a checkpoint"):
        fit(SCRUB(tiny.network(), **arguments), tiny.scenario(), ckpt_path=tmp_path / "mid.ckpt")


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["error", "set"])
def test_a_rewind_keeps_the_contract(tiny, kind):
    from supreme.testing import check_method
    from supreme.testing.contract import small_sets

    held_out = small_sets(9, 30, (1, 4, 4))
    given = {"reference_error": 0.4} if kind == "error" else {"validation": held_out[0] + held_out[1]}
    check_method(SCRUB, epochs=3, max_steps=2, lr=0.05, processes=2, **given)
