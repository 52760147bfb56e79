"""The benchmark of a plan's overhead still runs and writes what it says."""

import csv
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "speed" / "overhead.py"


def test_a_small_measurement(tmp_path):
    words = ["--runs", "8", "--workers", "1", "--records", "100", "--repeats", "1", "--output", tmp_path / "found.csv"]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SUPREME_DATA": str(tmp_path / "data")}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    done = subprocess.run(command, env=here, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "found.csv").open() as file:
        rows = {row["quantity"]: row for row in csv.DictReader(file)}
    measured = {"wall_clock", "compute", "stages", "overhead_per_run", "overhead_per_run_wall_clock", "second_time"}
    assert set(rows) == measured | {"status", "status_cpu", "report_tables", "report_tables_cpu"}
    assert rows["stages"]["median"] == "22"  # 2 x (M_o, importances of D, 3 methods, 2 outputs, 4 evaluations)
    assert {rows[name]["n"] for name in ("overhead_per_run", "status")} == {"8", "100"}
    assert float(rows["compute"]["median"]) < float(rows["wall_clock"]["median"])
    assert all(row["hardware"] and row["torch"] and row["precision"] == "32-true" for row in rows.values())
    assert "median" in done.stdout
