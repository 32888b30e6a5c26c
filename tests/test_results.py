"""The tables of README come from the committed results."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = (
    "point,seed,status,top1\n"
    '"global_batch_size=256,seed=0",0,finished,85.5\n"global_batch_size=256,seed=1",1,finished,85.1\n'
    '"negatives=2,seed=0",0,finished,84.0\n"negatives=2,seed=1",1,finished,84.4\n"random,seed=0",0,failed,\n'
)


def table(path: Path) -> str:
    command = [sys.executable, "docs/results/table.py", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_means_deviations_and_gains_by_seed(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(ROWS)
    said = table(path)
    assert "| global_batch_size=256 | 85.30 ± 0.28 | 2 |" in said
    assert "random" not in said
    assert "seed by seed: +1.50, +0.70." in said


@pytest.mark.parametrize("path", sorted((ROOT / "docs/results").glob("*/results.csv")), ids=lambda p: p.parent.name)
def test_committed_results_are_whole(path: Path) -> None:
    assert all(status == "finished" for status in path.read_text().split(",") if status in ("failed", "unfinished"))
    assert table(path).count("\n") > 5


def test_readme_says_what_the_committed_results_say() -> None:
    said, readme = table(ROOT / "docs/results/quick/results.csv"), (ROOT / "README.md").read_text()
    for setting in ("global_batch_size=64", "global_batch_size=256", "global_batch_size=1024", "negatives=2", "random"):
        (row,) = [line for line in said.splitlines() if line.startswith(f"| {setting} |")]
        assert row.split("|")[2].strip() in readme, setting
