"""Our numbers beside the published ones: ``python benchmarks/plans/compare.py RUNS [--csv FILE]``.

Prints a Markdown table of mean and sample standard deviation over seeds, per model, scenario, method and quantity: of
differences to M_r in percentage points and of distances, as the paper does. The published numbers are those of Andreou
et al. 2026, arXiv:2606.00380, on Pins face recognition; beside runs on other data they are for orientation only.
"""

import argparse
from pathlib import Path

import pandas as pd

from supreme.report import frame, read_records

PUBLISHED = Path(__file__).with_name("published.csv")
SCENARIOS = {"FullClass": "Full-class", "RandomSample": "Random"}
METHODS = {"FineTune": "FT", "BadTeacher": "BadT", "RandomLabels": "RL"}
QUANTITIES = {
    "forget/accuracy": ("forget_accuracy_pct", 100),
    "retain/accuracy": ("retain_accuracy_pct", 100),
    "forget/accuracy_gap": ("forget_accuracy_gap_pp", 100),
    "retain/accuracy_gap": ("retain_accuracy_gap_pp", 100),
    "forget/activation_distance": ("forget_activation_distance", 1),
    "retain/activation_distance": ("retain_activation_distance", 1),
    "layerwise_distance": ("layerwise_distance", 1),
    "mia": ("mia", 1),
    "mia_gap": ("mia_gap", 1),
}
CELL = ["model", "scenario", "method", "quantity"]


def measured(runs: Path) -> pd.DataFrame:
    """Mean and standard deviation over seeds; targets of one seed are averaged first."""
    data = frame(read_records(runs))
    data = data[(data["status"] == "done") & ~data["superseded"] & (data["method"] != "Original")]
    data = data.replace({"scenario": SCENARIOS, "method": METHODS})
    rows = []
    for cell, part in data.groupby(["model", "scenario", "method"], sort=False):
        for key, (quantity, factor) in QUANTITIES.items():
            values = part.groupby("training_seed")[key].mean() * factor
            if not values.isna().all():
                rows.append((*cell, quantity, values.mean(), values.std(), len(values)))
    return pd.DataFrame(rows, columns=[*CELL, "mean", "std", "seeds"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Our numbers beside the published ones.")
    parser.add_argument("runs", type=Path, help="output folder of 'supreme run'")
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    given = parser.parse_args()
    ours, theirs = measured(given.runs), pd.read_csv(PUBLISHED)
    table = ours.merge(theirs, on=CELL, how="left", suffixes=("", "_published")).round(4)
    if given.csv is not None:
        table.to_csv(given.csv, index=False)
    print("| " + " | ".join(table.columns) + " |\n" + "|---" * len(table.columns) + "|")
    for row in table.itertuples(index=False):
        print("| " + " | ".join("-" if pd.isna(value) else str(value) for value in row) + " |")


if __name__ == "__main__":
    main()
