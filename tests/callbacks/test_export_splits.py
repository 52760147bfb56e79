import json
from pathlib import Path

import pytest
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from supreme.callbacks import ExportSplits
from supreme.errors import ConfigError


def noop(seconds):
    pass


class Data(LightningDataModule):
    def __init__(self, kit, fails=False):
        super().__init__()
        self.kit, self.ready, self.fails = kit, False, fails

    def setup(self, stage):
        self.ready = True

    def export(self, folder):
        assert self.ready
        if self.fails:
            raise OSError("disk full")
        folder.mkdir(parents=True, exist_ok=True)
        rank = self.trainer.global_rank
        (folder / f"splits{rank}.json").write_text(json.dumps([1, 2]))

    def train_dataloader(self):
        return self.kit.Batches(1, lambda: None)

    test_dataloader = train_dataloader


def run(kit, data, callback, **settings):
    class Net(kit.Net):
        train_dataloader = LightningDataModule.train_dataloader
        val_dataloader = LightningDataModule.val_dataloader

    trainer = Trainer(**{**kit.QUIET, "max_epochs": 1, **settings}, callbacks=[callback])
    trainer.fit(Net(noop, {}), datamodule=data)
    return trainer


@pytest.mark.parametrize("kind", [str, Path])
def test_files_are_written_to_the_folder(kit, tmp_path, kind):
    run(kit, Data(kit), ExportSplits(kind(tmp_path / "a" / "b")))
    assert json.loads((tmp_path / "a" / "b" / "splits0.json").read_text()) == [1, 2]


def test_without_a_folder_they_go_beside_the_logs(kit, tmp_path):
    trainer = run(kit, Data(kit), ExportSplits(), logger=CSVLogger(tmp_path), log_every_n_steps=1)
    assert trainer.log_dir.startswith(str(tmp_path))
    assert (Path(trainer.log_dir) / "splits0.json").exists()
    run(kit, Data(kit), ExportSplits(), default_root_dir=tmp_path / "plain")
    assert (tmp_path / "plain" / "splits0.json").exists()


def test_without_a_scenario_the_error_says_what_to_do(kit, tmp_path):
    with pytest.raises(ConfigError, match="got none; pass one with datamodule="):
        kit.fit(kit.Net(noop, {}), ExportSplits(tmp_path))
    with pytest.raises(ConfigError, match="got LightningDataModule"):
        run(kit, LightningDataModule(), ExportSplits(tmp_path))


def test_an_error_of_the_scenario_is_not_hidden(kit, tmp_path):
    with pytest.raises(OSError, match="disk full"):
        run(kit, Data(kit, fails=True), ExportSplits(tmp_path))


def _export(rank, kit, folder):
    run(kit, Data(kit), ExportSplits(folder), strategy="ddp", devices=2, use_distributed_sampler=False)


@pytest.mark.distributed
def test_only_rank_zero_writes(kit, tmp_path):
    answers = kit.on_ranks(_export, kit, tmp_path)
    assert all(done for done, _ in answers.values()), answers
    assert [item.name for item in tmp_path.iterdir()] == ["splits0.json"]
