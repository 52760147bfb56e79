"""Ranks: processes of one group that are started for one piece of work and end with it, however that goes.

They are started by torch's ``elastic_launch``, so the process that asks for them joins no group itself.
"""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from supreme.errors import ConfigError, RankError

_WORK, _RESULT = "work.pt", "result.pt"
_POLL_S = 0.5
_NOTICED_S = 0.5  # a rank that has failed stays so long, that the end of another one is seen before its own
_GRACE_S = 3.0  # after so long the other ranks, which may wait for it for ever, end too
_ENDING = (signal.SIGTERM, signal.SIGINT)
_LOGGERS = (
    "torch.distributed.launcher.api",
    "torch.distributed.elastic.agent.server.api",
    "torch.distributed.elastic.multiprocessing.api",
    "torch.multiprocessing.spawn",
)


def launched() -> bool:
    """Whether a launcher (torchrun, srun, mpirun, Lightning's, this module's) has started this process as a rank.

    Example:
        >>> launched()
        False
    """
    if "LOCAL_RANK" in os.environ or TorchElasticEnvironment.detect():
        return True
    kinds = (SLURMEnvironment, LSFEnvironment, MPIEnvironment)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's hint where srun is installed
        return any(kind.detect() and kind().world_size() > 1 for kind in kinds)


def in_ranks(
    count: int, function: Callable[..., Any], *arguments: Any, threads: int | None = None, log: Path | None = None
) -> Any:
    """Call ``function(*arguments)`` in new processes of this machine that are the ranks of one group.

    As soon as one of them raises or dies, all are ended.

    Args:
        count: number of processes.
        function: importable function.
        arguments: picklable arguments; every rank gets a copy of its own.
        threads: CPU threads of each rank; None leaves that to Lightning.
        log: file to which all that the ranks print is added; None passes what rank 0 prints on to the standard error.

    Returns:
        What the function returned on rank 0.

    Raises:
        BaseException: what the rank raised that raised first, with its traceback as the cause.
        RankError: if a rank ended without saying why.
        ConfigError: if function or arguments cannot be sent to another process.
        KeyboardInterrupt: on Ctrl-C; all ranks have been ended.
    """
    with tempfile.TemporaryDirectory(prefix="supreme-ranks-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _write_work(folder, function, arguments)
        try:
            with _guarded():
                elastic_launch(_configuration(count, folder, function.__module__), _rank)(name, threads)
        except ChildFailedError as error:
            reason, cause = _reason(folder, error, count, log)
            raise reason from cause
        finally:
            _pass_on(folder, log)
        return torch.load(folder / _RESULT, weights_only=False)


def _write_work(folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        torch.save((function, arguments), folder / _WORK)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"Networks, datasets and methods that several processes work with have to be sent to them, but {error}; "
            "define them in a module that can be imported, or start the program with torchrun."
        ) from error


def _configuration(count: int, folder: Path, module: str) -> LaunchConfig:
    """One group on this machine, at a free port.

    Ranks are forked from a process that has imported everything once; a process that may have touched a GPU cannot be
    forked, so they are started from nothing where there is one.
    """
    method = "spawn"
    if "forkserver" in multiprocessing.get_all_start_methods() and not torch.cuda.is_available():
        method = "forkserver"
        multiprocessing.get_context(method).set_forkserver_preload(["lightning.pytorch", module])
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method=method,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Keep torch's launcher from changing this process: signal handlers, environment, messages."""
    name = "TORCHELASTIC_SIGNALS_TO_HANDLE"
    before = os.environ.get(name)
    loggers = [logging.getLogger(logger) for logger in _LOGGERS]
    levels = [logger.level for logger in loggers]
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _signals()} if main else {}
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    received: signal.Signals | None = None
    try:
        yield
    except SignalException as error:
        received = error.sigval
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        os.environ.pop(name, None)
        os.environ.update({} if before is None else {name: before})
    if received is not None:
        signal.raise_signal(received)  # for the handler that this process had
        raise KeyboardInterrupt


def _signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


def _pass_on(folder: Path, log: Path | None) -> None:
    """What the ranks printed: all of it to the log, or what rank 0 printed to the standard error."""
    for path in sorted(folder.glob("logs/*/attempt_0/*/std*.log"), key=lambda path: (path.parent.name, path.name)):
        text = path.read_text(encoding="utf-8", errors="replace")
        if text and log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"--- rank {path.parent.name}\n{text}")
        elif text and path.parent.name == "0":
            sys.stderr.write(text)


# --- why it failed ---------------------------------------------------------------------------------------------------


class _Failure(NamedTuple):
    """What a rank says of its end."""

    time: float
    rank: int
    kind: type[BaseException]
    arguments: tuple[Any, ...]
    traceback: str


class _Remote(Exception):  # noqa: N818 - shown as a cause, never raised on its own
    """The traceback of another process."""


def _reason(
    folder: Path, error: ChildFailedError, count: int, log: Path | None
) -> tuple[BaseException, BaseException | None]:
    """What a rank raised first and its traceback, or how a rank ended that says nothing."""
    failures = sorted(_failures(folder), key=lambda failure: failure.time)
    number, process = error.get_first_failure()
    if any(failure.rank == number for failure in failures):
        first = failures[0]
        raised = first.kind.__new__(first.kind, *first.arguments)
        raised.args = first.arguments
        return raised, _Remote(f"\nRank {first.rank} of {count} raised first:\n{first.traceback}")
    if -process.exitcode in _ENDING:
        return KeyboardInterrupt(), None
    if not (folder / f"begun-{number}").exists():
        return ConfigError(
            "The processes could not begin: they import the script that asks for them, so it has to do its work under "
            "'if __name__ == \"__main__\":'; or start it with torchrun."
        ), None
    where = "" if log is None else f"; what it printed is in '{log}'"
    return RankError(f"Rank {number} of {count} {_death(process.exitcode)}{where}."), None


def _failures(folder: Path) -> list[_Failure]:
    found = []
    for path in folder.glob("failure-*"):
        with path.open("rb") as file:
            found.append(_Failure(*pickle.load(file)))  # noqa: S301 - written by our own ranks
    return found


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + ("; often the machine is out of memory" if name == "SIGKILL" else "")


# --- in a rank -------------------------------------------------------------------------------------------------------


def _rank(name: str, threads: int | None) -> None:
    """Life of a rank: do the work, leave the result, or say why there is none."""
    folder, number = Path(name), int(os.environ["RANK"])
    (folder / f"begun-{number}").touch()
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the watch sees them, also while this thread waits
    threading.Thread(target=_watch, args=(folder,), daemon=True).start()
    try:
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)  # Lightning leaves the number alone then
            torch.set_num_threads(threads)
        function, arguments = _read_work(folder)
        result = function(*arguments)
        if number == 0:
            torch.save(result, folder / _RESULT)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except BaseException as error:
        _note(folder, number, error)
        time.sleep(_NOTICED_S)
        _end(1)


def _read_work(folder: Path) -> Any:
    try:
        return torch.load(folder / _WORK, map_location="cpu", mmap=True, weights_only=False)
    except AttributeError as error:
        raise ConfigError(
            f"Another process cannot find what it is to work with: {error}; define it in a module that can be "
            "imported, or start the program with torchrun."
        ) from error


def _note(folder: Path, number: int, error: BaseException) -> None:
    """Say what was raised, in a form that this package's exceptions survive whatever their constructors take."""
    moment, kind, arguments = time.time(), type(error), error.args
    text = "".join(traceback.format_exception(error))
    try:
        content = pickle.dumps((moment, number, kind, arguments, text))
        str(kind.__new__(kind, *arguments))
    except Exception:  # of another package, and not made to be sent
        content = pickle.dumps((moment, number, RuntimeError, (f"{kind.__name__}: {error}",), text))
    path = folder / f"failure-{number}"
    path.with_name(f".{path.name}").write_bytes(content)
    path.with_name(f".{path.name}").rename(path)


def _watch(folder: Path) -> None:
    """End this rank when its parent is gone, when it is told to, or when it may wait for one that has failed."""
    parent = multiprocessing.parent_process()
    while True:
        if hasattr(signal, "sigtimedwait"):
            received = signal.sigtimedwait(_ENDING, _POLL_S)
            if received is not None:
                _end(128 + received.si_signo)
        else:
            time.sleep(_POLL_S)
        if parent is None or wait([parent.sentinel], 0):
            _end(1)
        failed = [path.stat().st_mtime for path in folder.glob("failure-*")]
        if failed and time.time() - min(failed) > _GRACE_S:
            _end(1)


def _end(code: int) -> None:
    """Leave at once: what Python does on its way out may wait for the other ranks."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
