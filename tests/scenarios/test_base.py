"""What all scenarios share: exported files, transforms on the device, loaders that belong to the module."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from supreme.batch import PARTS, Batch, EvaluationBatch, Step
from supreme.datasets import Digits
from supreme.errors import ConfigError, OutputError
from supreme.methods import FineTune
from supreme.scenarios import FullClass, RandomSample, SubClass, WholeDataset
from supreme.scenarios.base import image_layout
from supreme.scenarios.source import resident
from supreme.transforms import Augment


@pytest.mark.parametrize("kind", ["full", "sub", "random"])
def test_exported_files(golden_labels, tmp_path, kind):
    dataset, _, _, arrays = golden_labels
    make = {"full": lambda: FullClass(dataset, 2), "sub": lambda: SubClass(dataset, 6)}
    scenario = make.get(kind, lambda: RandomSample(dataset, 0.2))()
    splits, counts = scenario.export(tmp_path / "new" / "folder")
    record = json.loads(splits.read_text())
    assert record["sets"] == {name: index.tolist() for name, index in scenario.indices().items()}
    assert record["request"] == scenario.request.fingerprint
    assert record["fingerprint"] == dataset.fingerprint
    assert (record["dataset"], record["scenario"]) == ("Labels", type(scenario).__name__)
    assert record["target"] == {"full": "c2", "sub": "f6", "random": "0.2"}[kind]
    with counts.open() as file:
        rows = {row["set"]: row for row in csv.DictReader(file)}
    for name, index in scenario.indices().items():
        targets = arrays["coarse_train" if name.endswith("train") else "coarse_test"][index]
        assert [int(rows[name][f"c{k}"]) for k in range(5)] == [int((targets == k).sum()) for k in range(5)]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="index sets"):
        FullClass(Digits(), 1).export(tmp_path / "file" / "sub")


def test_no_batches_outside_a_trainer():
    with pytest.raises(ConfigError, match="inside a Trainer only"):
        FullClass(Digits(), 1).train_dataloader()


def batch_of(dataset, rows, augment=False, epoch=0):
    rows = torch.tensor(rows)
    step = Step(0, epoch, 0, len(rows), False, False, 1.0, augment)
    images = dataset.train.images[rows]
    return Batch(images, dataset.train.targets[rows], rows, torch.ones(len(rows)), rows < 0, step)


def inside(scenario, module):
    """The scenario, as if a Trainer fitted the module with it."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    scenario.trainer = SimpleNamespace(lightning_module=module, global_rank=0, world_size=1, strategy=strategy)
    return scenario


def transformed(scenario, batch, network, **settings):
    vars(network).update(**{"seed": 0, "input_spec": None, **settings})
    return inside(scenario, network).on_after_batch_transfer(batch, 0).image


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_images_are_normalised_in_the_type_of_the_network(dtype):
    dataset = Digits()
    image = transformed(FullClass(dataset, 1), batch_of(dataset, [4, 9]), nn.Linear(1, 1).to(dtype))
    expected = (dataset.train.images[[4, 9]].float() / 255 - dataset.mean[0]) / dataset.std[0]
    assert image.dtype == dtype
    torch.testing.assert_close(image, expected.expand(-1, 3, -1, -1).to(dtype), rtol=1e-6, atol=1e-6)


def test_a_network_may_ask_for_its_own_input():
    dataset = Digits()
    spec = {"size": (12, 16), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    image = transformed(FullClass(dataset, 1), batch_of(dataset, [0]), nn.Linear(1, 1), input_spec=spec)
    assert image.shape == (1, 3, 12, 16)
    assert image.min() >= -2.0 - 1e-6
    assert image.max() <= 2.0 + 1e-6


def test_augmentation_belongs_to_seed_pass_and_sample():
    dataset = Digits()
    scenario = FullClass(dataset, 1, augmentation=Augment(crop_padding=2))
    rows = list(range(20))

    def image(rows, seed=0, epoch=0, augment=True):
        return transformed(scenario, batch_of(dataset, rows, augment, epoch), nn.Linear(1, 1), seed=seed)

    assert torch.equal(image(rows)[5], image([5])[0])
    for other in (image(rows, seed=1), image(rows, epoch=1), image(rows, augment=False)):
        assert not torch.equal(image(rows), other)


def test_evaluation_images_are_never_augmented():
    dataset = Digits()
    scenario = FullClass(dataset, 1, augmentation=Augment(rotation=30.0))
    rows = torch.tensor([0, 1])
    images, targets = dataset.test.images[rows], dataset.test.targets[rows]
    batch = EvaluationBatch(images, targets, rows, torch.ones(2), rows * 0, "retain_test", False)
    first = transformed(scenario, batch, nn.Linear(1, 1), seed=1)
    assert torch.equal(first, transformed(scenario, batch, nn.Linear(1, 1), seed=2))


def test_batches_that_are_on_the_device_are_not_copied():
    batch = next(iter(WholeDataset(Digits(), 16).evaluation_loader(("retain_test",))))
    assert WholeDataset(Digits()).transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = WholeDataset(Digits()).transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert {value.device.type for value in moved[:5]} == {"meta"}
    assert moved[5:] == batch[5:] == ("retain_test", False)


def test_loaders_follow_the_module():
    scenario = FullClass(Digits(), 1, batch_size=100)
    method = FineTune(nn.Linear(1, 1), epochs=3, seed=9)
    loader = inside(scenario, method).train_dataloader()
    assert (loader.seed, loader.batch_size, len(loader)) == (9, 100, 3 * 13)
    assert list(scenario.test_dataloader().parts) == ["retain_test", "forget_test"]
    method.parts = PARTS
    assert list(scenario.test_dataloader().parts) == list(PARTS)
    assert list(scenario.val_dataloader().parts) == ["retain_test", "forget_test"]


def test_rows_of_an_evaluation_batch():
    scenario = FullClass(Digits(), 3)
    longest = max(len(batch.index) for batch in scenario.evaluation_loader(PARTS))
    assert longest == scenario.evaluation_rows() == 64
    scenario.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
    assert scenario.evaluation_rows() == 256
    assert FullClass(Digits(), 3, evaluation_batch_size=7).evaluation_rows() == 7
    for sizes in ({"evaluation_batch_size": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="batch sizes >= 1"):
            FullClass(Digits(), 3, **sizes)


class Convolution(nn.Module):
    channels_last = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.layer(images).mean((-2, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_lie_as_the_network_likes_them(dtype):
    dataset = Digits()
    batch, network = batch_of(dataset, [3, 5]), Convolution().to(dtype)
    image = transformed(FullClass(dataset, 1), batch, network, model=network)
    assert image.is_contiguous(memory_format=torch.channels_last)
    network.channels_last = False
    plain = transformed(FullClass(dataset, 1), batch, network, model=network)
    assert plain.is_contiguous()
    assert torch.equal(plain, image)


@pytest.mark.parametrize(("device", "last"), [("cpu", True), ("cuda", True), ("mps", False), ("xla", False)])
def test_channels_last_where_it_pays(device, last):
    wanted = torch.channels_last if last else torch.preserve_format
    assert image_layout(Convolution(), torch.device(device)) is wanted
    assert image_layout(nn.Linear(2, 2), torch.device(device)) is torch.preserve_format


def test_images_stay_on_the_host_where_they_do_not_fit(monkeypatch):
    dataset, device = Digits(), torch.device("cuda", 0)
    need = dataset.train.images.nbytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * need - 1, 10 * need))
    assert resident(dataset, True, device).images is dataset.train.images
    assert resident(dataset, False, torch.device("cpu")).images is dataset.test.images


@pytest.mark.gpu
def test_resident_images_give_the_same_batches_and_are_moved_once():
    dataset = Digits()
    served = []
    for wish in (False, True):
        scenario = FullClass(dataset, 1, resident=wish)
        module = FineTune(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
        Trainer(accelerator="gpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False).fit(
            module, datamodule=scenario
        )
        served.append({name: value.cpu() for name, value in module.model.state_dict().items()})
    first = resident(dataset, True, torch.device("cuda", 0)).images
    assert first.is_cuda
    assert resident(dataset, True, torch.device("cuda", 0)).images is first
    assert all(torch.equal(served[0][name], served[1][name]) for name in served[0])
