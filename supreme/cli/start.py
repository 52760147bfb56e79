"""The commands of the Trainer: what is plainly wrong is said before Lightning is imported, which takes seconds."""

import os
from collections.abc import Sequence

from supreme.cli.words import check


def main(command: str, words: Sequence[str]) -> int:
    """Check the words, then run the command.

    Args:
        command: ``"fit"``, ``"validate"``, ``"test"``, ``"predict"``, ``"unlearn"`` or ``"evaluate"``.
        words: the words after it.

    Raises:
        SupremeError: if what was given cannot be used.
    """
    check(words)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not hold back those that work
    from supreme.cli.main import main as run

    return run(command, words)
