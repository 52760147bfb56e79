"""A SLURM cluster on this machine, in a folder of its own; nothing is installed, and nothing runs on after the end.

    python tests/slurm_cluster.py start FOLDER [CPUS [NODES]]     prints the variable to export
    python tests/slurm_cluster.py stop FOLDER

It needs Debian's packages slurm-wlm and munge (``apt-get install slurm-wlm munge``), and no rights of the superuser.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=2
MinJobAge=10
ReturnToService=2
MaxArraySize=1001
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} State=UNKNOWN\n"


def missing():
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class Cluster:
    """The cluster of a folder; a ``with`` block starts and stops it."""

    def __init__(self, folder, cpus=2, nodes=1):
        self.folder, self.cpus = Path(folder).resolve(), cpus
        self.nodes = [f"n{number}" for number in range(nodes)]

    @property
    def environment(self):
        """What SLURM's commands need to find it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, limit_s=60):
        """Start the daemons and wait for the nodes."""
        for name in ("state", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        if not key.exists():
            key.write_bytes(os.urandom(128))
            key.chmod(0o400)
        host, (port, *ports) = socket.gethostname().split(".")[0], _free_ports(1 + len(self.nodes))
        text = CONFIGURATION.format(folder=self.folder, host=host, user=getpass.getuser(), controller=port).lstrip()
        for node, port in zip(self.nodes, ports, strict=True):
            text += NODE.format(name=node, host=host, port=port, cpus=self.cpus)
        (self.folder / "slurm.conf").write_text(text)
        names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        names["seed-file"] = "munge.seed"
        self._run("munged", "--force", *(f"--{name}={self.folder / file}" for name, file in names.items()))
        self._run("slurmctld", "-c")
        for node in self.nodes:
            self._run("slurmd", "-N", node)
        end = time.monotonic() + limit_s
        while self.state() != "idle":
            if time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the nodes are '{self.state()}'; see the logs in {self.folder}")
            time.sleep(0.5)

    def state(self):
        """State of the nodes, one word when they agree."""
        done = self.command("sinfo", "--noheader", "--format=%T", "--partition=test")
        return " ".join(sorted(set(done.stdout.split()))) or done.stderr.strip()

    def command(self, *words):
        """Run one of SLURM's commands."""
        return subprocess.run(
            words, capture_output=True, text=True, env={**os.environ, **self.environment}, check=False
        )

    def stop(self):
        """Cancel all jobs, end the daemons, and whatever jobs have left."""
        self.command("scancel", "--user", getpass.getuser())
        time.sleep(1)
        for pattern in ("slurmd-*.pid", "slurmctld.pid", "munged.pid"):
            for file in self.folder.glob(pattern):
                _end(int(file.read_text()))

    def _run(self, *words):
        done = self.command(*words)
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr or done.stdout}")


def _end(pid, limit_s=10):
    try:
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.1)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _path():
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


if __name__ == "__main__":
    action, place, *sizes = sys.argv[1:]
    cluster = Cluster(place, *map(int, sizes))
    if action == "start":
        cluster.start()
        print(f"export SLURM_CONF={cluster.environment['SLURM_CONF']}")
    else:
        cluster.stop()
