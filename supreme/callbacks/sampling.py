"""Sampling in the background: a thread that reads at a fixed rate, and what a process and its children use."""

import os
import threading
import time
from collections.abc import Callable, Iterable

import psutil
from lightning.pytorch import Trainer

_LISTING_SHARE = 0.01


class Sampler:
    """Calls ``read`` at a fixed rate on a thread of its own, and once more when it is stopped.

    An exception ends the sampling and is kept in ``failure``: a measurement never ends the run that it measures.

    Args:
        read: takes one sample; only one thread calls it at a time.
        interval_s: seconds from one sample to the next.

    Example:
        >>> seen = []
        >>> sampler = Sampler(lambda: seen.append(1), interval_s=60.0)
        >>> sampler.start()
        >>> sampler.stop()
        >>> seen
        [1]
    """

    def __init__(self, read: Callable[[], None], interval_s: float) -> None:
        self.failure: Exception | None = None
        self._read = read
        self._interval_s = interval_s
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start a thread; to be called when none is running."""
        self._end.clear()
        self._thread = threading.Thread(target=self._run, name="supreme-sampler", daemon=True)
        self._thread.start()

    def stop(self, last: bool = True) -> None:
        """End the thread and wait for it; ``last`` takes a closing sample."""
        if self._thread is None:
            return
        self._end.set()
        self._thread.join()
        self._thread = None
        if last:
            self._sample()

    def _run(self) -> None:
        due = time.monotonic() + self._interval_s
        while self.failure is None and not self._end.wait(max(0.0, due - time.monotonic())):
            self._sample()
            due = max(due + self._interval_s, time.monotonic())

    def _sample(self) -> None:
        if self.failure is None:
            try:
                self._read()
            except Exception as error:
                self.failure = error


class ProcessTree:
    """This process and its children of any depth, such as the workers of a data loader.

    Processes that vanish while they are read are ignored. Finding children means a look at every process of the
    machine; it is repeated so seldom that it takes about 1 % of the time.

    Args:
        without: process ids of children that do not count, with all that they started.

    Example:
        >>> tree = ProcessTree()
        >>> tree.resident_bytes() > 0
        True
    """

    def __init__(self, without: Iterable[int] = ()) -> None:
        self._own = psutil.Process()
        self._without = frozenset(without)
        self._children: list[psutil.Process] = []
        self._next_listing = 0.0
        self._cpu_s = 0.0
        self.cpu_seconds()

    def resident_bytes(self) -> int:
        """Resident memory (RSS), summed; pages shared by several processes count in each of them."""
        return sum(_resident_bytes(process) for process in (self._own, *self._list()))

    def cpu_seconds(self) -> float:
        """CPU time used since the last call (or since creation), summed.

        A child that has ended counts through its parent, which takes over a child's CPU time when it waits for it.
        """
        own = os.times()
        total = time.process_time() + own.children_user + own.children_system
        total += sum(_cpu_s(process) for process in self._list())
        used, self._cpu_s = max(0.0, total - self._cpu_s), total
        return used

    def refresh(self) -> None:
        """Look for new children now."""
        start = time.thread_time()
        self._children = self._find()
        spent_s = time.thread_time() - start
        self._next_listing = time.monotonic() + spent_s / _LISTING_SHARE

    def _list(self) -> list[psutil.Process]:
        if time.monotonic() >= self._next_listing:
            self.refresh()
        return self._children

    def _find(self) -> list[psutil.Process]:
        found = _family(self._own)[1:]
        dropped = {item for process in found if process.pid in self._without for item in _family(process)}
        return [process for process in found if process not in dropped]


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + getattr(times, "children_user", 0) + getattr(times, "children_system", 0))


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def process_tree(trainer: Trainer) -> ProcessTree:
    """This rank's process tree; ranks that Lightning started as children of rank 0 are not in rank 0's."""
    launched = getattr(trainer.strategy.launcher, "procs", ())
    return ProcessTree(without=[process.pid for process in launched if process.pid is not None])


def usable_cores() -> frozenset[int]:
    """Numbers of the cores that this process may run on.

    Example:
        >>> len(usable_cores()) >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
