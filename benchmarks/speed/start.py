"""How long the command line takes to say something: ``supreme --help`` and ``supreme list methods``, as processes.

    python benchmarks/speed/start.py

The bars are 0.3 s and 0.5 s. ``python -c pass`` tells what of that is Python itself.
"""

import os
import subprocess
import sys

from measure import ROOT, begin, conditions, finish, in_turns, parser, row

COMMANDS = {
    "python -c pass": (["-c", "pass"], ""),
    "supreme --help": (["-m", "supreme", "--help"], "<= 0.3"),
    "supreme list methods": (["-m", "supreme", "list", "methods"], "<= 0.5"),
    "supreme --version": (["-m", "supreme", "--version"], ""),
}


def run(words: list[str]) -> None:
    """One process, from its start to its end."""
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *words], env=here, check=True, capture_output=True)


def main() -> None:
    """Measure, print and write."""
    given = begin(parser(__doc__, repeats=15))
    sides = {name: (lambda words=words: lambda: run(words)) for name, (words, _) in COMMANDS.items()}
    found = in_turns(sides, given.repeats)
    rows = [row(name, 1, found.wall[name], "s", bar) for name, (_, bar) in COMMANDS.items()]
    finish("start", rows, given, conditions())


if __name__ == "__main__":
    main()
