"""Workers: where stages are executed, in this process or in processes that run many stages each."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

from supreme.components import load
from supreme.errors import OutputError, SupremeError
from supreme.experiment.stage import Stage
from supreme.experiment.store import RESULT_FILE, Store

_MUCH = 100 * 2**20  # bytes of new memory that are worth a look for garbage
_after_collection = [0]


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


def perform(stage: Stage, store: Store, execute: str, led: Callable[[], bool] = lambda: True) -> Outcome:
    """Execute a stage; a failure is noted in the store.

    Args:
        stage: what to do.
        store: where its inputs are and its result goes.
        execute: dotted name of ``function(stage, store) -> None``, which commits the stage's result.
        led: whether the scheduler that asked for it still lives. What fails once it is gone (its lease is, the ranks
            of a stage are being ended) says nothing about the stage and is not noted.

    Returns:
        How it ended; the seconds are those of the work, without the import of the executor.
    """
    started, reason = time.monotonic(), None
    try:
        function = load(execute)
        started = time.monotonic()
        store.begin(stage)
        function(stage, store)
        _check(stage, store)
    except SystemExit as exc:
        if isinstance(exc.__context__, KeyboardInterrupt):  # Lightning's Trainer turns Ctrl-C into an exit
            raise KeyboardInterrupt from exc
        reason = _note(stage, store, RuntimeError(f"it asked Python to exit with code {exc.code}"), led)
    except Exception as exc:
        reason = _note(stage, store, exc, led)
    seconds = time.monotonic() - started
    _tidy()
    return Outcome(stage, reason, seconds)


def _tidy() -> None:
    """Free what stages left in reference cycles, as a Trainer with its model and optimiser is, before it is much."""
    import psutil

    process = psutil.Process()
    if process.memory_info().rss > _after_collection[-1] + _MUCH:
        gc.collect()
        _after_collection[:] = [process.memory_info().rss]


def _check(stage: Stage, store: Store) -> None:
    if not store.has(stage):
        wanted = f"a result with {RESULT_FILE}" if stage.kind == "evaluate" else "a result"
        raise SupremeError(f"The executor returned without committing {wanted}.")


def _note(stage: Stage, store: Store, exc: BaseException | str, led: Callable[[], bool] = lambda: True) -> str:
    try:
        return store.fail(stage, exc) if led() else str(exc)
    except OutputError as unwritten:
        return f"{exc} (and this could not be noted: {unwritten})"


class InlineCrew:
    """Executes stages in this process, one at a time, so that a debugger sees them."""

    def __init__(self, store: Store, execute: str, threads: int) -> None:
        self._store, self._execute, self._threads = store, execute, threads
        self._given: Stage | None = None

    def free(self) -> int:
        """One, or none when a stage waits for :meth:`collect`."""
        return int(self._given is None)

    def submit(self, stage: Stage) -> int:
        """Take a stage."""
        self._given = stage
        return 0

    def collect(self, timeout: float | None) -> list[Outcome]:
        """Execute the stage that was taken; without one, wait."""
        if self._given is None:
            time.sleep(timeout or 0.0)
            return []
        stage, self._given = self._given, None
        with _threads(self._threads):
            return [perform(stage, self._store, self._execute)]

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
        if worker is not None and not worker.process.is_alive():
            worker.connection.close()
            worker = None
        if worker is None:
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
        """Kill the busy workers and whatever they have started; idle ones end by themselves."""
        for slot in self._busy:
            _kill_tree(self._process_id(slot))
        alive = [worker for worker in self._workers if worker is not None]
        for worker in alive:
            worker.connection.close()
        for worker in alive:
            worker.process.join(timeout=5)
            _kill_tree(worker.process.pid if worker.process.is_alive() else None)
        self._workers, self._busy = [None] * len(self._workers), {}

    def _process_id(self, slot: int) -> int | None:
        worker = self._workers[slot]
        return None if worker is None else worker.process.pid

    def _end(self, slot: int, worker: _Worker) -> Outcome:
        stage, started = self._busy.pop(slot)
        try:
            if not worker.connection.poll():
                raise EOFError
            outcome: Outcome = worker.connection.recv()
            return outcome
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
        settings = {name: getattr(self._store, name) for name in ("root", "workers", "track_evaluation")}
        arguments = (theirs, settings, self._execute, self._threads)
        process = context.Process(target=_serve, args=arguments, name=f"supreme-worker-{slot}")
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        resource_tracker.ensure_running()  # its start would let Ctrl-C through again
        with _environment({**_thread_variables(self._threads), **gpu}), _deaf_to_ctrl_c():
            process.start()
        theirs.close()
        return _Worker(process, ours)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that do not see the terminal's Ctrl-C; this process sees it at the end of the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, settings: Mapping[str, Any], execute: str, threads: int) -> None:
    """Life of a worker process: receive stages, execute them, answer, until the parent is gone."""
    signal.signal(signal.SIGINT, _ignore)  # the parent ends its workers; what they start keeps the default
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_parent, daemon=True).start()
    store, parent = Store(**settings), multiprocessing.parent_process()
    while parent is not None:
        try:
            stage = connection.recv()
        except EOFError:
            return
        if parent.is_alive():
            with _printing_to(store.log(stage)), _threads(threads):
                outcome = perform(stage, store, execute, parent.is_alive)
        if not parent.is_alive():
            return
        connection.send(outcome)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing about a signal."""


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        _kill_tree(os.getpid())


def _kill_tree(pid: int | None) -> None:
    """Kill a process of ours and everything that it has started.

    Its children come last, so that it does not take their end for a failure; this process itself comes after them.
    """
    import psutil

    if pid is None:
        return
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        for victim in family[::-1] if pid == os.getpid() else family:
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
    path.unlink(missing_ok=True)
    with path.open("ab") as file:  # ranks of a stage add what they print
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
    try:
        with _environment(_thread_variables(count)):
            yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)
