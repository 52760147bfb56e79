"""``supreme run`` killed without warning, twice, and started again: the same results as undisturbed, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

PLAN = {
    "name": "killed",
    "datasets": [{"class_path": "Digits", "init_args": {"test_fraction": 0.5}}],
    "models": [{"class_path": "ResNet18", "init_args": {"width": 8}}],
    "training": {"epochs": 1, "lr": 0.01},
    "scenarios": [{"class_path": "FullClass", "targets": [3]}, {"class_path": "RandomSample", "targets": [0.1]}],
    "methods": ["SSD", "UNSIR"],
    "seeds": [5],
    "trainer": {"accelerator": "cpu"},
}
MEASURED = ("time_s", "time_s_reused", "speedup", "peak_memory_bytes", "utilisation")


def finished(folder):
    return {path.parent.name for path in (folder / "stages").glob("*/[0-9a-f]*/stage.json")}


def killed_after(stages, folder, *words):
    """Start the command in a group of its own and kill all of it once so many stages are there."""
    command = [sys.executable, "-m", "supreme", *words]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 100
        while len(finished(folder)) < stages and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return len(finished(folder))


def results(folder):
    """Every weight and output file, and every metric that is not measured by a clock."""
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
    records = [json.loads(path.read_text()) for path in (folder / "records").glob("*.json")]
    shown = {
        record["key"]: {name: value for name, value in record["metrics"].items() if name not in MEASURED}
        for record in records
    }
    return files, shown


@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_the_records_are_those_of_an_undisturbed_run(workers, inside, process, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (inside / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    words = ("run", "plan.yaml", "--workers", workers, "--output")
    first = killed_after(1, inside / "killed", *words, "killed")
    second = killed_after(first + 3, inside / "killed", *words, "killed")
    assert second < 17
    done = process(*words, "killed")
    assert done.code == 0, done.err
    assert "7 were there before" not in done.err
    calm = process(*words, "calm")
    assert calm.code == 0, calm.err
    files, metrics = results(inside / "killed")
    expected_files, expected_metrics = results(inside / "calm")
    assert files.keys() == expected_files.keys()
    assert [name for name, content in files.items() if content != expected_files[name]] == []
    assert metrics == expected_metrics
    assert len(metrics) == 7
    assert not list((inside / "killed" / "leases").glob("[0-9a-f]*"))
    assert not list((inside / "killed" / "stages").glob("*/.*"))
