import io

import pytest
from rich.console import Console

from supreme.report import frame, print_tables, tables
from supreme.report.text import render


@pytest.fixture
def found(plan):
    return tables(frame(plan.rich()))


def colour(found, width):
    stream = io.StringIO()
    print_tables(found, Console(file=stream, width=width, force_terminal=True, color_system="standard"))
    return stream.getvalue()


def rules(text):
    """Number of column blocks: each has one rule below its head."""
    return sum(line.startswith("───") for line in text.splitlines())


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_is_wider_than_the_console(found, width):
    assert max(map(len, render(found, width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_value_is_printed_whole(found, width):
    text = render(found, width)
    for table in found:
        for row in table.rows:
            for column in table.columns:
                cell = row.cells[column.key]
                assert (f"{cell.text}±{cell.spread}" if cell.spread else cell.text) in text
    assert "…" not in text


def test_the_known_columns_take_two_blocks_at_120_columns(plan):
    records = plan.records(scenarios=("FullClass",))
    assert rules(colour(tables(frame(records)), 120)) == 2
    assert rules(render(tables(frame(records)), 132)) == 2


def test_a_wide_console_needs_one_block(plan):
    assert rules(render(tables(frame(plan.records(scenarios=("FullClass",)))), 300)) == 1


def test_forget_and_retain_stay_in_one_block(found):
    for line in render(found, 120).splitlines():
        assert line.count("act. dist.") in (0, 2)
        assert line.count("JS div.") in (0, 2)


def test_best_is_starred_without_styles_and_bold_with_them(found):
    assert "*" in render(found)
    text = colour(found, 120)
    assert "\x1b[1;32m" in text
    assert "*:" not in text
    assert "±1.10*" not in text


def test_notes_and_footnotes_follow_the_table(found):
    text = render(found)
    assert "LFSSD 5/6 [1]" in text
    assert "[2] NegGrad: 0 of 6 runs succeeded" in text
    assert "Not applicable: UNSIR" in text
    assert "Contended" in text


def test_names_are_never_read_as_markup_or_control_codes(plan):
    records = plan.records(methods=("SSD",), seeds=(1,), targets=("3",), scenarios=("FullClass",))
    records[0]["run"] |= {"method": "[red]x[/red]", "dataset": "a\x1b[2Jb\nc"}
    text = render(tables(frame(records)))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
    assert "a [2Jb c" in text


def test_nothing_to_print():
    assert render([]).strip() == ""
