"""No step of a method waits for the device: what an accelerator would have to finish first is known beforehand."""

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch.utils._python_dispatch import TorchDispatchMode

import supreme
from supreme.classifier import ImageClassifier, Recipe
from supreme.methods import (
    ASSD,
    JIT,
    LFSSD,
    SCRUB,
    SSD,
    UNSIR,
    BadTeacher,
    FineTune,
    LFSSDDet,
    NegGrad,
    RandomLabels,
    Retrain,
    SSDDet,
)

WAITING = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "masked_select"}
METHODS = {
    **{method: {} for method in (SSD, LFSSD, ASSD, JIT)},
    **{method: {"selection_weight": 1.2} for method in (SSDDet, LFSSDDet)},
    **{method: {"epochs": 2} for method in (Retrain, FineTune, BadTeacher, RandomLabels, NegGrad, SCRUB)},
    UNSIR: {"noise_steps": 2, "noise_repeats": 1, "noise_batch_size": 3},
}


def in_the_optimiser():
    """Whether torch asks: Adam for its number of steps, which is on the host, or a scaler whether a step is to be."""
    frame, ours = sys._getframe(2), str(Path(supreme.__file__).parent)
    while frame is not None and not frame.f_code.co_filename.startswith(ours):
        if frame.f_code.co_filename.endswith("optim/adam.py") or frame.f_code.co_name == "_maybe_opt_step":
            return True
        frame = frame.f_back  # a training step runs inside the optimiser's, as its closure
    return False


class Operations(TorchDispatchMode):
    """Notes operations whose result has to be known on the host: numbers, and rows chosen by a mask."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        places = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        mask = any(place is not None and place.dtype in (torch.bool, torch.uint8) for place in places)
        if mask or (name in WAITING and not in_the_optimiser()):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    """Looks at every batch; the first one of a pass may decide something for the whole pass."""

    def __init__(self):
        self.found, self.operations = [], None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.operations = Operations()
        self.operations.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.operations.__exit__(None, None, None)
        step = batch.step
        self.operations, found = None, self.operations.found
        self.found.append(((step.phase, step.epoch, step.number), found))

    def on_exception(self, trainer, pl_module, exception):
        if self.operations is not None:  # a failing step must not leave every later test watched
            self.operations.__exit__(None, None, None)


def half():
    """16-mixed with a scaler, which torch has on a CPU too."""
    return {"precision": None, "plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}


@pytest.mark.parametrize("settings", [dict, half], ids=["float32", "16-mixed"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_steps_ask_the_device_nothing(method, settings, tiny, fit):
    watch = Watch()
    fit(method(tiny.network(), **METHODS[method]), tiny.scenario(batch_size=8), callbacks=[watch], **settings())
    assert len(watch.found) >= (1 if method is JIT else 2)
    asked = {place: names for place, names in watch.found if names}
    assert method is SCRUB or not asked
    assert all(number == 0 for _, _, number in asked)  # SCRUB looks once a pass whether the images are those it knows
    assert len(asked) < len(watch.found) / 2


def test_training_asks_the_device_nothing(tiny, fit):
    watch = Watch()
    fit(ImageClassifier(tiny.network(), Recipe(), 0), tiny.scenario(batch_size=8), callbacks=[watch])
    assert len(watch.found) > 3
    assert not any(names for _, names in watch.found)


def test_the_marks_of_rows_are_found_without_the_hook_too(tiny, fit, same_weights):
    class Unhooked(BadTeacher):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch

    arguments = {"lr": 0.01, "epochs": 2, "batch_size": 8}
    with_hook, without = (fit(kind(tiny.network(), **arguments), tiny.scenario()) for kind in (BadTeacher, Unhooked))
    assert same_weights(with_hook.model, without.model)
    assert not same_weights(with_hook.model, tiny.network())
