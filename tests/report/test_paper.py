import statistics

import pytest

from supreme.report import frame, tables
from supreme.report.paper import (
    FIELDS,
    LAYOUTS,
    block_name,
    paper_columns,
    paper_latex,
    paper_lines,
    paper_markdown,
    paper_rows,
)

ORDER = ["FT", "BadT", "UNSIR", "RL", "SSD", "LFSSD"]


@pytest.fixture
def found(plan):
    records = plan.records(methods=("LFSSD", "SSD", "RandomLabels", "UNSIR", "BadTeacher", "FineTune", "Retrain"))
    return records, tables(frame(records))


def test_methods_in_the_order_of_the_paper_and_no_unsir_with_random_samples(found):
    _, (full, random) = found
    main, distances, raw = LAYOUTS
    assert [line.row.name for line in paper_lines(full, main)] == ORDER
    assert [line.row.name for line in paper_lines(full, distances)] == ORDER
    assert [line.row.name for line in paper_lines(full, raw)] == ["Retrain (M_r)", *ORDER]
    assert [line.row.name for line in paper_lines(random, main)] == [name for name in ORDER if name != "UNSIR"]
    assert [block_name(full), block_name(random)] == ["Digits: ResNet18, Full-class", "Digits: ResNet18, Random 0.05"]


def test_unsir_stays_out_of_random_samples_even_with_records(plan):
    records = plan.records(methods=("Retrain", "UNSIR", "SSD"), scenarios=("FullClass",))
    for record in records:
        record["run"] |= {"scenario": "RandomSample", "target": "0.1"}
    table = tables(frame(records[::2]))[0]
    assert [line.row.name for line in paper_lines(table, LAYOUTS[0])] == ["SSD"]


def test_cells_are_rounded_to_two_decimals_and_ties_are_all_bold(plan):
    values = {"FineTune": 0.0, "BadTeacher": -0.010004, "SSD": 0.00996, "LFSSD": 0.0301}
    records = plan.records(methods=("Retrain", *values), scenarios=("FullClass",), seeds=(1, 2), targets=("3",))
    for record in records:
        run = record["run"]
        if run["method"] in values:
            shift = 0.0002 * (run["training_seed"] - 1.5)
            record["metrics"]["forget/accuracy_gap"] = values[run["method"]] + shift
            record["metrics"]["mia_gap"] = values[run["method"]] + 0.011 * (run["method"] == "FineTune")
    table = tables(frame(records))[0]
    cells = {line.row.method: line.cells for line in paper_lines(table, LAYOUTS[0])}
    assert {name: cell[0] for name, cell in cells.items()} == {
        "FineTune": ("0.00", "0.01", True),
        "BadTeacher": ("-1.00", "0.01", False),
        "SSD": ("1.00", "0.01", False),
        "LFSSD": ("3.01", "0.01", False),
    }
    bold = {line.row.method: line.cells[2] for line in paper_lines(table, LAYOUTS[1])}
    assert {name for name, cell in bold.items() if cell[2]} == {"FineTune", "BadTeacher", "SSD"}
    assert {cell[0].lstrip("-") for name, cell in bold.items() if name != "LFSSD"} == {"0.01"}
    assert not any(cell[2] for line in paper_lines(table, LAYOUTS[2]) for cell in line.cells)


def test_numbers_are_means_and_deviations_over_seeds(found):
    records, blocks = found
    rows = [dict(zip(FIELDS, row, strict=True)) for row in paper_rows(blocks)]
    one = next(r for r in rows if (r["scenario"], r["method"], r["metric"]) == ("FullClass", "SSD", "mia"))
    by_seed = [
        statistics.fmean(
            record["metrics"]["mia"]
            for record in records
            if (record["run"]["scenario"], record["run"]["method"]) == ("FullClass", "SSD")
            and record["run"]["training_seed"] == seed
        )
        for seed in (260, 261, 262)
    ]
    assert one["mean"] == pytest.approx(statistics.fmean(by_seed))
    assert one["std"] == pytest.approx(statistics.stdev(by_seed))
    assert {row["table"] for row in rows} == {"main", "distances", "raw"}
    assert len(rows) == 3 * (6 + 5) + 3 * (6 + 5) + 3 * (7 + 6)


def test_markdown_and_latex_have_the_same_cells(found):
    _, blocks = found
    markdown, latex = paper_markdown(blocks), paper_latex(blocks)
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 3
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 3
    lines = [line for line in latex.splitlines() if line.endswith(r"\\") and line.startswith(tuple(ORDER))]
    assert len(lines) == 3 * 11
    assert all(line.count("&") == 6 for line in lines)
    for layout in LAYOUTS:
        assert len(paper_columns(layout)) == 3
        for table in blocks:
            for line in paper_lines(table, layout):
                for text, spread, best in line.cells:
                    assert (f"**{text} ± {spread}**" if best else f"{text} ± {spread}") in markdown
    assert markdown.count("UNSIR") == 3
    assert "Single seed" not in markdown


def test_a_single_seed_and_hostile_names(plan):
    single = tables(frame(plan.records(seeds=(1,), scenarios=("FullClass",))))
    assert "Single seed" in paper_markdown(single)
    assert r"\pm" not in paper_latex(single).replace("mean $\\pm$ sample", "")
    rich = tables(frame(plan.rich()))
    assert "<script>" not in paper_markdown(rich)
    assert r"\_\textdollar" not in paper_latex(rich)
    assert "-- & " in paper_latex(rich)
