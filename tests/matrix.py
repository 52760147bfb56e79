"""Where the package runs: a table made of the outcomes of tests marked ``runs_on(accelerator, strategy, processes)``.

A word in braces stands for a parameter of the test: ``runs_on("cpu", "{strategy}", 2)``. Outcomes are kept in
``runs_on.json``; a session with ``SUPREME_WRITE_DOCUMENTS=1`` adds its own and writes the table of the README.
"""

import json
import re
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).with_name("runs_on.json")
ROWS = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS", "tpu": "TPU"}
COLUMNS = {
    "auto": "One device",
    "ddp": "DDP",
    "fsdp": "FSDP2",
    "deepspeed_stage_1": "ZeRO-1",
    "deepspeed_stage_2": "ZeRO-2",
    "deepspeed_stage_3": "ZeRO-3",
}
ALIASES = {"zero1": "deepspeed_stage_1", "zero2": "deepspeed_stage_2", "zero3": "deepspeed_stage_3"}
PART = re.compile(r"(?<=<!-- strategies -->\n).*?(?=<!-- /strategies -->)", re.DOTALL)


class Outcomes:
    """What the marked tests of a session came to."""

    def __init__(self):
        self.found = {}

    def note(self, report):
        """Take the report of a phase of a test."""
        place = dict(report.user_properties).get("runs_on")
        if place is not None and (report.when == "call" or report.failed):
            file = report.nodeid.partition("::")[0]
            self.found.setdefault(tuple(place), {}).setdefault(file, []).append(report.outcome)

    def merged(self, before):
        """The stored outcomes with those of this session; tests that were skipped change nothing."""
        after = {key_of(row): row for row in before}
        for place, files in self.found.items():
            outcomes = [outcome for results in files.values() for outcome in results if outcome != "skipped"]
            if outcomes:
                state = "passed" if set(outcomes) == {"passed"} else "failed"
                old = after.get(place, {"tests": []})
                names = sorted({*old["tests"], *files}) if old.get("outcome") == state else sorted(files)
                made = {name: version(name) for name in ("torch", "lightning")}
                row = dict(zip(("accelerator", "strategy", "processes"), place, strict=True))
                after[place] = {**row, "outcome": state, "tests": names, "versions": made}
        order = sorted(after, key=lambda place: (list(ROWS).index(place[0]), list(COLUMNS).index(place[1]), place[2]))
        return [after[place] for place in order]


def mark(item):
    """Say in the reports of a test where it runs."""
    for found in item.iter_markers("runs_on"):
        accelerator, strategy, processes = found.args
        strategy = strategy.format(**getattr(getattr(item, "callspec", None), "params", {}))
        item.user_properties.append(("runs_on", (accelerator, ALIASES.get(strategy, strategy), processes)))


def key_of(row):
    return row["accelerator"], row["strategy"], row["processes"]


def stored():
    """The outcomes that are kept."""
    return json.loads(FILE.read_text()) if FILE.exists() else []


def table(rows):
    """The table of the README."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for accelerator, name in ROWS.items():
        cells = [_cell([row for row in rows if key_of(row)[:2] == (accelerator, strategy)]) for strategy in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = f"{' and '.join(unsplit())} hold one whole copy of the weights on every device, whatever the strategy."
    return "\n".join([*lines, "", note]) + "\n"


def unsplit():
    """Names of the methods that keep a copy of the weights which no strategy splits."""
    from supreme import methods

    return [name for name in methods.__all__ if issubclass(getattr(methods, name), methods.SSDDet)]


def _cell(rows):
    if not rows:
        return "untested"
    failed = [row for row in rows if row["outcome"] != "passed"]
    row = max(failed or rows, key=lambda row: row["processes"])
    count = row["processes"]
    text = "fails" if failed else "tested" if count == 1 else f"{count} processes"
    return f"[{text}]({row['tests'][-1]})"


def write(outcomes, readme):
    """Keep a session's outcomes and write the table."""
    rows = outcomes.merged(stored())
    FILE.write_text(json.dumps(rows, indent=1) + "\n")
    readme.write_text(PART.sub(lambda _: table(rows), readme.read_text()))
