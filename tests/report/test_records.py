import json
import math

import pytest

from supreme.errors import DataError
from supreme.report import frame, read_records
from supreme.report.records import DRAW, FIELDS, metric_names


def test_records_are_found_from_the_output_folder_and_from_their_own(plan, write_records):
    records = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))
    out = write_records(records)
    assert read_records(out) == read_records(out / "records") == read_records(str(out))
    assert read_records(out) == sorted(records, key=lambda record: record["key"])


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(DataError, match="found none"):
        read_records(tmp_path)
    with pytest.raises(DataError, match="absent"):
        read_records(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda record: record.pop("run"), "dataset"),
        (lambda record: record["run"].pop("method"), "method"),
        (lambda record: record["run"].update(training_seed="260"), "training_seed"),
        (lambda record: record["run"].update(training_seed=True), "training_seed"),
        (lambda record: record["run"].update(target=3), "target"),
        (lambda record: record.update(schema=2), "schema 2"),
        (lambda record: record.pop("status"), "status"),
        (lambda record: record.update(metrics=[1]), "metrics"),
        (lambda record: record.update(hardware="cpu"), "hardware"),
        (lambda record: record["metrics"].update(odd="high"), "odd"),
        (lambda record: record["metrics"].update(odd={"a": 1}), "odd"),
    ],
)
def test_a_record_with_a_wrong_field_is_named(plan, write_records, change, text):
    records = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))
    change(records[4])
    with pytest.raises(DataError, match=text) as caught:
        read_records(write_records(records))
    assert f"{records[4]['key']}.json" in str(caught.value)


@pytest.mark.parametrize("content", [b'{"schema": 1, "run', b"", b"\xff\xfe\x00", b"[]", b"3"])
def test_a_file_that_is_no_record_is_named(plan, write_records, content):
    out = write_records(plan.records(seeds=(1,), targets=("3",)))
    (out / "records" / "broken.json").write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.json"):
        read_records(out)


def test_one_row_per_run_with_fields_and_metrics(plan):
    records = plan.rich()
    data = frame(records)
    assert len(data) == len(records)
    assert tuple(data.columns[: len(FIELDS)]) == FIELDS
    assert set(metric_names(data)) == {key for record in records for key in record["metrics"]}
    for row, record in zip(data.to_dict("records"), records, strict=True):
        assert {name: row[name] for name in record["run"]} == record["run"]
        assert row["status"] == record["status"]
        for key in metric_names(data):
            want = record["metrics"].get(key)
            assert math.isnan(row[key]) if want is None else row[key] == want


def test_null_and_nan_metrics_are_missing(plan, write_records):
    record = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))[0]
    record["metrics"] |= {"mia": None, "mia_gap": math.nan}
    data = frame(read_records(write_records([record])))
    assert "mia" not in data
    assert data["mia_gap"].isna().all()


def test_a_metric_named_like_a_field_keeps_both(plan):
    record = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))[0]
    record["metrics"]["status"] = 0.25
    data = frame([record])
    assert data["status"].tolist() == ["done"]
    assert data["metrics.status"].tolist() == [0.25]


def test_a_run_recorded_twice_counts_once(plan):
    old, other = plan.records(seeds=(1, 2), targets=("3",), scenarios=("FullClass",), methods=("SSD",))
    new = json.loads(json.dumps(old)) | {"key": "new", "finished": "2027-01-01T00:00:00+00:00"}
    assert frame([new, old, other])["superseded"].tolist() == [False, True, False]
    assert frame([old, other, new])["superseded"].tolist() == [True, False, False]


def test_sparse_records_are_enough(plan):
    record = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))[0]
    small = {name: record[name] for name in ("schema", "run", "status", "metrics")}
    assert frame([small])["git_commit"].tolist() == [""]


def test_a_frame_of_no_records_has_the_columns():
    assert tuple(frame([]).columns) == FIELDS


def test_runs_with_other_draws_are_other_runs(plan):
    records = plan.records(seeds=(1,), targets=("3",), scenarios=("FullClass",))
    assert DRAW not in frame(records)
    first, second = ({**records[0], "run": {**records[0]["run"], DRAW: draw}} for draw in (7, 8))
    data = frame([first, second, first, *records[1:]])
    assert data[DRAW].tolist()[:3] == [7, 8, 7]
    assert data[DRAW].isna().sum() == len(records) - 1
    assert data["superseded"].tolist()[:3] == [True, False, False]
    assert DRAW not in metric_names(data)
