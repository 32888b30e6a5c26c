"""The README's tables from a study's results.csv: mean and standard deviation over seeds of every setting.

python docs/results/table.py docs/results/quick/results.csv
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path


def accuracies(path: Path) -> dict[str, dict[int, float]]:
    """Setting to seed to linear-probe top-1 in percent, in the file's order; runs without a result are left out."""
    found: dict[str, dict[int, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == "finished":
                setting = row["point"].rpartition(",seed=")[0]
                found.setdefault(setting, {})[int(row["seed"])] = float(row["top1"])
    return found


def table(path: Path) -> str:
    """Markdown: a row for each setting, and what 256 negatives' images bring over 2, paired by seed."""
    found = accuracies(path)
    lines = ["| setting | top-1 (%), mean ± standard deviation over seeds | seeds |", "|---|---|---|"]
    for setting, by_seed in found.items():
        values = list(by_seed.values())
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        lines.append(f"| {setting} | {statistics.mean(values):.2f}{spread} | {len(values)} |")
    few, many = found.get("negatives=2"), found.get("global_batch_size=256")
    if few and many and len(seeds := sorted(few.keys() & many.keys())) > 1:
        gains = [many[seed] - few[seed] for seed in seeds]
        lines += [
            "",
            f"256 images in a group of negatives over 2, seed by seed: {', '.join(f'{g:+.2f}' for g in gains)}.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
