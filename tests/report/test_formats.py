import csv
import html
import io
import re
import shutil
import subprocess

import pytest

from supreme.report import frame, tables
from supreme.report.formats import to_csv, to_latex, to_markdown


@pytest.fixture
def found(plan):
    return tables(frame(plan.rich()))


def test_csv_holds_every_cell_at_full_precision(found):
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    cells = {
        (table.dataset, table.scenario, row.method, row.variant, key): (row, cell)
        for table in found
        for row in table.rows
        for key, cell in row.cells.items()
    }
    assert len(lines) == len(cells)
    for line in lines:
        key = tuple(line[name] for name in ("dataset", "scenario", "method", "variant", "metric"))
        row, cell = cells[key]
        assert int(line["n"]) == cell.n
        assert (int(line["runs_done"]), int(line["runs_total"])) == (row.done, row.total)
        assert line["best"] == str(int(cell.best))
        if cell.n:
            assert float(line["mean"]) == cell.mean
            assert float(line["std"]) == cell.std
        else:
            assert line["mean"] == line["std"] == ""


def test_csv_of_a_single_seed_has_no_std(plan):
    found = tables(frame(plan.records(seeds=(1,))))
    assert {line["std"] for line in csv.DictReader(io.StringIO(to_csv(found)))} == {""}


def markdown_rows(text):
    """Cells of every table line, split at bars that are not escaped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_markdown_tables_are_whole(found):
    text = to_markdown(found)
    rows = markdown_rows(text)
    assert len(rows) == sum(len(table.rows) + 2 for table in found)
    place = 0
    for table in found:
        for row in rows[place : place + len(table.rows) + 2]:
            assert len(row) == len(table.columns) + 1
        first = [cell.strip() for cell in rows[place + 2]]
        want = table.rows[0].cells[table.columns[0].key].label
        assert first[1] == want
        place += len(table.rows) + 2
    best = sum(
        cell.best for table in found for row in table.rows for key, cell in row.cells.items() if key in keys(table)
    )
    assert len(re.findall(r"\*\*[^*|]+\*\*", text)) == best


def keys(table):
    return {column.key for column in table.columns}


def test_markdown_holds_no_markup_of_names(found, plan):
    text = to_markdown(found)
    assert "<script" not in text
    assert "<b>" not in text
    heading = next(line for line in text.splitlines() if "script" in line)
    plain = html.unescape(re.sub(r"\\([\\`*_\[\]|~$])", r"\1", heading.removeprefix("## ")))
    assert plain == f"{plan.hostile}, ViT_b&16, FullClass"


def test_latex_is_balanced_and_escaped(found):
    text = to_latex(found)
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") > len(found)
    plain = re.sub(r"\\[{}\\]", "", text)
    depth = 0
    for char in plain:
        depth += {"{": 1, "}": -1}.get(char, 0)
        assert depth >= 0
    assert depth == 0
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%#]", body)
    assert "<" not in body
    assert "^^" not in body


def test_latex_rows_have_as_many_cells_as_columns(found):
    for block in re.findall(r"\\begin\{tabular\}\{l((?:r@\{\}l)+)\}(.*?)\\end\{tabular\}", to_latex(found), re.DOTALL):
        columns = block[0].count("r@{}l")
        body = block[1].split(r"\midrule", 1)[1]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == 2 * columns


def test_latex_values_are_those_of_the_table(found):
    text = to_latex(found)
    for table in found:
        for row in table.rows:
            for column in table.columns:
                cell = row.cells[column.key]
                shown = cell.text.replace("-", "$-$")
                if cell.best:
                    assert f"\\textbf{{{shown}}}" in text
                elif cell.n:
                    assert f"{shown} & " in text


def test_latex_spells_letters_that_plain_engines_lack(plan):
    records = plan.records(methods=("SSD",), seeds=(1,), targets=("3",), scenarios=("FullClass",))
    records[0]["run"]["variant"] = "\u03b1=5, \u03bb\u2192\u2603, \u00e9"
    text = to_latex(tables(frame(records)))
    assert "$\\alpha$=5, $\\lambda$U+2192U+2603, \u00e9" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_compiles_with_booktabs_only(found, tmp_path):
    (tmp_path / "tables.tex").write_text(to_latex(found), encoding="utf-8")
    body = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n\\input{tables}\n\\end{document}\n"
    (tmp_path / "main.tex").write_text(body, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_no_tables():
    assert to_csv([]).count("\n") == 1
    assert to_markdown([]).startswith("# Results")
    assert to_latex([]).startswith("%")
