"""What the tasks of a cluster do in tests; importable in them through PYTHONPATH, and light."""

import json
import os
import time
from pathlib import Path


def execute(stage, store):
    """Note the process, take a while where a file asks for it, and commit next to nothing."""
    calls = store.root.parent / "calls"
    with calls.open("a") as file:
        file.write(f"{stage.key} {stage.kind} {os.environ.get('SLURM_ARRAY_TASK_ID')} {os.getpid()}\n")
    wait = store.root.parent / f"wait-{stage.kind}"
    end = time.monotonic() + 60
    while wait.exists() and time.monotonic() < end:
        time.sleep(0.1)
    if stage.config.get("method", {}).get("init_args", {}).get("act") == "raise" and stage.kind == "unlearn":
        raise ValueError("weights are not finite")

    def write(folder: Path):
        (folder / "result.json").write_text(json.dumps({"metrics": {"forget/accuracy": 0.5}, "contended": False}))
        return {}

    store.commit(stage, write)
