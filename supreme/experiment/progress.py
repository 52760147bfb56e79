"""Progress: what a plan is doing, on a terminal as bars and elsewhere as one plain line per finished stage."""

import sys
from typing import Any, Literal, NamedTuple, TextIO

End = Literal["done", "reused", "failed", "blocked"]


class Counts(NamedTuple):
    """Where a plan stands.

    Attributes:
        runs: all runs.
        runs_done: runs with a result.
        runs_failed: runs that failed or cannot be done because a stage that they need failed.
        stages: all stages that had to be done at the start.
        stages_left: those that are still to be done.
        seconds_left: estimate, None when too little is known.
    """

    runs: int
    runs_done: int
    runs_failed: int
    stages: int
    stages_left: int
    seconds_left: float | None


class Progress:
    """Shows nothing; base of those that do."""

    def start(self, counts: Counts, workers: int) -> None:
        """The plan begins."""

    def stage_started(self, worker: int, label: str) -> None:
        """A worker begins a stage."""

    def stage_ended(
        self, worker: int | None, label: str, end: End, seconds: float, reason: str, counts: Counts
    ) -> None:
        """A stage has ended; ``worker`` is None when another process did it or nobody could."""

    def stop(self) -> None:
        """The plan has ended or was interrupted."""


class PlainProgress(Progress):
    """One line per finished stage, without control characters.

    Args:
        stream: where to; None is standard error.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def start(self, counts: Counts, workers: int) -> None:
        """Say what is to be done."""
        self._write(
            f"{_count(counts.runs, 'run')}, {counts.runs_done} done already; {_count(counts.stages, 'stage')} to do"
            f" with {_count(workers, 'worker')}{_left(counts)}"
        )

    def stage_ended(
        self, worker: int | None, label: str, end: End, seconds: float, reason: str, counts: Counts
    ) -> None:
        """Say what ended and what is left."""
        ended = f"{end} in {duration(seconds)}" if worker is not None else end
        because = f": {reason}" if reason else ""
        number = counts.stages - counts.stages_left
        left = counts.runs - counts.runs_done - counts.runs_failed
        self._write(f"[{number}/{counts.stages}] {ended}: {label}{because} ({_count(left, 'run')} left{_left(counts)})")

    def _write(self, line: str) -> None:
        self._stream.write(" ".join(line.split()) + "\n")
        self._stream.flush()


class RichProgress(Progress):
    """Bars on a terminal: all stages with the time left, and what each worker does.

    Args:
        console: a ``rich.console.Console``.
    """

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: list[Any] = []

    def start(self, counts: Counts, workers: int) -> None:
        """Show the bars."""
        self._tasks = [self._bars.add_task("stages", total=counts.stages, note=_note(counts))]
        self._tasks += [self._bars.add_task("idle", total=None, note="", visible=False) for _ in range(workers)]
        self._bars.start()

    def stage_started(self, worker: int, label: str) -> None:
        """Show what a worker does."""
        self._bars.reset(self._tasks[worker + 1], description=label, visible=True, total=None)

    def stage_ended(
        self, worker: int | None, label: str, end: End, seconds: float, reason: str, counts: Counts
    ) -> None:
        """Move the bar; failures stay on the screen above it."""
        done = counts.stages - counts.stages_left
        self._bars.update(self._tasks[0], completed=done, note=_note(counts))
        if worker is not None:
            self._bars.update(self._tasks[worker + 1], visible=False)
        if end == "failed":
            self._bars.console.print(f"failed: {label}: {reason}", style="red", markup=False, highlight=False)

    def stop(self) -> None:
        """Remove the bars."""
        self._bars.stop()


def progress_for(stream: TextIO | None = None) -> Progress:
    """Bars when the stream is a terminal, plain lines otherwise.

    Args:
        stream: where to; None is standard error.

    Example:
        >>> import io
        >>> type(progress_for(io.StringIO())).__name__
        'PlainProgress'
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        return PlainProgress(stream)
    from rich.console import Console

    console = Console(file=stream)
    return RichProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(stream)


def duration(seconds: float) -> str:
    """Seconds in words.

    Example:
        >>> duration(3.21), duration(75), duration(7300), duration(200000)
        ('3.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {smaller}"
    return f"{whole} s"


def _left(counts: Counts) -> str:
    known = counts.seconds_left is not None and counts.stages_left
    return f", about {duration(counts.seconds_left or 0.0)} to go" if known else ""


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _note(counts: Counts) -> str:
    failed = f", {counts.runs_failed} failed" if counts.runs_failed else ""
    return f"runs {counts.runs_done}/{counts.runs} done{failed}{_left(counts)}"
