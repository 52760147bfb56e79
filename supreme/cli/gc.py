"""``supreme gc``: lists checkpoints that no plan refers to, and removes them once that is confirmed."""

import sys
from collections.abc import Sequence

from supreme.cli.options import Options
from supreme.errors import ConfigError
from supreme.experiment.garbage import Garbage, Leftover

_ABOUT = """
Shows what lies in an output folder that none of the plans run there refers to: stages of earlier settings or of other
code, what killed processes left half-written. Records and what a process works on always stay.
"""


def main(command: str, words: Sequence[str]) -> int:
    """List what is left over and remove it when told to.

    Args:
        command: ``"gc"``.
        words: the words after it.

    Returns:
        1 when something could not go because it is in use, else 0.

    Raises:
        ConfigError: if no plan was ever run in the folder, or it cannot be told what is left over.
        OutputError: if something cannot be removed.
    """
    options = Options(f"supreme {command}", _ABOUT)
    options.add_argument("runs", metavar="RUNS", help="output folder of 'supreme run'")
    options.add_argument("--yes", action="store_true", help="remove without asking")
    given = options.parse_args(words)
    garbage = Garbage(given.runs)
    found = garbage.find()
    if not found:
        sys.stdout.write(f"Nothing is left over in {given.runs}.\n")
        return 0
    for leftover in found:
        sys.stdout.write(f"{size(leftover.size_bytes):>10}  {leftover.label} ({leftover.reason})\n")
    total = size(sum(leftover.size_bytes for leftover in found))
    sys.stdout.write(f"{total:>10}  in all, {_count(len(found))} in {given.runs}\n")
    for name in garbage.stale:
        sys.stdout.write(f"Plan '{name}' has no result any more: its settings or the code have changed since.\n")
    if not given.yes and not _confirmed():
        return 0
    return _remove(garbage, found)


def size(count: int) -> str:
    """Bytes in words.

    Example:
        >>> size(512), size(44_700_000)
        ('512 B', '42.6 MiB')
    """
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        sys.stdout.write("Nothing was removed; --yes removes it.\n")
        return False
    sys.stdout.write("Remove all of it? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline().strip().lower() in ("y", "yes")
    if not answer:
        sys.stdout.write("Nothing was removed.\n")
    return answer


def _remove(garbage: Garbage, found: Sequence[Leftover]) -> int:
    gone: list[Leftover] = []
    try:
        for leftover, went in garbage.remove(found):
            if went:
                gone.append(leftover)
    except ConfigError as error:
        raise ConfigError(f"Removed {_count(len(gone))} of {len(found)}. {error}") from error
    freed, kept = size(sum(leftover.size_bytes for leftover in gone)), len(found) - len(gone)
    used = f"; {kept} in use now stay" if kept else ""
    sys.stdout.write(f"Removed {_count(len(gone))}, {freed}{used}.\n")
    return int(kept > 0)


def _count(number: int) -> str:
    return f"{number} leftover{'s' * (number != 1)}"
