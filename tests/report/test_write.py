import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from supreme.errors import DataError, OutputError
from supreme.report import frame, is_current, tables, write, write_report
from supreme.report import write as module

STATISTICS = ("overview", "intervals", "comparison", "ranks", "retrained", "retrained_audit", "gap_z", "variance")
FILES = {
    *("index.html", "tables.txt", "tables.md", "tables.tex", "tables.csv", "runs.csv"),
    *("statistics.md", "statistics.tex", "paper.md", "paper.tex", "paper.csv"),
    *(f"statistics/{name}.csv" for name in STATISTICS),
}
PLOTS = ("distributions", "gaps", "cost")


@pytest.fixture
def small(plan, write_records):
    return write_records(plan.records(methods=("Retrain", "SSD"), seeds=(1, 2), scenarios=("FullClass",)))


def test_all_files_are_written_beside_the_records(small):
    files = write_report(small)
    folder = small / "report"
    assert files[0] == folder / "index.html"
    names = {file.relative_to(folder).as_posix() for file in files}
    stem = "plots/digits-resnet18-fullclass"
    plots = {f"{stem}-{name}.{kind}" for name in (*PLOTS, "variance") for kind in ("svg", "png", "csv")}
    assert names == FILES | plots
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == names
    assert all(file.stat().st_size for file in files)


def test_the_same_records_give_the_same_files(small, tmp_path):
    first, second = write_report(small, tmp_path / "a"), write_report(small, tmp_path / "b")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_a_report_is_current_until_a_record_changes(small):
    assert not is_current(small)
    write_report(small, per_target=True)
    assert not is_current(small)  # the tables of a run are means over targets
    page = write_report(small)[0]
    assert is_current(small)
    record = next((small / "records").iterdir())
    before = record.read_text(encoding="utf-8")
    record.write_text(before.replace('"finished": "', '"finished": "1'), encoding="utf-8")
    assert not is_current(small)
    record.write_text(before, encoding="utf-8")
    assert is_current(small)
    page.unlink()
    assert not is_current(small)


def test_the_page_is_written_last(small, monkeypatch):
    """What is killed on the way leaves no page that passes for the whole."""
    written = []
    monkeypatch.setattr(write, "_write", lambda file, content: written.append(file.name))
    write_report(small)
    assert written[-1] == "index.html"
    assert len(written) > 10


def test_runs_csv_has_every_run_at_full_precision(plan, write_records, tmp_path):
    records = sorted(plan.rich(), key=lambda record: record["key"])
    write_report(write_records(records), tmp_path / "r", studied=0)
    with (tmp_path / "r" / "runs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert {name: row[name] for name in record["run"]} == {k: str(v) for k, v in record["run"].items()}
        assert row["status"] == record["status"]
        assert {key: float(row[key]) for key in record["metrics"]} == record["metrics"]


def test_tables_per_target(small, tmp_path):
    files = write_report(small, tmp_path / "r", per_target=True)
    assert {"digits-resnet18-fullclass-3-cost.svg", "digits-resnet18-fullclass-7-cost.svg"} <= {f.name for f in files}
    assert "target 7" in (tmp_path / "r" / "tables.txt").read_text(encoding="utf-8")


def test_tables_beyond_the_studied_ones_say_so(plan, write_records, tmp_path):
    records = plan.records(methods=("Retrain", "SSD"), seeds=(1,), targets=("3",))
    folder = write_records(records)
    plan.outputs(folder, records)
    write_records(records)
    files = write_report(folder, studied=1)
    text, names = files[0].read_text(encoding="utf-8"), {file.name for file in files}
    assert text.count("Left out: statistics") == 1
    assert "the first 1 of 2 tables have; supreme.report.write_report(RUNS, studied=2) writes all" in text
    assert "Left out: statistics" in (folder / "report" / "tables.md").read_text(encoding="utf-8")
    assert "digits-resnet18-fullclass-roc.csv" in names
    assert "digits-resnet18-randomsample-0.05-roc.csv" not in names
    chosen = tables(frame(records))
    assert module._noted(chosen, 2) == chosen


def test_names_that_look_alike_get_files_of_their_own(plan, write_records):
    records = plan.records(methods=("SSD",), seeds=(1,), targets=("3",), scenarios=("FullClass",))
    other = json.loads(json.dumps(records[0])) | {"key": "f" * 16}
    records[0]["run"]["dataset"], other["run"]["dataset"] = "../a b", "../a_b"
    files = write_report(write_records([*records, other]))
    assert len(files) == len(set(files)) == len(FILES) + 18
    folder = files[0].parent.resolve()
    assert all(file.resolve().is_relative_to(folder) for file in files)


def test_no_records_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(DataError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(small, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match=r"tables\.txt"):
        write_report(small, tmp_path / "file")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_read_only_folder_is_named(small, tmp_path):
    (tmp_path / "r").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"tables\.txt"):
        write_report(small, tmp_path / "r")


def test_a_broken_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("old", encoding="utf-8")

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        module._write(file, "new")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_text_that_utf8_cannot_hold_is_written_escaped(plan, write_records):
    record = plan.records(methods=("SSD",), seeds=(1,), targets=("3",), scenarios=("FullClass",))[0]
    plan.fail(record, message="bad \ud800 text")
    files = write_report(write_records([record]))
    assert "\\ud800" in next(file for file in files if file.name == "runs.csv").read_text(encoding="utf-8")


def test_the_report_never_imports_torch(small):
    report = f"from supreme.report import write_report; write_report({str(small)!r})"
    code = f"import sys; {report}; print('torch' in sys.modules)"
    root = Path(module.__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "False"
    assert done.stderr == ""
