"""WholeDataset: everything is retained."""

from supreme.datasets import Digits
from supreme.scenarios import WholeDataset


def test_everything_is_retained(tmp_path):
    scenario = WholeDataset(Digits())
    sizes = {name: len(index) for name, index in scenario.indices().items()}
    assert sizes == {"retain_test": 359, "forget_test": 0, "retain_train": 1438, "forget_train": 0}
    assert scenario.request.forget_classes is None
    assert len(scenario.request.forget_index) == 0
    assert len(scenario.evaluation_loader(("retain_test", "forget_test"))) == 6
    assert len(scenario.export(tmp_path)) == 2
