import math

import pytest

from supreme.report.columns import COLUMNS, Column, decimals, extra, in_order, is_known, number
from supreme.report.labels import clean, listing, method_label, natural, printable


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 2, "0.00"),
        (-0.004, 2, "0.00"),
        (-0.006, 2, "-0.01"),
        (99.995, 2, f"{99.995:.2f}"),
        (-0.0, 0, "0"),
        (1e-7, 4, "1.0e-07"),
        (math.nan, 2, "nan"),
        (-math.inf, 2, "-inf"),
        (123456.0, 0, "123456"),
    ],
)
def test_numbers_as_printed(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("means", "digits"), [([0.002, 50.0], 4), ([1.2], 1), ([35.0], 0), ([900.0, 12.0], 0), ([], 2)]
)
def test_times_keep_two_digits_of_the_smallest(means, digits):
    assert decimals(Column("time_s", "Cost", significant=2), means) == digits


def test_fixed_decimals_win():
    assert decimals(Column("x", "x", digits=2), [1e-9]) == 2


def test_the_tables_know_every_metric_of_the_design():
    parts = ("whole", "retain", "forget")
    metrics = ("accuracy", "loss", "activation_distance", "js_divergence", "completeness")
    keys = {f"{part}/{metric}" for part in parts for metric in metrics}
    keys |= {
        "layerwise_distance",
        "forget/zrf",
        "mia",
        "mia_auc",
        "time_s",
        "time_s_reused",
        "speedup",
        "peak_memory_bytes",
        "utilisation",
    }
    assert all(is_known(key) and is_known(f"{key}_gap") for key in keys)
    assert {column.key for column in COLUMNS} <= keys | {f"{key}_gap" for key in keys}
    assert not any(is_known(key) for key in ("sharpness", "test/accuracy", "forget/accuracy/x", "accuracy_std"))


def test_order_puts_unknown_metrics_last():
    assert in_order(["b", "a", "whole/loss", "time_s", "forget/accuracy"]) == [
        *("forget/accuracy", "time_s", "whole/loss"),
        *("a", "b"),
    ]


def test_an_unknown_gap_is_best_near_zero():
    assert (extra("x_gap").best, extra("x").best) == ("zero", "none")


def test_text_is_made_safe_for_one_line():
    assert clean("a\tb\r\n c\x00\u202e\ud800") == "a b c"
    assert clean("x" * 300).endswith("...")
    assert len(clean("x" * 300)) == 200
    assert printable("a\x1b[1;31mb\x1b[0m\x07\nc") == "ab\nc"


def test_names():
    assert [method_label(name) for name in ("FineTune", "BadTeacher", "RandomLabels")] == ["FT", "BadT", "RL"]
    assert method_label("pkg.Mine", "a=1") == "pkg.Mine (a=1)"
    assert sorted(["a10", "a9", "A1", "0.5", "0.05"], key=natural) == ["0.05", "0.5", "A1", "a9", "a10"]
    assert listing(range(10), 8) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
