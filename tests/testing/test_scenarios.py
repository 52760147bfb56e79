"""check_scenario accepts every built-in scenario and refuses each kind of broken one."""

import pytest
import torch
from torch import nn

from supreme.components import listing
from supreme.datasets.base import Content, ImageDataset, Images
from supreme.scenarios import FullClass, RandomSample, SubClass
from supreme.scenarios.base import Scenario
from supreme.testing import check_scenario


class Small(ImageDataset):
    """Twelve classes of noise below four super-classes."""

    def config(self):
        return {}

    def read(self, allocate):
        draw = torch.Generator().manual_seed(0)

        def split(count):
            fine = torch.arange(count) % 12
            return Images(torch.randint(256, (count, 1, 3, 3), generator=draw, dtype=torch.uint8), fine // 3, fine)

        return Content(split(60), split(24), tuple("abcd"), tuple("abcdefghijkl"))


@pytest.mark.parametrize(
    ("scenario", "arguments"),
    [
        (FullClass, {}),
        (FullClass, {"forget": [3, 8]}),
        (SubClass, {"dataset": Small(), "forget": ["a", "l"]}),
        (RandomSample, {"fraction": 0.05}),
        (RandomSample, {"dataset": Small(), "fraction": 0.001}),
    ],
)
def test_built_in_scenarios_keep_the_contract(scenario, arguments):
    check_scenario(scenario, **arguments)


def test_every_forget_scenario_is_checked():
    """Those without a request of their own, which serve given sets or all data, are no choice of a plan."""
    names = {component.name for component in listing("scenarios", plugins=False)}
    assert names - {"GivenSets", "WholeDataset"} == {"FullClass", "SubClass", "RandomSample"}


class Good(FullClass):
    """What the broken scenarios below are made of."""

    def __init__(self, dataset=None, forget=0):
        super().__init__(Small() if dataset is None else dataset, forget)


class Overlapping(Good):
    def indices(self):
        sets = super().indices()
        return sets | {"retain_train": torch.cat([sets["forget_train"][:1], sets["retain_train"]]).sort().values}


class Incomplete(Good):
    def indices(self):
        sets = super().indices()
        return sets | {"retain_test": sets["retain_test"][1:]}


class Descending(Good):
    def indices(self):
        return {name: index.flip(0) for name, index in super().indices().items()}


class Masks(Good):
    def indices(self):
        return {name: index > 3 for name, index in super().indices().items()}


class OtherNames(Good):
    def indices(self):
        return super().indices() | {"validation": torch.arange(3)}


class Everything(Good):
    def select(self, images, train):
        return torch.ones(len(images.targets), dtype=torch.bool)


class NothingToForget(Good):
    def indices(self):
        every = torch.arange(60)
        return super().indices() | {"forget_train": every[:0], "retain_train": every}


class NothingToRetain(Good):
    def indices(self):
        every = torch.arange(60)
        return super().indices() | {"retain_train": every[:0], "forget_train": every}


class NothingToTest(Good):
    def indices(self):
        sets = super().indices()
        del sets["retain_test"]
        return sets


class NoRequest(Good):
    request = None


class OneClassLess(Good):
    @property
    def request(self):
        made = super().request
        return type(made)(made.num_classes - 1, made.forget_classes, made.fingerprint, made.forget_index)


class WritesNoCounts(Good):
    def export(self, folder):
        super().export(folder)[1].unlink()


class GlobalDraw(Good):
    random = True

    def forget_classes(self):
        return None

    def select(self, images, train):
        mask = torch.zeros(len(images.targets), dtype=torch.bool)
        mask[torch.randperm(len(mask))[:5]] = train
        return mask


class RandomWithTestPart(Good):
    random = True

    def select(self, images, train):
        return images.targets == 0

    def indices(self):
        self.random = False
        sets = super().indices()
        self.random = True
        return sets


class Undeclared(Good):
    def forget_classes(self):
        return None

    def select(self, images, train):
        return images.targets == 0


class WrongClasses(Good):
    def forget_classes(self):
        return (1,)

    def select(self, images, train):
        return images.targets == 0


class Nameless(Good):
    def target_name(self):
        return ""


class OtherRequest(Good):
    @property
    def request(self):
        made = super().request
        return type(made)(made.num_classes, made.forget_classes, made.fingerprint, made.forget_index[1:])


class AnyFingerprint(Good):
    @property
    def request(self):
        made = super().request
        return type(made)(made.num_classes, made.forget_classes, str(torch.rand(())), made.forget_index)


class Unpicklable(Good):
    def __init__(self, dataset=None, forget=0):
        super().__init__(dataset, forget)
        self.function = lambda: 0


class HalfATest(Good):
    def test_dataloader(self):
        return self.evaluation_loader(("retain_test", "forget_test"))


class ServesEverything(Good):
    def train_dataloader(self):
        loader = super().train_dataloader()
        loader.rows[0] = torch.arange(60)
        return loader


class WritesNothing(Good):
    def export(self, folder):
        return []


class WritesOtherSets(Good):
    def export(self, folder):
        paths = super().export(folder)
        paths[0].write_text(paths[0].read_text().replace("forget_test", "forget"))
        return paths


class WritesOtherCounts(Good):
    def export(self, folder):
        paths = super().export(folder)
        paths[1].write_text(paths[1].read_text().replace("forget_test", "forget"))
        return paths


class NeedsAnArgument(Good):
    def __init__(self, anything):
        super().__init__()


BROKEN = [
    (nn.Linear, "a subclass of Scenario"),
    (NeedsAnArgument, r"scenario\(\*\*arguments\) to work, got TypeError"),
    (OtherNames, "sets named"),
    (Masks, r"retain_test as int64 \(n,\), got torch.bool"),
    (Descending, "retain_test ascending without repetition"),
    (Overlapping, "forget_train and retain_train disjoint, got 1 samples in both"),
    (Incomplete, "forget_test and retain_test to be all of D', got 23 of 24"),
    (Everything, r"prepare_data\(\) and indices\(\) to work, got DataError"),
    (NothingToForget, "something to forget"),
    (NothingToRetain, "something to retain"),
    (NothingToTest, "a set retain_test"),
    (NoRequest, "a ForgetRequest, got None"),
    (OneClassLess, "4 classes, got 3"),
    (WritesNoCounts, "a file class_counts.csv"),
    (RandomWithTestPart, "no forget_test"),
    (GlobalDraw, "the same sets from a second construction"),
    (AnyFingerprint, "the same request from a second construction"),
    (Unpicklable, "pickling the scenario"),
    (OtherRequest, "request.forget_index to be forget_train"),
    (Undeclared, r"forget_classes\(\) to be None exactly when random is True, got None with random=False"),
    (WrongClasses, r"forget_classes\(\) to name the classes of D_f, got classes \[0\]"),
    (Nameless, "a name of the target, got ''"),
    (HalfATest, "every image of every set once"),
    (ServesEverything, "a phase of 'forget' to be served 15 samples"),
    (WritesNothing, "a file splits.json"),
    (WritesOtherSets, "splits.json to hold the index sets"),
    (WritesOtherCounts, "class counts of"),
]


@pytest.mark.parametrize(("scenario", "text"), BROKEN, ids=[scenario.__name__ for scenario, _ in BROKEN])
def test_every_broken_promise_is_found(scenario, text):
    with pytest.raises(AssertionError, match=text) as caught:
        check_scenario(scenario)
    assert str(caught.value).startswith(f"{scenario.__name__}: expected ")
    assert "Look at " in str(caught.value)


def test_the_scenario_that_the_broken_ones_derive_from_is_good():
    check_scenario(Good)
    assert issubclass(Good, Scenario)
