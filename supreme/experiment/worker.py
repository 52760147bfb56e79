"""Workers: where stages are executed, in this process or in processes that run many stages each."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, Protocol

from supreme.components import load
from supreme.errors import OutputError, SupremeError
from supreme.experiment.stage import Stage
from supreme.experiment.store import RESULT_FILE, Store


class Outcome(NamedTuple):
    """How a stage ended: ``reason`` says why it failed, None when it is done."""

    stage: Stage
    reason: str | None
    seconds: float


class Crew(Protocol):
    """What executes stages."""

    def free(self) -> int:
        """How many stages can be taken now."""

    def submit(self, stage: Stage) -> int:
        """Execute a stage; returns the number of the worker."""

    def collect(self, timeout: float | None) -> list[Outcome]:
        """Stages that have ended, waiting for one for at most so many seconds."""

    def stop(self) -> None:
        """End at once, finished or not."""


def perform(stage: Stage, store: Store, execute: str) -> str | None:
    """Execute a stage; a failure is noted in the store.

    Args:
        stage: what to do.
        store: where its inputs are and its result goes.
        execute: dotted name of ``function(stage, store) -> None``, which commits the stage's result.

    Returns:
        The reason of a failure, None when the result is there.
    """
    try:
        function = load(execute)
        store.begin(stage)
        function(stage, store)
        _check(stage, store)
    except SystemExit as exc:
        if isinstance(exc.__context__, KeyboardInterrupt):  # Lightning's Trainer turns Ctrl-C into an exit
            raise KeyboardInterrupt from exc
        return _note(stage, store, RuntimeError(f"it asked Python to exit with code {exc.code}"))
    except Exception as exc:
        return _note(stage, store, exc)
    return None


def _check(stage: Stage, store: Store) -> None:
    if not store.has(stage):
        raise SupremeError(f"The executor returned without committing a result of '{stage.label}'.")
    if stage.kind == "evaluate" and not (store.path(stage) / RESULT_FILE).is_file():
        store.discard(stage)
        raise SupremeError(f"The executor committed no {RESULT_FILE} for '{stage.label}'.")


def _note(stage: Stage, store: Store, exc: BaseException | str) -> str:
    try:
        return store.fail(stage, exc)
    except OutputError as unwritten:
        return f"{exc} (and this could not be noted: {unwritten})"


class InlineCrew:
    """Executes stages in this process, one at a time, so that a debugger sees them."""

    def __init__(self, store: Store, execute: str, threads: int) -> None:
        self._store, self._execute, self._threads = store, execute, threads
        self._ended: list[Outcome] = []

    def free(self) -> int:
        """One, until something has ended."""
        return int(not self._ended)

    def submit(self, stage: Stage) -> int:
        """Execute a stage before returning."""
        started = time.monotonic()
        with _threads(self._threads):
            reason = perform(stage, self._store, self._execute)
        self._ended.append(Outcome(stage, reason, time.monotonic() - started))
        return 0

    def collect(self, timeout: float | None) -> list[Outcome]:
        """What has ended; waits only when nothing has."""
        if not self._ended and timeout:
            time.sleep(timeout)
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Nothing runs between calls."""


class _Worker(NamedTuple):
    process: multiprocessing.process.BaseProcess
    connection: Connection


class ProcessCrew:
    """Executes stages in worker processes, which are started when first needed and replaced when they die.

    Args:
        store: the store.
        execute: dotted name of the executor.
        threads: CPU threads of each worker.
        workers: number of processes.
        gpus: devices to share out, one per worker in turn (``CUDA_VISIBLE_DEVICES``); empty leaves all visible.
    """

    def __init__(self, store: Store, execute: str, threads: int, workers: int, gpus: Sequence[str] = ()) -> None:
        self._store, self._execute, self._threads, self._gpus = store, execute, threads, gpus
        self._workers: list[_Worker | None] = [None] * workers
        self._busy: dict[int, tuple[Stage, float]] = {}

    def free(self) -> int:
        """Workers without a stage."""
        return len(self._workers) - len(self._busy)

    def submit(self, stage: Stage) -> int:
        """Hand a stage to a free worker."""
        slot = next(number for number in range(len(self._workers)) if number not in self._busy)
        worker = self._workers[slot]
        if worker is None or not worker.process.is_alive():
            worker = self._workers[slot] = self._start(slot)
        self._busy[slot] = stage, time.monotonic()
        with suppress(OSError):  # it died this moment: collect reports that
            worker.connection.send(stage)
        return slot

    def collect(self, timeout: float | None) -> list[Outcome]:
        """What has ended, the stages of dead workers included."""
        busy = {slot: worker for slot, worker in enumerate(self._workers) if worker is not None and slot in self._busy}
        if not busy:
            if timeout:
                time.sleep(timeout)
            return []
        ready = wait(
            [thing for worker in busy.values() for thing in (worker.connection, worker.process.sentinel)], timeout
        )
        return [
            self._end(slot, worker)
            for slot, worker in busy.items()
            if worker.connection in ready or worker.process.sentinel in ready
        ]

    def stop(self) -> None:
        """Kill all workers and whatever they have started."""
        alive = [worker for worker in self._workers if worker is not None]
        for worker in alive:
            _kill_tree(worker.process.pid)
        for worker in alive:
            worker.process.join(timeout=10)
            worker.connection.close()
        self._workers, self._busy = [None] * len(self._workers), {}

    def _end(self, slot: int, worker: _Worker) -> Outcome:
        stage, started = self._busy.pop(slot)
        try:
            if not worker.connection.poll():
                raise EOFError
            reason: str | None = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(timeout=10)
            worker.connection.close()
            self._workers[slot] = None
            text = _death(worker.process.exitcode, self._store.log(stage))
            reason = None if self._store.has(stage) else _note(stage, self._store, text)
        return Outcome(stage, reason, time.monotonic() - started)

    def _start(self, slot: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._store.root, self._store.workers, self._execute, self._threads)
        process = context.Process(target=_serve, args=arguments, name=f"supreme-worker-{slot}")
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        with _environment({**_thread_variables(self._threads), **gpu}):
            process.start()
        theirs.close()
        return _Worker(process, ours)


def _serve(connection: Connection, root: Path, workers: int, execute: str, threads: int) -> None:
    """Life of a worker process: receive stages, execute them, answer, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_die_with_parent, daemon=True).start()
    store = Store(root, workers)
    while True:
        try:
            stage = connection.recv()
        except EOFError:
            return
        with _printing_to(store.log(stage)), _threads(threads):
            reason = perform(stage, store, execute)
        connection.send(reason)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _kill_tree(os.getpid())


def _kill_tree(pid: int | None) -> None:
    """Kill a process of ours and everything that it has started."""
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for victim in (*process.children(recursive=True), process):
            with suppress(psutil.Error):
                victim.kill()


def _death(code: int | None, log: Path) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        cause = "; often the machine is out of memory" if name == "SIGKILL" else ""
        how = f"was killed by {name}{cause}"
    else:
        how = f"ended with exit code {code}"
    return f"The worker process {how}; what it printed is in '{log}'."


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Send what this process prints, on every level, to a file; an empty file is removed."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if path.stat().st_size == 0:
            path.unlink()


def _thread_variables(threads: int) -> dict[str, str]:
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Limit the CPU threads of what is imported and computed inside."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(count)
    with _environment(_thread_variables(count)):
        yield
    if torch is not None:
        torch.set_num_threads(before)
