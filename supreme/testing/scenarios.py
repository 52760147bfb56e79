"""check_scenario: what every forget scenario has to keep."""

import csv
import json
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from supreme.batch import PARTS, Batch, EvaluationBatch, ForgetRequest, Phase
from supreme.distributed import hushed, quiet_trainer
from supreme.methods.base import UnlearningMethod
from supreme.scenarios.base import Scenario
from supreme.scenarios.loader import EvaluationLoader, Place
from supreme.testing.contract import Contract

SERVED = ("forget", "retain", "full")


def check_scenario(scenario: type[Scenario], **arguments: Any) -> None:
    """Construct a scenario a few times and check everything that methods and evaluations rely on.

    The scenario splits D and D' into disjoint, complete and non-empty index sets; gives the same sets each time,
    whatever the state of the global generators; describes the request; serves methods exactly the sets that they ask
    for and evaluations every image once, on any number of processes; writes its sets to files; and can be pickled.

    Args:
        scenario: the class.
        arguments: its own arguments, with a small ``dataset`` where the embedded digits do not fit.

    Raises:
        AssertionError: if a promise is broken; the text says which one and where to look.

    Example:
        >>> from supreme.scenarios import FullClass
        >>> check_scenario(FullClass, forget=3)
    """
    task = _Task(scenario, arguments)
    task.check_sets()
    task.check_repetition()
    task.check_request()
    task.check_evaluation()
    task.check_serving()
    task.check_export()


class _Reader(UnlearningMethod):
    """A method that notes which samples each of its phases, and an evaluation, is served."""

    needs = ("forget", "retain")
    parts = PARTS

    def __init__(self, original: nn.Module) -> None:
        super().__init__(original)
        self.seen: dict[int, list[Tensor]] = {}
        self.tested: list[EvaluationBatch] = []

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Note an evaluation batch."""
        self.tested.append(batch)

    @property
    def phases(self) -> Sequence[Phase]:
        """One pass over each set."""
        return [Phase(part) for part in SERVED]  # type: ignore[arg-type]

    def loss(self, batch: Batch) -> Tensor:
        """Any loss; the samples are noted."""
        self.seen.setdefault(batch.step.phase, []).append(batch.index.cpu())
        return functional.cross_entropy(self.model(batch.image.flatten(1)[:, :1]), batch.target, reduction="none")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Anything."""
        return torch.optim.SGD(self.model.parameters(), lr=0.0)


class _Task:
    """A scenario with its arguments, and everything that is checked about them."""

    def __init__(self, scenario: type[Scenario], arguments: Mapping[str, Any]) -> None:
        self.kind, self.arguments = scenario, dict(arguments)
        self.contract = Contract(getattr(scenario, "__name__", repr(scenario)))
        is_scenario = isinstance(scenario, type) and issubclass(scenario, Scenario)
        self.contract.require(is_scenario, "a subclass of Scenario", repr(scenario), "the class statement")
        self.scenario = self.build()
        with self.contract.during("prepare_data() and indices()", "select"):
            self.scenario.prepare_data()
            self.sets = self.scenario.indices()

    def build(self) -> Scenario:
        """A fresh scenario."""
        with self.contract.during("scenario(**arguments)", "__init__"):
            return self.kind(**self.arguments)

    def check_sets(self) -> None:
        """Index sets: disjoint, complete, sorted, not empty."""
        require, sets = self.contract.require, self.sets
        require(set(sets) <= set(PARTS), f"sets named {PARTS}", str(sorted(sets)), "indices")
        for name, index in sets.items():
            plain = index.dtype == torch.int64 and index.dim() == 1
            require(plain, f"{name} as int64 (n,)", f"{index.dtype} {tuple(index.shape)}", "indices and select")
            rising = bool((index[1:] > index[:-1]).all())
            require(rising, f"{name} ascending without repetition", "another order", "indices and select")
        data = self.scenario.dataset
        self._check_parts("forget_train", "retain_train", len(data.train.targets), "D")
        require(len(sets["forget_train"]) > 0, "something to forget", "an empty forget set", "select")
        require(len(sets["retain_train"]) > 0, "something to retain", "an empty retain set", "select")
        require("retain_test" in sets, "a set retain_test", str(sorted(sets)), "indices")
        self._check_parts("forget_test", "retain_test", len(data.test.targets), "D'")
        absent = "forget_test" not in sets
        text = "no forget_test, as D'_f is D_f when samples are drawn at random"
        require(absent or not self.scenario.random, text, "one", "the class attribute random and indices")

    def _check_parts(self, forget: str, retain: str, count: int, where: str) -> None:
        parts = [self.sets[name] for name in (forget, retain) if name in self.sets]
        joined = torch.cat(parts).sort().values if parts else torch.arange(0)
        twice = len(joined) - len(set(joined.tolist()))
        look = "select, which gives one mask per split"
        self.contract.require(twice == 0, f"{forget} and {retain} disjoint", f"{twice} samples in both", look)
        complete = torch.equal(joined, torch.arange(count))
        got = f"{len(joined)} of {count}"
        self.contract.require(complete, f"{forget} and {retain} to be all of {where}", got, look)

    def check_repetition(self) -> None:
        """The same sets from every construction."""
        for disturb in (1, 2):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(disturb)
                again = self.build()
                sets = again.indices()
                self._same(sets, "the same sets from a second construction")
            same = again.request == self.scenario.request
            look = "request; its fingerprint depends on data and forget set only"
            self.contract.require(same, "the same request from a second construction", "another", look)
        with self.contract.during("pickling the scenario", "what __init__ keeps"):
            copied = pickle.loads(pickle.dumps(self.scenario))  # noqa: S301
        self._same(copied.indices(), "the same sets after pickling")

    def _same(self, sets: Mapping[str, Tensor], expected: str) -> None:
        equal = sets.keys() == self.sets.keys() and all(torch.equal(sets[name], self.sets[name]) for name in sets)
        look = "draws: take them from supreme.seeding.generator(seed, ...), never from torch alone"
        self.contract.require(equal, expected, "others", look)

    def check_request(self) -> None:
        """What methods may know."""
        require, request, data = self.contract.require, self.scenario.request, self.scenario.dataset
        require(isinstance(request, ForgetRequest), "a ForgetRequest", repr(request), "the property request")
        same = torch.equal(request.forget_index, self.sets["forget_train"])
        require(same, "request.forget_index to be forget_train", "another", "the property request")
        classes = len(data.classes)
        require(request.num_classes == classes, f"{classes} classes", str(request.num_classes), "the property request")
        random = request.forget_classes is None
        text = "forget_classes() to be None exactly when random is True"
        got = f"{request.forget_classes} with random={self.scenario.random}"
        require(random == self.scenario.random, text, got, "forget_classes and the class attribute random")
        if request.forget_classes is not None:
            found = set(data.train.targets[request.forget_index].tolist())
            inside = found <= set(request.forget_classes)
            got = f"classes {sorted(found)} in D_f and {request.forget_classes} in the request"
            require(inside, "forget_classes() to name the classes of D_f", got, "forget_classes")
        name = self.scenario.target_name()
        require(isinstance(name, str) and name != "", "a name of the target", repr(name), "target_name")

    def check_evaluation(self) -> None:
        """Every image of every set once, on one process and on two."""
        reader, scenario = self._reader(), self.build()
        with hushed(), self.contract.during("Trainer().test(module, datamodule=scenario)", "test_dataloader"):
            quiet_trainer("cpu").test(reader, datamodule=scenario, verbose=False)
        self._every_image_once(reader.tested, "test_dataloader")
        with self.contract.during("evaluation_loader(parts)", "evaluation_loader"):
            loader = self.scenario.evaluation_loader(PARTS)
        shares = [EvaluationLoader(loader.parts, 50, Place(rank, 2)) for rank in range(2)]
        found = [batch for share in shares for batch in share]
        self._every_image_once(found, "evaluation_loader, which divides global batches among the processes")

    def _reader(self) -> _Reader:
        return _Reader(nn.Linear(1, len(self.scenario.dataset.classes)))

    def _every_image_once(self, batches: Sequence[EvaluationBatch], look: str) -> None:
        found: dict[str, list[Tensor]] = {}
        for batch in batches:
            found.setdefault(PARTS[int(batch.part[0])], []).append(batch.index[batch.weight > 0])
        sets = {name: torch.cat(parts).sort().values for name, parts in found.items()}
        used = {name: index for name, index in self.sets.items() if len(index)}
        equal = sets.keys() == used.keys() and all(torch.equal(sets[name], used[name]) for name in used)
        got = str({name: len(index) for name, index in sets.items()})
        expected = {name: len(index) for name, index in used.items()}
        self.contract.require(equal, f"every image of every set once {expected}", got, look)

    def check_serving(self) -> None:
        """A method is served exactly the sets that its phases name."""
        reader, scenario = self._reader(), self.build()
        with hushed(), self.contract.during("Trainer().fit(method, datamodule=scenario)", "train_dataloader and hooks"):
            quiet_trainer("cpu", max_epochs=1).fit(reader, datamodule=scenario)
        forget, retain = self.sets["forget_train"], self.sets["retain_train"]
        expected = {"forget": forget, "retain": retain, "full": torch.cat([forget, retain]).sort().values}
        for number, part in enumerate(SERVED):
            served = torch.cat(reader.seen.get(number, [torch.arange(0)])).sort().values
            text = f"a phase of {part!r} to be served {len(expected[part])} samples"
            same = torch.equal(served, expected[part])
            self.contract.require(same, text, f"{len(served)} or other ones", "train_dataloader")

    def check_export(self) -> None:
        """Files that tell which samples are in which set."""
        look = "export; it calls super().export(folder)"
        with tempfile.TemporaryDirectory() as folder:
            with self.contract.during("export(folder)", look):
                self.scenario.export(folder)
            path = Path(folder) / "splits.json"
            self.contract.require(path.exists(), "a file splits.json", "none", look)
            stored = json.loads(path.read_text()).get("sets", {})
            same = stored == {name: index.tolist() for name, index in self.sets.items()}
            self.contract.require(same, "splits.json to hold the index sets", "others", look)
            self._check_counts(Path(folder) / "class_counts.csv", look)

    def _check_counts(self, path: Path, look: str) -> None:
        self.contract.require(path.exists(), "a file class_counts.csv", "none", look)
        with path.open(newline="") as file:
            counts = {row[0]: sum(map(int, row[1:])) for row in list(csv.reader(file))[1:]}
        sizes = {name: len(index) for name, index in self.sets.items()}
        self.contract.require(counts == sizes, f"class counts of {sizes}", str(counts), look)
