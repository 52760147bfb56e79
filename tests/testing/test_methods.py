"""check_method accepts every built-in method and refuses each kind of broken one."""

import random
import re
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional

import supreme.methods
from supreme.batch import Phase
from supreme.components import listing, load
from supreme.distributed import Frozen
from supreme.methods.base import UnlearningMethod
from supreme.testing import check_method

SMALL = {
    "Retrain": {"epochs": 2},
    "FineTune": {"epochs": 2},
    "UNSIR": {"noise_steps": 3, "noise_batch_size": 8, "noise_repeats": 3},
    "SSD": {"selection_weight": 1.0},
    "LFSSD": {"selection_weight": 1.0},
    "SSDDet": {"selection_weight": 1.0},
    "LFSSDDet": {"selection_weight": 1.0},
    "SCRUB": {"epochs": 3},
    "NegGrad": {"epochs": 2},
    "JIT": {"epochs": 2, "n_samples": 2},
}
NAMES = [component.name for component in listing("methods", plugins=False)]


@pytest.mark.distributed
@pytest.mark.parametrize("name", NAMES)
def test_built_in_methods_keep_the_contract_on_one_process_and_on_two(name):
    check_method(getattr(supreme.methods, name), processes=2, **SMALL.get(name, {}))


def test_arguments_are_of_methods_that_exist():
    assert {"FineTune", "SSD", "UNSIR"} <= set(NAMES)
    assert all(hasattr(load(f"supreme.methods.{name}"), "phases") for name in NAMES)


class Good(UnlearningMethod):
    """Descends on the retain set; what the broken methods below are made of."""

    needs = ("retain",)
    data = "retain"
    mode = "train"

    @property
    def phases(self):
        return [Phase(self.data, mode=self.mode)]

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.1)


class NoSeed(Good):
    def __init__(self, original):
        super().__init__(original)


class OriginalByName(Good):
    def __init__(self, *, original, seed=0):
        super().__init__(original, seed)


class ForgetsItsSeed(Good):
    def __init__(self, original, seed=0):
        super().__init__(original)


class TakesAnything(Good):
    def __init__(self, original, anything=None, seed=0):
        super().__init__(original, seed)


class KeepsFunction(Good):
    def __init__(self, original, seed=0):
        super().__init__(original, seed)
        self.function = lambda x: x


class WorksOnTheOriginal(Good):
    def __init__(self, original, seed=0):
        super().__init__(original, seed)
        self.model = original


class ChangesTheOriginal(Good):
    def __init__(self, original, seed=0):
        super().__init__(original, seed)
        self.given = (original,)

    def finish(self):
        with torch.no_grad():
            self.given[0][0].weight.mul_(0.5)


class SwitchesTheOriginal(Good):
    def __init__(self, original, seed=0):
        super().__init__(original.eval(), seed)


class DrawsPhases(Good):
    @property
    def phases(self):
        return [Phase("retain", passes=random.randint(1, 10**6))]


class NamesPhases(Good):
    @property
    def phases(self):
        return ["retain"]


class NoPhases(Good):
    @property
    def phases(self):
        raise RuntimeError("not yet")


class ReadsMoreThanItNeeds(Good):
    data = "full"


class NeedsMagic(Good):
    needs = ("retain", "magic")


class NeverStops(Good):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.finished = True


class NeverFinishes(Good):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        pass


class FinishesInSilence(Good):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trainer.should_stop = batch.step.last

    def on_fit_end(self):
        pass


class ByHand(Good):
    def __init__(self, original, seed=0):
        super().__init__(original, seed)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class IgnoresTheMode(Good):
    mode = "eval"

    def on_train_batch_start(self, batch, batch_idx):
        self._phase = batch.step.phase


class EditsTooLate(Good):
    def on_train_end(self):
        with torch.no_grad():
            self.model[0].weight.mul_(0.5)


class SavesItself(Good):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["method"] = type(self)


class Diverges(Good):
    def loss(self, batch):
        return super().loss(batch) * torch.inf


class EndsInTrainMode(Good):
    def on_train_end(self):
        self.model.train()


class DoesNothing(Good):
    def loss(self, batch):
        return 0 * super().loss(batch)


class ReplacesTheNetwork(Good):
    def prepare(self, request):
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


class TeacherInTheStateDict(Good):
    def __init__(self, original, seed=0):
        super().__init__(original, seed)
        self.teacher = nn.Linear(1, 1).requires_grad_(False)


class UnnamedTeacher(Good):
    def prepare(self, request):
        self.teacher = Frozen(nn.Linear(1, 1))


class WithTeacher(Good):
    frozen_names = ("teacher",)

    def prepare(self, request):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.teacher = Frozen(nn.Linear(1, 1))


class MovesItsTeacher(WithTeacher):
    def end_phase(self, phase):
        with torch.no_grad():
            self.teacher.model.weight.add_(1.0)


class TrainsItsTeacher(WithTeacher):
    def end_phase(self, phase):
        self.teacher.model.train()


class DrawsFromTheGlobalGenerator(Good):
    def loss(self, batch):
        return super().loss(batch) * torch.rand(())


class ObeysMaxEpochs(Good):
    def loss(self, batch):
        return super().loss(batch) / self.trainer.max_epochs


class PeeksAtTheForgetSet(Good):
    def loss(self, batch):
        hidden = self.trainer.datamodule._train.parts[1].images
        return super().loss(batch) * hidden.square().mean()


class TakesAClassForGranted(Good):
    def loss(self, batch):
        return super().loss(batch) * (batch.target != self.request.forget_classes[0])


class DoesNotRefuse(Good):
    needs = ("retain", "class")

    def setup(self, stage):
        self.request = self.trainer.datamodule.request


class SpreadOfABatch(Good):
    def loss(self, batch):
        return super().loss(batch) * batch.image.std(dim=0).mean()


class CannotBeTried(Good):
    def finish(self):
        if self.trainer.fast_dev_run:
            raise RuntimeError("no time for that")


BROKEN = [
    (nn.Linear, "a subclass of UnlearningMethod"),
    (OriginalByName, "the original model as first argument"),
    (NoSeed, "__init__, which has to take both"),
    (ForgetsItsSeed, "the attribute seed to be the argument, got 0"),
    (KeepsFunction, "copying and pickling the method"),
    (WorksOnTheOriginal, "a copy of the original, got the original itself"),
    (ChangesTheOriginal, "the original to stay as it was, got '0.weight' differs"),
    (SwitchesTheOriginal, "mode and requires_grad of the original"),
    (DrawsPhases, "equal phases each time"),
    (NamesPhases, "phases to be Phase objects"),
    (NoPhases, "reading phases before the fit to work, got RuntimeError: not yet"),
    (ReadsMoreThanItNeeds, r"needs to name what phases read \(\['forget', 'retain'\]\)"),
    (NeedsMagic, "needs from"),
    (NeverStops, "to stop by itself after its phases, got \\d+ batches where its phases have 2"),
    (NeverFinishes, "to work, got ConfigError: NeverFinishes was stopped before its last batch"),
    (FinishesInSilence, "finished to be set"),
    (ByHand, "automatic optimisation, got manual"),
    (IgnoresTheMode, "the network in the mode of the phase, got another in phase 0"),
    (EditsTooLate, "the checkpoint to hold the weights of M_u, got 'model.0.weight' differs"),
    (SavesItself, "reading a checkpoint of the fit as plain weights to work, got UnpicklingError"),
    (Diverges, "finite weights, got NaN or infinity in"),
    (EndsInTrainMode, "M_u in evaluation mode"),
    (DoesNothing, "or pass changes=False"),
    (ReplacesTheNetwork, "the original's weights by name"),
    (TeacherInTheStateDict, "a state dict of self.model only, got .*teacher.weight"),
    (UnnamedTeacher, r"every Frozen in frozen_names, got \['teacher'\] missing"),
    (MovesItsTeacher, "the frozen network teacher to stay as it was, got 'weight' differs by 1"),
    (TrainsItsTeacher, "teacher in evaluation mode without gradients"),
    (DrawsFromTheGlobalGenerator, "equal weights for equal seeds"),
    (ObeysMaxEpochs, "equal weights for equal seeds"),
    (PeeksAtTheForgetSet, "no influence of the forget images"),
    (TakesAClassForGranted, "Trainer.*to work, got TypeError"),
    (DoesNotRefuse, "NotApplicableError for a request without a class"),
    (SpreadOfABatch, "finite weights with a last batch of one sample"),
    (CannotBeTried, "to work, got RuntimeError: no time for that"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("method", "text"), BROKEN, ids=[method.__name__ for method, _ in BROKEN])
def test_every_broken_promise_is_found(method, text):
    changes = method is not KeepsFunction
    with pytest.raises(AssertionError, match=text) as caught:
        check_method(method, changes=changes)
    assert str(caught.value).startswith(f"{method.__name__}: expected ")
    assert "Look at " in str(caught.value)


def test_the_methods_that_the_broken_ones_derive_from_are_good():
    check_method(Good)
    check_method(WithTeacher)


def test_arguments_have_to_travel():
    with pytest.raises(AssertionError, match="copying and pickling the argument 'anything'"):
        check_method(TakesAnything, anything=lambda: 0)


def test_no_change_can_be_declared():
    check_method(DoesNothing, changes=False)


def test_another_network_and_shape():
    class Linear(Good):
        """Needs nothing of convolutions."""

        def loss(self, batch):
            return functional.cross_entropy(self.model(batch.image), batch.target, reduction="none")

    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(AssertionError, match="pickling the method"):
        check_method(Linear, network=network, image_shape=(3, 2, 2))
    check_method(Good, network=network, image_shape=(3, 2, 2))


@pytest.mark.distributed
def test_a_mean_over_the_rows_of_a_rank_is_found(apart):
    check_method(apart.LocalMean)
    with pytest.raises(AssertionError, match=r"2 processes to give the weights of one .* on rank 0 '.*' differs"):
        check_method(apart.LocalMean, processes=2)


@pytest.mark.distributed
def test_a_class_that_other_processes_cannot_import(monkeypatch):
    here = types.ModuleType("nowhere_to_be_found")
    here.Good = Good
    monkeypatch.setitem(sys.modules, here.__name__, here)
    monkeypatch.setattr(Good, "__module__", here.__name__)
    with pytest.raises(AssertionError, match=re.escape("class and arguments must be importable")):
        check_method(Good, processes=2)
