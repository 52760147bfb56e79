import io
import multiprocessing
import os
import queue
import socket
import threading
import time
import traceback
import types
from importlib import import_module

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class Clock:
    """A clock that stands still until somebody spends time on it."""

    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


class Net(LightningModule):
    """A module that spends a given time in each of its hooks; ``costs`` maps a hook to seconds."""

    def __init__(self, spend, costs, steps=2, manual=False):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.spend, self.costs, self.steps = spend, costs, steps
        self.automatic_optimization = not manual

    def cost(self, hook):
        seconds = self.costs.get(hook, 0.0)
        if seconds:
            self.spend(seconds)

    def setup(self, stage):
        self.cost("setup")

    def on_fit_start(self):
        self.cost("on_fit_start")

    def on_train_start(self):
        self.cost("on_train_start")

    def on_train_epoch_start(self):
        self.cost("on_train_epoch_start")

    def on_train_batch_start(self, batch, batch_idx):
        self.cost("on_train_batch_start")

    def training_step(self, batch, batch_idx):
        self.cost("training_step")
        return self.layer(batch).sum()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.cost("on_train_batch_end")
        if self.trainer.is_last_batch:
            self.cost("last")

    def on_train_epoch_end(self):
        self.cost("on_train_epoch_end")

    def on_train_end(self):
        self.cost("on_train_end")

    def on_validation_start(self):
        self.cost("on_validation_start")

    def on_validation_end(self):
        self.cost("on_validation_end")

    def validation_step(self, batch, batch_idx):
        self.cost("validation_step")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return Batches(self.steps, lambda: self.cost("fetch"))

    def val_dataloader(self):
        return Batches(1, lambda: self.cost("val_fetch"))


class Batches:
    """A loader of ``count`` batches that acts before each."""

    def __init__(self, count, before):
        self.count, self.before = count, before

    def __len__(self):
        return self.count

    def __iter__(self):
        for _ in range(self.count):
            self.before()
            yield torch.ones(3, 2)


def sampler_threads():
    return [thread for thread in threading.enumerate() if thread.name == "supreme-sampler"]


def fit(module, *callbacks, ckpt_path=None, **settings):
    trainer = Trainer(**{**QUIET, "max_epochs": 1, **settings}, callbacks=list(callbacks))
    trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock of ElapsedTime by one that only moves when told to."""
    made = Clock()
    monkeypatch.setattr(import_module("supreme.callbacks.time"), "time", made)
    return made


@pytest.fixture
def kit():
    """The things above, since test files cannot import each other."""
    return types.SimpleNamespace(
        Net=Net,
        Batches=Batches,
        Clock=Clock,
        QUIET=QUIET,
        fit=fit,
        on_ranks=on_ranks,
        sampler_threads=sampler_threads,
        fake_trainer=fake_trainer,
    )


def fake_trainer(device):
    """What the callbacks ask of a trainer on an accelerator that this machine does not have."""
    strategy = types.SimpleNamespace(root_device=torch.device(device), barrier=lambda name=None: None, launcher=None)
    return types.SimpleNamespace(strategy=strategy, world_size=1)


def _child(rank, world, port, function, arguments, results):
    os.environ.update(
        LOCAL_RANK=str(rank),
        RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    torch.set_num_threads(1)
    try:
        answer = (rank, True, function(rank, *arguments))
    except BaseException:
        answer = (rank, False, traceback.format_exc())
    buffer = io.BytesIO()
    torch.save(answer, buffer)
    results.put(buffer.getvalue())


def on_ranks(function, *arguments, world=2, limit_s=60.0):
    """Runs ``function(rank, *arguments)`` in forked ranks; returns the results by rank, or the error texts."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [
        context.Process(target=_child, args=(rank, world, port, function, arguments, results)) for rank in range(world)
    ]
    for child in children:
        child.start()
    answers = {}
    end = time.monotonic() + limit_s
    try:
        while len(answers) < world and time.monotonic() < end:
            try:
                raw = results.get(timeout=1.0)
            except queue.Empty:
                continue
            rank, done, value = torch.load(io.BytesIO(raw), weights_only=False)
            answers[rank] = (done, value)
    finally:
        for child in children:
            child.join(5.0)
            if child.is_alive():
                child.kill()
    return answers
