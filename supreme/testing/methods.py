"""check_method: what every unlearning method has to keep."""

import copy
import inspect
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from supreme.batch import Batch, Phase
from supreme.distributed import Frozen, hushed, quiet_trainer
from supreme.errors import NotApplicableError
from supreme.methods.base import UnlearningMethod
from supreme.scenarios.given_sets import GivenSets
from supreme.testing.contract import CLASSES, Contract, difference, small_network, small_sets, snapshot
from supreme.testing.processes import in_processes

NEEDS = ("forget", "retain", "class")
READS: Mapping[str, tuple[str, ...]] = {
    "forget": ("forget",),
    "retain": ("retain",),
    "full": ("forget", "retain"),
    "none": (),
}
BATCH_SIZE = 15  # odd, so that two processes have uneven shares
SIZES = (16, 30)  # the last batch of D_f and of D has one sample
OTHER_SIZES = (15, 31)  # the last batch of D_r and of D has one sample
TOLERANCE = 1e-8


def check_method(
    method: type[UnlearningMethod],
    *,
    processes: int = 1,
    changes: bool = True,
    network: nn.Module | None = None,
    image_shape: tuple[int, ...] = (1, 4, 4),
    **arguments: Any,
) -> None:
    """Fit a method a few times on a small task and check everything that the rest of the package relies on.

    The method takes the original model first; declares its phases and needs; leaves the original untouched; stops by
    itself under a stock Trainer, whatever its ``max_epochs``; reads only what it declares; gives the same weights for
    the same seed and, with ``processes``, on any number of processes; copes with a last batch of one sample; gives
    finite weights in evaluation mode that a ModelCheckpoint has saved as they are; and keeps its frozen networks
    unchanged and out of the state dict.

    Args:
        method: the class.
        processes: 2 or more also compares one process with so many under DDP, in float64; class and arguments have to
            be importable and picklable then.
        changes: whether the weights have to differ from those of the original.
        network: an original model for images of ``image_shape`` and three classes; None takes a small one with
            BatchNorm.
        image_shape: shape of the images.
        arguments: the method's own arguments; choose small numbers.

    Raises:
        AssertionError: if a promise is broken; the text says which one and where to look.

    Example:
        >>> from supreme.methods import FineTune
        >>> check_method(FineTune, epochs=1)
    """
    task = _Task(method, small_network() if network is None else network, image_shape, arguments)
    task.check_declarations()
    if task.build().phases:
        task.check_fit(changes)
        task.check_determinism()
        task.check_reading()
        task.check_request()
        if processes > 1:
            task.check_processes(processes)


class _Watch(Callback):
    """What happens during a fit: batches, modes, and the frozen networks at its start."""

    def __init__(self) -> None:
        self.batches = 0
        self.expected = 0
        self.wrong_mode = ""
        self.phase = 0
        self.frozen: dict[str, dict[str, Tensor]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the frozen networks."""
        for name in getattr(pl_module, "frozen_names", ()):
            frozen = getattr(pl_module, name, None)
            if isinstance(frozen, Frozen):
                self.frozen[name] = snapshot(frozen.model)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Remember the phase."""
        self.phase = batch.step.phase

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Compare the mode of the network with that of the phase."""
        phase: Phase = pl_module.phases[self.phase]  # type: ignore[index, assignment]
        if pl_module.model.training != (phase.mode == "train"):  # type: ignore[union-attr]
            self.wrong_mode = f"another in phase {self.phase}"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count batches of the whole fit."""
        self.batches += 1
        self.expected = int(trainer.num_training_batches)


class _Task:
    """A method with its arguments, and everything that is checked about them."""

    def __init__(
        self, method: type[UnlearningMethod], network: nn.Module, shape: tuple[int, ...], arguments: Mapping[str, Any]
    ) -> None:
        self.method, self.network, self.shape, self.arguments = method, network, shape, dict(arguments)
        self.contract = Contract(getattr(method, "__name__", repr(method)))
        self.before = snapshot(network)
        self.modes = [network.training, *(parameter.requires_grad for parameter in network.parameters())]

    def build(self, seed: int = 3) -> UnlearningMethod:
        """The method around the original model."""
        with self.contract.during("method(original, **arguments, seed=...)", "__init__, which has to take both"):
            return self.method(self.network, **self.arguments, seed=seed)

    def scenario(
        self, sizes: tuple[int, int] = SIZES, classes: Sequence[int] | None = (0,), spoilt: str = ""
    ) -> GivenSets:
        """The forget request; the images of a spoilt set are NaN."""
        forget, retain = (
            TensorDataset(torch.full_like(part.tensors[0], torch.nan), part.tensors[1]) if name == spoilt else part
            for name, part in zip(("forget", "retain"), small_sets(*sizes, self.shape), strict=True)
        )
        return GivenSets(forget, retain, CLASSES, forget_classes=classes, batch_size=BATCH_SIZE)

    def fit(
        self, method: UnlearningMethod, scenario: GivenSets, disturb: int = 0, **trainer: Any
    ) -> tuple[UnlearningMethod, _Watch]:
        """Fit in a stock Trainer, with the global generators in some state or other."""
        watch = _Watch()
        callbacks = [*trainer.pop("callbacks", ()), watch]
        with hushed(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(disturb)
            with self.contract.during("Trainer(...).fit(method, datamodule=scenario)", "the traceback above"):
                stock = quiet_trainer("cpu", **{"max_epochs": 3, **trainer}, callbacks=callbacks)
                stock.fit(method, datamodule=scenario)
        return method, watch

    def check_declarations(self) -> None:
        """Constructor, phases, needs and arguments."""
        require, method = self.contract.require, self.method
        is_method = isinstance(method, type) and issubclass(method, UnlearningMethod)
        require(is_method, "a subclass of UnlearningMethod", repr(method), "the class statement")
        first = next(iter(inspect.signature(method).parameters.values()), None)
        positional = first is not None and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
        require(positional, "the original model as first argument", f"{inspect.signature(method)}", "__init__")
        self.contract.require_portable(self.arguments)
        built = self.build(seed=5)
        require(
            built.seed == 5, "the attribute seed to be the argument", repr(built.seed), "super().__init__(..., seed)"
        )
        require(built.model is not self.network, "a copy of the original", "the original itself", "super().__init__")
        with self.contract.during("copying and pickling the method", "what __init__ keeps"):
            copy.deepcopy(built)
            pickle.dumps(built)
        self._check_phases(built)

    def _check_phases(self, built: UnlearningMethod) -> None:
        require, needs = self.contract.require, tuple(built.needs)
        require(set(needs) <= set(NEEDS), f"needs from {NEEDS}", repr(needs), "the class attribute needs")
        with self.contract.during("reading phases before the fit", "the property phases"):
            phases = list(built.phases)
        good = all(isinstance(phase, Phase) for phase in phases)
        require(good, "phases to be Phase objects", repr(phases), "the property phases")
        require(
            list(built.phases) == phases, "equal phases each time", "others", "the property phases; it draws nothing"
        )
        read = {part for phase in phases for part in READS[phase.data]}
        missing = sorted(read - set(needs))
        require(not missing, f"needs to name what phases read ({sorted(read)})", repr(needs), "the attribute needs")

    def check_fit(self, changes: bool) -> None:
        """One fit under a stock Trainer, with a checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            saver = ModelCheckpoint(dirpath=folder, filename="end")
            method, watch = self.fit(self.build(), self.scenario(), callbacks=[saver], enable_checkpointing=True)
            self._check_stop(method, watch)
            self._check_checkpoint(method, Path(folder) / "end.ckpt")
        require, look = self.contract.require, "what is done to the argument of __init__; work on self.model"
        text = difference(self.before, snapshot(self.network))
        require(not text, "the original to stay as it was", text, look)
        modes = [self.network.training, *(parameter.requires_grad for parameter in self.network.parameters())]
        require(modes == self.modes, "mode and requires_grad of the original to stay", "others", look)
        self._check_result(method, changes)
        self._check_frozen(method, watch)

    def _check_stop(self, method: UnlearningMethod, watch: _Watch) -> None:
        require, hook = self.contract.require, "on_train_batch_end, which has to call super().on_train_batch_end(...)"
        served = f"{watch.batches} batches where its phases have {watch.expected}"
        require(watch.batches == watch.expected, "to stop by itself after its phases", served, hook)
        require(method.finished, "finished to be set", "False", hook)
        require(
            method.automatic_optimization, "automatic optimisation", "manual", "automatic_optimization; ZeRO needs it"
        )
        look = "on_train_batch_start, which has to call super().on_train_batch_start(...)"
        require(not watch.wrong_mode, "the network in the mode of the phase", watch.wrong_mode, look)

    def _check_checkpoint(self, method: UnlearningMethod, path: Path) -> None:
        require, look = self.contract.require, "edits after the last batch; make them in finish() or end_phase()"
        with self.contract.during("reading a checkpoint of the fit as plain weights", "what the module saves"):
            stored = torch.load(path, weights_only=True)["state_dict"]
        text = difference(snapshot(method), stored)
        require(not text, "the checkpoint to hold the weights of M_u", text, look)

    def _check_result(self, method: UnlearningMethod, changes: bool) -> None:
        require, after = self.contract.require, snapshot(method.model)
        broken = [name for name, value in after.items() if value.is_floating_point() and not value.isfinite().all()]
        require(not broken, "finite weights", f"NaN or infinity in {broken}", "the loss and the learning rate")
        require(not method.model.training, "M_u in evaluation mode", "train mode", "on_train_batch_end and finish")
        same_names = self.before.keys() == after.keys()
        require(
            same_names, "M_u to have the original's weights by name", str(sorted(after)), "what replaces self.model"
        )
        if changes:
            learnt = [name for name, _ in self.network.named_parameters()]
            moved = any(not torch.equal(self.before[name], after[name]) for name in learnt)
            require(
                moved, "weights other than the original's", "the same", "the loss and finish, or pass changes=False"
            )

    def _check_frozen(self, method: UnlearningMethod, watch: _Watch) -> None:
        require, wrap = self.contract.require, "frozen networks: wrap them in Frozen and name them in frozen_names"
        extra = [name for name in method.state_dict() if not name.startswith("model.")]
        require(not extra, "a state dict of self.model only", f"{extra[:3]} as well", wrap)
        hidden = [name for name, value in vars(method).items() if isinstance(value, Frozen)]
        hidden = [name for name in hidden if name not in method.frozen_names]
        require(not hidden, "every Frozen in frozen_names", f"{hidden} missing", wrap)
        for name, state in watch.frozen.items():
            frozen = getattr(method, name).model
            text = difference(state, snapshot(frozen))
            require(not text, f"the frozen network {name} to stay as it was", text, "what is done with its output")
            still = not frozen.training and not any(parameter.requires_grad for parameter in frozen.parameters())
            require(still, f"{name} in evaluation mode without gradients", "otherwise", wrap)

    def check_determinism(self) -> None:
        """The same seed gives the same weights, whatever the global generators hold and whatever max_epochs is."""
        first = self.fit(self.build(), self.scenario(), disturb=1)[0]
        second = self.fit(self.build(), self.scenario(), disturb=2, max_epochs=1)[0]
        text = difference(snapshot(first.model), snapshot(second.model))
        look = (
            "draws: take them from supreme.seeding.generator(self.seed, ...) or seeding.uniform, never from torch alone"
        )
        self.contract.require(not text, "equal weights for equal seeds", text, look)

    def check_reading(self) -> None:
        """Images of a set that no phase reads have no influence."""
        read = {part for phase in self.build().phases for part in READS[phase.data]}
        for part in sorted({"forget", "retain"} - read):
            result = self.fit(self.build(), self.scenario())[0]
            spoilt = self.fit(self.build(), self.scenario(spoilt=part))[0]
            text = difference(snapshot(result.model), snapshot(spoilt.model))
            look = "what it reads beside its batches; declare a Phase for all data that it needs"
            self.contract.require(not text, f"no influence of the {part} images, which no phase reads", text, look)

    def check_request(self) -> None:
        """A request without a class is served or refused, and a last batch of one sample does no harm."""
        random = self.scenario(OTHER_SIZES, None)
        if "class" in self.method.needs:
            self._check_refusal(random)
            random = self.scenario(OTHER_SIZES)
        method = self.fit(self.build(), random)[0]
        broken = [name for name, value in snapshot(method.model).items() if not value.double().isfinite().all()]
        look = "statistics over a batch, which may have one row; or a class that the request does not name"
        self.contract.require(not broken, "finite weights with a last batch of one sample", f"NaN in {broken}", look)
        self.fit(self.build(), self.scenario(), fast_dev_run=True)

    def _check_refusal(self, scenario: GivenSets) -> None:
        refused = False
        try:
            self.fit(self.build(), scenario)
        except AssertionError as error:
            refused = isinstance(error.__cause__, NotApplicableError)
        look = "setup, which has to call super().setup(stage), or drop 'class' from needs"
        self.contract.require(refused, "NotApplicableError for a request without a class", "another outcome", look)

    def check_processes(self, processes: int) -> None:
        """One process and several give the same weights in float64."""
        work = (self.method, self.network, self.shape, self.arguments)
        alone = _fit_double(*work, devices=1)
        look = "sums over a batch: losses are per row, and what is batch-wide is reduced with supreme.distributed"
        with self.contract.during(
            f"a fit in {processes} processes", "the text; class and arguments must be importable"
        ):
            ranks = in_processes(processes, _fit_double, *work, processes)
        for rank, state in enumerate(ranks):
            text = difference(alone, state, TOLERANCE)
            expected = f"{processes} processes to give the weights of one (within {TOLERANCE:g})"
            self.contract.require(not text, expected, f"on rank {rank} {text}", look)


def _fit_double(
    method: type[UnlearningMethod],
    network: nn.Module,
    shape: tuple[int, ...],
    arguments: Mapping[str, Any],
    devices: int,
) -> dict[str, Tensor]:
    """The weights of M_u after a fit in float64, in this process or as one of several ranks."""
    task = _Task(method, copy.deepcopy(network).double(), shape, arguments)
    forget, retain = (TensorDataset(part.tensors[0].double(), part.tensors[1]) for part in small_sets(*SIZES, shape))
    scenario = GivenSets(forget, retain, CLASSES, forget_classes=(0,), batch_size=BATCH_SIZE)
    module = task.build()
    with hushed():
        trainer = quiet_trainer("cpu", devices, "ddp" if devices > 1 else "auto", max_epochs=1)
        trainer.fit(module, datamodule=scenario)
    return snapshot(module.model)
