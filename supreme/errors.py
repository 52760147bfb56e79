"""Exceptions whose text says what was expected, what came, and what to do next.

Every error that a user can cause is a :class:`SupremeError`. The command line prints its text without a traceback
and ends with exit code 2.
"""

import difflib
from collections.abc import Iterable


class SupremeError(Exception):
    """Base of every error that bad input can cause; its text is one sentence meant for the user."""


class ConfigError(SupremeError, ValueError):
    """An argument, a plan or a configuration file has a value that cannot be used."""


class DataError(SupremeError, ValueError):
    """Images or labels are missing, unreadable or unsuited."""


class CheckpointError(SupremeError, ValueError):
    """A stored model cannot be read or does not fit what it is used for."""


class OutputError(SupremeError, OSError):
    """A result cannot be written where the user asked for it."""


class NotApplicableError(SupremeError):
    """A method needs something that the forget request does not have, for example a class to forget."""


class RankError(SupremeError, RuntimeError):
    """One of several processes that work together ended without saying why."""


class UnknownNameError(ConfigError):
    """A name is not known.

    Args:
        kind: what was named, in words (``"method"``, ``"class"``).
        name: what the user wrote.
        known: the names that would have been accepted.
        hint: a closing half-sentence that says where to find the full list.

    Example:
        >>> str(UnknownNameError("method", "LFSDD", ["SSD", "LFSSD", "FineTune"]))
        "Unknown method 'LFSDD'; did you mean 'LFSSD'?"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = list(dict.fromkeys(str(item) for item in known))
        near = nearest(name, names)
        if near:
            text = f"Unknown {kind} '{name}'; did you mean {' or '.join(repr(item) for item in near)}?"
        else:
            shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            text = f"Unknown {kind} '{name}'; known: {shown or 'none'}."
        super().__init__(f"{text} {hint}".strip())


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Names that resemble ``name``, best first, without regard to case.

    Example:
        >>> nearest("lfsdd", ["SSD", "LFSSD", "UNSIR"], count=1)
        ['LFSSD']
    """
    by_lower, wanted = {item.lower(): item for item in known}, str(name).lower()
    close = difflib.get_close_matches(wanted, by_lower, n=max(1, len(by_lower)), cutoff=0.55)
    ratio = difflib.SequenceMatcher(b=wanted)

    def distance(item: str) -> tuple[float, int]:
        ratio.set_seq1(item)
        return -ratio.ratio(), abs(len(item) - len(wanted))

    return [by_lower[item] for item in sorted(close, key=distance)[:count]]
