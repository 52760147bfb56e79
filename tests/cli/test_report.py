import hashlib
import json
import subprocess
import sys

import pytest


@pytest.fixture
def runs(inside):
    """A folder of records of two methods and three seeds."""

    def make(name, shift=0.0):
        folder = inside / name / "records"
        folder.mkdir(parents=True)
        for number, (method, seed) in enumerate((m, s) for m in ("Retrain", "SSD", "FineTune") for s in (1, 2, 3)):
            run = {"dataset": "Digits", "model": "ResNet18", "scenario": "FullClass", "target": "3", "method": method}
            run |= {"variant": "", "training_seed": seed, "unlearning_seed": seed, "evaluation_seed": seed}
            gap = 0.0 if method == "Retrain" else shift + 0.01 * seed + 0.1 * (method == "FineTune")
            metrics = {
                "forget/accuracy": gap,
                "forget/accuracy_gap": gap,
                "retain/accuracy_gap": gap / 2,
                "time_s": 1.0,
            }
            record = {
                "schema": 1,
                "key": f"{number:016x}",
                "plan": "p",
                "plan_hash": hashlib.sha256(b'{"name":"p"}').hexdigest()[:16],
                "run": run,
                "config": {"dataset": {"class_path": "Digits"}, "training": {"epochs": 12}},
                "status": "done",
                "metrics": metrics,
            }
            (folder / f"{number}.json").write_text(json.dumps(record), encoding="utf-8")
        (folder.parent / "plans").mkdir()
        (folder.parent / "plans" / "p.yaml").write_text("name: p\n", encoding="utf-8")
        return folder.parent

    return make


def test_tables_and_files(supreme, runs):
    folder = runs("a")
    done = supreme("report", folder)
    assert done.code == 0
    assert "Digits, ResNet18, FullClass" in done.out
    names = {path.name for path in (folder / "report").iterdir()}
    assert {"index.html", "statistics", "statistics.md", "paper.tex", "plots"} <= names


def test_two_sets_side_by_side(supreme, runs):
    first, second = runs("a"), runs("b", shift=0.5)
    done = supreme("report", "--compare", first, second)
    assert done.code == 0, done.err
    assert "2.00 | 52.00" in done.out
    assert (first / "report" / "compare.csv").is_file()


def test_leaderboard(supreme, runs):
    folder = runs("a")
    done = supreme("report", "--leaderboard", folder, "--output", "board")
    assert done.code == 0, done.err
    assert done.out.index("1. SSD") < done.out.index("2. FT")
    assert "Leaderboard: board/leaderboard.html" in done.out


def test_seeds_for_a_precision(supreme, runs):
    folder = runs("a")
    done = supreme("report", folder, "--plan_seeds", "0.01", "--plan_metric", "forget/accuracy_gap")
    assert done.code == 0, done.err
    assert "± 0.01" in done.out
    assert f"Seeds: {folder}/report/seeds.html" in done.out
    table = (folder / "report" / "seeds.md").read_text()
    # variance 0.01^2 in both methods: 7 seeds give 2.447 * 0.01 / sqrt(7) = 0.0092, 6 would give 0.0105
    assert [line.split("|")[3].strip() for line in table.splitlines() if line.startswith(("| SSD", "| FT"))] == [
        "7",
        "7",
    ]


def test_a_leaderboard_of_all_folders_leaves_out_those_of_other_things(process, inside, runs):
    folder = runs("a")
    (inside / "speed").mkdir()
    (inside / "speed" / "start.json").write_text("{}")
    done = process("report", "--leaderboard", f"{folder}/", f"{inside}/speed/", "--output", "board")
    assert done.code == 0, done.err
    assert done.err.splitlines() == [f"Skipped '{inside}/speed': it has no folder 'records'."]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "Expected one output folder"),
        (["a", "b"], "got 2"),
        (["--compare", "a"], "expected 2 arguments"),
        (["--compare", "a", "b", "--leaderboard"], "got both"),
        (["c", "--compare", "a", "b"], "got a third"),
        (["--leaderboard"], "got 0"),
        (["--compare", "a", "b", "--plan_seeds", "0.01"], "got both"),
        (["--plan_seeds", "0.01"], "got 0"),
        (["a", "--plan_seeds", "0"], "half-width above 0"),
        (["a", "--plan_metric", "mia_gap"], "Expected --plan_seeds"),
        (["--leaderboards", "a"], "did you mean '--leaderboard'"),
        (["missing"], "missing"),
    ],
)
def test_words_that_say_too_little_or_too_much(supreme, words, text):
    done = supreme("report", *words)
    assert done.code == 2
    assert text in done.err
    assert "Traceback" not in done.err


def test_no_torch(runs):
    folder = runs("a")
    seeds = ["report", str(folder), "--plan_seeds", "0.01"]
    for words in (["report", str(folder)], ["report", "--leaderboard", str(folder)], seeds):
        code = f"import sys; from supreme.__main__ import main; main({words!r}); assert 'torch' not in sys.modules"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
