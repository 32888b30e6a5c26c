"""The report of a study of 500 runs: seconds of processor time, and bytes of the page.

    python -m tests.bench.report [--runs 500] [--rows 300] [--directory DIR] [--profile]

The study is made up, in the shape of the files that launcher, training and evaluations leave: batch sizes x epochs x
base learning rates x seeds, ablations and baselines. Every run has whole settings and its curves, every tenth one every
evaluation. A study that lies in DIR already is used again.
"""

import argparse
import cProfile
import itertools
import json
import math
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from eval.report.build import build_report
from pretrain.config import PretrainConfig
from pretrain.configio import dump_yaml, load
from tests.eval.rich_studies import add_ablations, add_evaluations
from tests.eval.studies import Place, SyntheticStudy, config_of

BATCHES, EPOCHS, SEEDS = (64, 128, 256, 512, 1024, 2048), (50, 100, 200, 400), 4
METRICS = ("alignment", "contrastive_entropy", "contrastive_top1", "loss", "online_probe_top1", "uniformity")
BASE = Path(__file__).parents[2] / "configs/pretrain/fashion_mnist.yaml"


def make_study(directory: Path, runs: int, rows: int) -> None:
    """A study of at least ``runs`` runs, rounded up to whole grids, each with ``rows`` rows of curves."""
    study = SyntheticStudy(directory)
    add_ablations(study)
    study.baseline("random", "Random encoder", [47.0, 47.3], {"epochs": 0})
    each = len(BATCHES) * len(EPOCHS) * SEEDS
    rates = [round(0.05 * 1.5**i, 4) for i in range(max(1, math.ceil((runs - len(study.points)) / each)))]
    places = []
    for epochs, batch, rate in itertools.product(EPOCHS, BATCHES, rates):
        mean = 60 + 2.2 * math.log2(epochs) + 1.5 * min(math.log2(batch / 64), 2.5)
        mean -= 1.2 * abs(math.log(rate / (0.1 * (batch / 64) ** 0.5)))
        tops: list[float | None] = [round(mean + 0.35 * math.sin(batch + 78.2 * seed), 2) for seed in range(SEEDS)]
        settings = {"epochs": epochs, "global_batch_size": batch, "schedule.base_learning_rate": rate}
        places.append(Place(batch, settings, tops, f"epochs = {epochs}"))
    study.question("batch_size", places, x_key="global_batch_size", x_label="Batch size (images)", published=True)
    add_evaluations(study, [point.name for point in study.points[::10]])
    whole = yaml.safe_load(dump_yaml(load(PretrainConfig, BASE)))
    for point in study.points:
        folder = study.run_directory(point.name)
        changed = config_of(point.settings, point.seed, whole)
        (folder / "config.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve(rows, point.seed)))
    study.write(name="bench")


def curve(rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl with the keys that a SimCLR run records, in full precision."""
    found = []
    for index in range(1, rows + 1):
        done = index / rows
        value = 1 - math.exp(-4 * done) + 0.02 * math.sin(17 * index + seed)
        row: dict[str, Any] = {"step": 50 * index, "epoch": 100 * done, **dict.fromkeys(METRICS, value * 0.7)}
        found.append(row | {"learning_rate": 0.1 * math.cos(done), "images_per_second": 3000 + 50 * value})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = given.directory or Path(folder)
        if not (directory / "study.json").is_file():
            make_study(directory, given.runs, given.rows)
        profile = cProfile.Profile()
        start, cpu = time.perf_counter(), time.process_time()
        page = profile.runcall(build_report, directory) if given.profile else build_report(directory)
        seconds, processor = time.perf_counter() - start, time.process_time() - cpu
        runs = len(list((directory / "points").iterdir()))
        print(f"{runs} runs: {processor:.1f} s of processor time, {seconds:.1f} s in all")
        for path in sorted(page.parent.iterdir(), key=lambda path: -path.stat().st_size):
            print(f"  {path.stat().st_size:12,} bytes  {path.name}")
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
