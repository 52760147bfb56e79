"""Several machines of one SLURM task: the ranks of a stage are started on all of them by srun."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from supreme.errors import RankError
from supreme.experiment.slurm_queue import FOLDER
from supreme.experiment.stage import Stage
from supreme.experiment.store import Store

_WORK, _FAILURE = "work.pkl", "failure"


def execute(stage: Stage, store: Store) -> None:
    """Do the work of a stage in one rank per device of every machine, and wait for it; rank 0 commits the result.

    Args:
        stage: what to do; its inputs are in the store.
        store: where the result goes, on a file system that all machines see.

    Raises:
        RankError: if a rank failed; the text is that of the first one.
    """
    settings = {name: getattr(store, name) for name in ("root", "workers", "track_evaluation")}
    with tempfile.TemporaryDirectory(dir=store.root / FOLDER, prefix="ranks-") as name:
        (Path(name) / _WORK).write_bytes(pickle.dumps((stage, settings)))
        trainer, threads = stage.config["trainer"], int(stage.config["threads"])
        nodes, devices = int(trainer["num_nodes"]), int(trainer["devices"])
        sizes = [f"--nodes={nodes}", f"--ntasks={nodes * devices}", f"--ntasks-per-node={devices}"]
        shared = ["--overlap", "--kill-on-bad-exit=1", f"--cpus-per-task={threads}"]
        command = ["srun", *sizes, *shared, sys.executable, "-m", "supreme.experiment.slurm_nodes", name]
        place = {"MASTER_ADDR": socket.gethostname(), "MASTER_PORT": str(_free_port())}
        unbound = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_CPU_BIND")}
        done = subprocess.run(command, env={**unbound, **place}, check=False)  # noqa: S603
        if done.returncode:
            failure = Path(name) / _FAILURE
            reason = failure.read_text(encoding="utf-8") if failure.is_file() else f"srun ended with {done.returncode}"
            raise RankError(reason)


def work(folder: Path) -> None:
    """What one rank does.

    The signal of a preemption or of the time limit reaches every rank, but is meant for the task above them, which puts
    itself into the queue again. By default it would end a rank first, and the run would count as failed.

    Args:
        folder: where the work is described.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    from supreme.experiment.launchers import execute_share

    stage, settings = pickle.loads((folder / _WORK).read_bytes())  # noqa: S301 - written by execute
    try:
        execute_share(stage, settings)
    except BaseException as exc:
        traceback.print_exc()
        with suppress(FileExistsError), (folder / _FAILURE).open("x", encoding="utf-8") as file:
            file.write(f"rank {os.environ.get('SLURM_PROCID')}: {type(exc).__name__}: {exc}")
        os._exit(1)  # other ranks may be waiting in a collective operation, and so would this one at its end


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: Any = probe.getsockname()[1]
        return int(port)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
