import json
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import nn

from supreme.callbacks import ElapsedTime, PeakMemory, RunRecord, Utilisation, git_commit, hardware, versions
from supreme.callbacks.run_record import write_json
from supreme.errors import OutputError


def noop(seconds):
    pass


def read(folder):
    return json.loads((Path(folder) / "run.json").read_text())


def names(folder):
    return [item.name for item in folder.iterdir()]


class Dataset:
    fingerprint = "0123456789abcdef"

    def config(self):
        return {"root": "here"}


class Data(LightningDataModule):
    def __init__(self, kit, batch_size=3):
        super().__init__()
        self.kit, self.batch_size, self.dataset = kit, batch_size, Dataset()

    def train_dataloader(self):
        return self.kit.Batches(2, lambda: None)


class Energy(Callback):
    """A third party's measurement."""

    def resources(self):
        return {"energy_j": 12.5, "source": "meter"}


def module(kit, **costs):
    class Net(kit.Net):
        train_dataloader = LightningDataModule.train_dataloader
        val_dataloader = LightningDataModule.val_dataloader

    return Net(noop, costs)


def test_record_of_a_run(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "260")
    callbacks = [RunRecord(tmp_path), ElapsedTime(), PeakMemory(), Utilisation(), Energy()]
    trainer = Trainer(**{**kit.QUIET, "limit_val_batches": 0}, max_epochs=2, callbacks=callbacks)
    net = module(kit)
    net.model = nn.ReLU()
    trainer.fit(net, datamodule=Data(kit))
    record = read(tmp_path)
    assert record["network"] == {"class_path": "torch.nn.modules.activation.ReLU"}
    assert (record["schema"], record["status"], record["error"], record["stage"]) == (1, "done", None, "fit")
    assert record["module"]["class_path"].endswith("Net")
    assert record["datamodule"]["init_args"]["batch_size"] == 3
    assert record["fingerprint"] == "0123456789abcdef"
    assert record["trainer"]["max_epochs"] == 2
    assert record["seed"] == "260"
    assert record["versions"] == versions()
    assert record["hardware"] == hardware(trainer)
    assert record["git_commit"] == git_commit()
    assert record["resources"] == {
        "time_s": callbacks[1].time_s,
        "peak_memory_bytes": callbacks[2].peak_memory_bytes,
        "host_peak_memory_bytes": callbacks[2].host_peak_memory_bytes,
        "utilisation": callbacks[3].utilisation,
        "energy_j": 12.5,
        "source": "meter",
    }
    started, finished = (datetime.fromisoformat(record[name]) for name in ("started", "finished"))
    assert started <= finished
    assert started.utcoffset().total_seconds() == 0
    assert abs(finished.timestamp() - time.time()) < 60


def test_while_it_runs(kit, tmp_path):
    seen = []

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(read(tmp_path))

    kit.fit(kit.Net(noop, {}), Look(), RunRecord(tmp_path))
    assert (seen[0]["status"], seen[0]["finished"], seen[0]["resources"]) == ("running", None, {})
    assert seen[0]["datamodule"] is None


def test_a_failure_is_recorded_and_raised(kit, tmp_path):
    class Breaks(kit.Net):
        def training_step(self, batch, batch_idx):
            raise ValueError("bad batch")

    with pytest.raises(ValueError, match="bad batch"):
        kit.fit(Breaks(noop, {}), RunRecord(tmp_path), ElapsedTime())
    record = read(tmp_path)
    assert record["status"] == "failed"
    assert (record["error"]["type"], record["error"]["message"]) == ("ValueError", "bad batch")
    assert "training_step" in record["error"]["traceback"]
    assert record["resources"] == {}
    assert record["finished"] is not None


def test_a_later_run_replaces_the_record(kit, tmp_path):
    test_a_failure_is_recorded_and_raised(kit, tmp_path)
    kit.fit(kit.Net(noop, {}), RunRecord(tmp_path))
    assert (read(tmp_path)["status"], read(tmp_path)["error"]) == ("done", None)
    assert names(tmp_path) == ["run.json"]


def test_a_second_failure_is_recorded_too(kit, tmp_path):
    for _ in range(2):
        test_a_failure_is_recorded_and_raised(kit, tmp_path)


def test_other_stages(kit, tmp_path):
    trainer = Trainer(**kit.QUIET, callbacks=[RunRecord(tmp_path)])
    trainer.validate(kit.Net(noop, {}), verbose=False)
    assert (read(tmp_path)["stage"], read(tmp_path)["status"]) == ("validate", "done")


def test_an_unwritable_folder_is_told_at_once(kit, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Cannot write .*run\.json: .*; choose a folder"):
        kit.fit(kit.Net(noop, {}), RunRecord(tmp_path / "file"))


def test_a_record_that_cannot_be_written_does_not_hide_the_failure(kit, tmp_path):
    folder = tmp_path / "gone"

    class Breaks(kit.Net):
        def training_step(self, batch, batch_idx):
            (folder / "run.json").unlink()
            folder.rmdir()
            folder.write_text("")
            raise ValueError("bad batch")

    with pytest.warns(UserWarning, match="could not be recorded"), pytest.raises(ValueError, match="bad batch"):
        kit.fit(Breaks(noop, {}), RunRecord(folder))


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["run.json"]


def test_the_commit_is_that_of_the_working_directory(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "x"]
    for command in (["git", "init", "-q"], words):
        subprocess.run(command, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    kit.fit(kit.Net(noop, {}), RunRecord(tmp_path / "out"))
    assert read(tmp_path / "out")["git_commit"] == head


def _ranks(rank, kit, folder, broken):
    class Net(kit.Net):
        def on_train_start(self):
            if rank == broken:
                raise ValueError(f"rank {rank} broke")

    settings = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    kit.fit(Net(noop, {}), RunRecord(folder), ElapsedTime(), **settings)


@pytest.mark.distributed
def test_rank_zero_writes_one_record_of_a_run_on_two_ranks(kit, tmp_path):
    answers = kit.on_ranks(_ranks, kit, tmp_path, None)
    assert all(done for done, _ in answers.values()), answers
    record = read(tmp_path)
    assert (record["status"], record["hardware"]["devices"]) == ("done", 2)
    assert names(tmp_path) == ["run.json"]


@pytest.mark.distributed
@pytest.mark.parametrize("broken", [0, 1])
def test_the_first_failure_of_any_rank_is_recorded(kit, tmp_path, broken):
    """The other rank either waits (and is ended) or fails later, of a lost connection; that is not the cause."""
    kit.on_ranks(_ranks, kit, tmp_path, broken, limit_s=5.0)
    record = read(tmp_path)
    assert record["status"] == "failed"
    assert (record["error"]["message"], record["error"]["rank"]) == (f"rank {broken} broke", broken)
