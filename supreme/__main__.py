"""The command ``supreme``: finds out what is asked for before it imports anything heavy."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from supreme import __version__
from supreme.errors import SupremeError, UnknownNameError

# name -> module below supreme.cli with ``main(command, words) -> int``, and a summary
COMMANDS: Mapping[str, tuple[str, str]] = {
    "fit": ("start", "train an original model"),
    "validate": ("start", "measure a model on the test set"),
    "test": ("start", "measure a model on every image"),
    "predict": ("start", "logits of the test set"),
    "unlearn": ("start", "remove a forget set from a model: --method LFSSD is all it needs"),
    "evaluate": ("start", "compare an unlearned model with the retrained one"),
    "run": ("run", "compare methods over many seeds: run quickstart"),
    "status": ("status", "where a plan stands"),
    "report": ("report", "tables, plots and one page from the results of a plan"),
    "gc": ("gc", "remove checkpoints that no plan refers to"),
    "list": ("list", "methods, metrics, scenarios, datasets, models or corrections"),
}
INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        words: the words after ``supreme``; None takes those of the command line.

    Returns:
        The exit code: 0 when all went well, 1 when a run failed, 2 when the input was wrong, 130 after Ctrl-C. An
        error that nobody foresaw keeps its traceback.

    Example:
        >>> main(["--version"])
        supreme 0.1.0
        0
    """
    try:
        return _dispatch(list(sys.argv[1:] if words is None else words))
    except SupremeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except SystemExit as exit_:  # Lightning's Trainer turns Ctrl-C into an exit
        return INTERRUPTED if isinstance(exit_.__context__, KeyboardInterrupt) else _code(exit_.code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in ``supreme list methods | head -1``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["-V"]):
        sys.stdout.write(f"supreme {__version__}\n")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        (sys.stdout if words else sys.stderr).write(_help())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        raise UnknownNameError("command", words[0], COMMANDS, "'supreme --help' explains them.")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # so that ``--method my_pkg.MyMethod`` finds a package that is not installed
    module = import_module(f"supreme.cli.{COMMANDS[words[0]][0]}")
    return int(module.main(words[0], words[1:]))


def _help() -> str:
    lines = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: supreme COMMAND ...\n\n"
        "Train, unlearn, evaluate and compare machine-unlearning methods for image classifiers.\n\n"
        f"commands:\n{lines}\n\n"
        "'supreme COMMAND --help' shows the options of a command, 'supreme --version' the version.\n"
    )


def _code(code: object) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    sys.stderr.write(f"{code}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
