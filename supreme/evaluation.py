"""Evaluation: one forward pass per model and image, and every metric from it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from supreme.batch import PARTS, EvaluationBatch
from supreme.distributed import DistributedModule, Frozen, reshard
from supreme.errors import CheckpointError
from supreme.metrics.base import EvaluationMetric
from supreme.metrics.suite import Suite, default_metrics, has_gap
from supreme.metrics.table import Table
from supreme.precision import kind_of


class Outputs(NamedTuple):
    """What a model says about every image of an evaluation, in ascending order of (part, index).

    Attributes:
        part: int64 (n,), position in :data:`supreme.batch.PARTS`.
        index: int64 (n,), position in the training or test set.
        target: int64 (n,).
        logits: float (n, K).
    """

    part: Tensor
    index: Tensor  # type: ignore[assignment]
    target: Tensor
    logits: Tensor

    def save(self, path: str | Path) -> None:
        """Write the outputs to a safetensors file."""
        save_file(self._asdict(), path)

    @staticmethod
    def load(path: str | Path) -> "Outputs":
        """Read outputs that :meth:`save` wrote.

        Raises:
            CheckpointError: if the file is missing or damaged.
        """
        try:
            return Outputs(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:
            raise CheckpointError(f"Expected stored outputs in {path}, but they cannot be read: {error}.") from error

    def rows(self, part: Tensor, index: Tensor) -> Tensor:
        """Logits (n, K) of the given samples.

        Args:
            part: int64 (n,).
            index: int64 (n,).

        Raises:
            CheckpointError: if a sample is not among the outputs.
        """
        return self.logits[self._places(part.cpu(), index.cpu())].to(part.device)

    def split(self, sets: Mapping[str, Tensor]) -> "Outputs":
        """Outputs on the parts of a scenario, from those on all of D and D'.

        A model says the same about an image whatever is to be forgotten, so M_o is forwarded once for all targets.

        Args:
            sets: positions in D or D' by name of :data:`supreme.batch.PARTS`, ascending, as
                :meth:`supreme.scenarios.base.Scenario.indices` gives them. The outputs themselves are those of
                :class:`supreme.scenarios.whole_dataset.WholeDataset`, which calls all images retained.

        Raises:
            CheckpointError: if a sample is not among the outputs.

        Example:
            >>> index, logits = torch.arange(3), torch.tensor([[0.0], [1.0], [2.0]])
            >>> whole = Outputs(torch.full((3,), PARTS.index("retain_test")), index, index, logits)
            >>> found = whole.split({"retain_test": torch.tensor([0, 2]), "forget_test": torch.tensor([1])})
            >>> [PARTS[number] for number in found.part], found.index.tolist(), found.logits.flatten().tolist()
            (['retain_test', 'retain_test', 'forget_test'], [0, 2, 1], [0.0, 2.0, 1.0])
        """
        chosen = [(name, sets[name]) for name in PARTS if name in sets]
        index = torch.cat([rows for _, rows in chosen])
        part = torch.cat([torch.full_like(rows, PARTS.index(name)) for name, rows in chosen])
        retained = torch.tensor([PARTS.index(name.replace("forget", "retain")) for name in PARTS])
        places = self._places(retained[part], index)
        return Outputs(part, index, self.target[places], self.logits[places])

    def _places(self, part: Tensor, index: Tensor) -> Tensor:
        """Rows of the given samples."""
        if not len(index):  # a rank may have no sample of a part
            return index
        stride = int(self.index.max()) + 1
        wanted, known = part * stride + index, self.part * stride + self.index
        where = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
        if int(index.max()) >= stride or not bool((known[where] == wanted).all()):
            raise CheckpointError("Expected stored outputs for every sample, but some are missing; evaluate again.")
        return where


class _OutputTable(Table):
    """Rows (part, index, target, logits) of all ranks, float64 (n, 3 + K)."""

    key = "outputs"

    def update(self, part: Tensor, index: Tensor, values: Tensor) -> None:
        self._append(part, index, values)

    def compute(self) -> Any:
        rows = self._rows()
        return torch.cat([rows.part[:, None], rows.index[:, None], rows.values], dim=1)


class Evaluation(DistributedModule):
    """Compute all metrics of an unlearned model in one ``Trainer().test(evaluation, datamodule=scenario)``.

    Every model sees every image that its metrics need once. Outputs that exist already can be given, so that M_o, M_r
    and the incompetent teacher are forwarded once for all methods of a target. All models are in evaluation mode.
    Afterwards :attr:`scores` holds the values, :attr:`outputs` the logits by model.

    Args:
        unlearned: M_u; put into evaluation mode.
        retrained: M_r; without it the comparisons and gaps are left out. Frozen here, as the two others are.
        original: M_o; only ZRF looks at it.
        incompetent: a network with random weights; without it ZRF is left out.
        outputs: outputs by model (``"retrained"``, ``"original"``, ``"incompetent"``) that need no forward pass.
        metrics: what to compute; None takes all.
        random: whether the samples to forget were drawn at random (D'_f = D_f, D'_r = whole = D').
        seed: evaluation seed s_e.
        parts: names of :data:`supreme.batch.PARTS` on which M_u is forwarded whether or not a metric needs it.

    Differs from the published code in: every model is in evaluation mode (published: only M_u is); each value is a
    sum over samples (published: means of batch means); one forward pass serves all metrics.
    """

    frozen_names: ClassVar[tuple[str, ...]] = ("retrained", "original", "incompetent")

    def __init__(
        self,
        unlearned: nn.Module,
        retrained: nn.Module | None = None,
        original: nn.Module | None = None,
        incompetent: nn.Module | None = None,
        outputs: Mapping[str, Outputs] | None = None,
        metrics: Sequence[EvaluationMetric] | None = None,
        random: bool = False,
        seed: int = 0,
        parts: Collection[str] = (),
    ) -> None:
        super().__init__()
        chosen = default_metrics(seed) if metrics is None else list(metrics)
        self.model = unlearned.eval()
        self.retrained = None if retrained is None else Frozen(retrained)
        self.original = None if original is None else Frozen(original)
        self.incompetent = None if incompetent is None else Frozen(incompetent)
        self.given = dict(outputs or {})
        self.suite = Suite(chosen, random, seed)
        self.reference_suite = Suite([metric for metric in chosen if has_gap(metric)], random, seed)
        self.scores: dict[str, float] = {}
        self.outputs: dict[str, Outputs] = {}
        self._needed = {name: self.suite.parts(name) for name in ("unlearned", *self.frozen_names)}
        self._needed["unlearned"] |= frozenset(parts)
        if retrained is not None or "retrained" in self.given:
            self._needed["retrained"] |= self.suite.parts("unlearned")  # M_r's own values, for the gaps
        self._kept: dict[str, dict[str, list[Tensor]]] = {}
        self._tables = nn.ModuleDict()
        self._replaced = False

    @property
    def input_spec(self) -> dict[str, Any] | None:
        """Size, mean and standard deviation that the network asks for, None without a wish."""
        return getattr(self.model, "input_spec", None)

    @property
    def parts(self) -> frozenset[str]:
        """Names of :data:`supreme.batch.PARTS` to be served; one at least, or Lightning would skip the test."""
        return frozenset[str]().union(*self._needed.values()) or frozenset({"retain_test"})

    @property
    def reads_images(self) -> bool:
        """Whether any model has to be forwarded; where all outputs are given, images are not made ready for one."""
        made = {name for name in self._needed if name == "unlearned" or getattr(self, name) is not None}
        return any(self._needed[name] for name in made - self.given.keys())

    def setup(self, stage: str) -> None:
        """Compare weights before a precision replaces layers by such as keep them in another form."""
        self._replaced = kind_of(self.trainer.precision) != "float"
        if self._replaced:
            self._compare_weights()

    def on_test_start(self) -> None:
        """Move the reference models to the device."""
        self.place_frozen()

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Forward each model that a metric of this part needs and keep the logits; the device is not waited for."""
        rows = slice(0) if batch.filler else slice(None)
        kept = self._kept.setdefault(batch.place, {"part": [], "index": [], "target": []})
        for name, column in (("part", batch.part), ("index", batch.index), ("target", batch.target)):
            kept[name].append(column[rows])
        for name, parts in self._needed.items():
            if batch.place in parts and name not in self.given:
                logits = self._logits(name, batch.image)
                if logits is not None:
                    kept.setdefault(name, []).append(logits[rows].clone())  # a compiled network reuses its output

    def on_test_epoch_end(self) -> None:
        """Compute the values, and the gap to M_r of those that have one."""
        if not self._replaced:
            self._compare_weights()
        for part in [part for part in PARTS if part in self._kept]:
            self._measure(part, self._kept.pop(part))
        if self.suite.copies:
            self.scores = self.suite.compute()
        kept = {name: self._rows(table) for name, table in self._tables.items()}
        self.outputs = kept | {
            name: self.given[name] for name, parts in self._needed.items() if parts and name in self.given
        }
        if "retrained" in self.outputs and self.scores and self.reference_suite.copies:
            reference = self.reference_suite.compute()
            shared = [key for key in self.scores if key in reference and key in self.suite.gap_keys]
            self.scores |= {f"{key}_gap": self.scores[key] - reference[key] for key in shared}

    def configure_optimizers(self) -> None:
        """Nothing is trained."""

    def _compare_weights(self) -> None:
        models: dict[str, nn.Module] = {"unlearned_model": self.model}
        if self.retrained is not None:
            models["retrained_model"] = self.retrained.model
        if self.suite.copies:
            reshard(*models.values())
            self.suite.update_models(models)

    def _rows(self, table: Any) -> Outputs:
        rows: Tensor = table.compute().reshape(-1, 2 + table.width)
        double = any(p.dtype == torch.float64 for p in self.model.parameters())
        logits = rows[:, 3:] if double else rows[:, 3:].float()
        return Outputs(rows[:, 0].long(), rows[:, 1].long(), rows[:, 2].long(), logits.contiguous())

    def _logits(self, name: str, images: Tensor) -> Tensor | None:
        if name == "unlearned":
            logits: Tensor = self.model(images)
            return logits
        frozen: Frozen | None = getattr(self, name)
        return None if frozen is None else frozen(images)

    def _measure(self, part: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        """Every metric and table of the images of a part that this rank has seen."""
        columns = {name: torch.cat(list(batches)) for name, batches in kept.items()}
        for name, parts in self._needed.items():
            if name in columns:
                self._keep(name, columns, columns[name])
            elif name in self.given and part in parts:
                columns[name] = self.given[name].rows(columns["part"], columns["index"])
        sizes = [len(index) for index in kept["index"]]
        if "unlearned" in columns:
            self.suite.update_part(part, columns, sizes)
        if "retrained" in columns:
            self.reference_suite.update_part(part, {**columns, "unlearned": columns["retrained"]}, sizes)

    def _keep(self, name: str, columns: Mapping[str, Tensor], logits: Tensor) -> None:
        if name not in self._tables:
            self._tables[name] = _OutputTable(1 + logits.shape[1]).to(self.device)
        table: Any = self._tables[name]
        target, wide = (value.to(table.device).double() for value in (columns["target"][:, None], logits))
        table.update(columns["part"], columns["index"], torch.cat([target, wide], dim=1))
