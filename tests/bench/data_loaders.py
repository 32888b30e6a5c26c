"""Speed of the loaders: ``python -m tests.bench.data_loaders DIR [--size 28] [--batch 256] [--workers 1]``.

DIR holds what write_beton wrote. Both loaders take turns, so that other load on the machine hits both alike; prints the
best and the median of two-view samples per second, the processor time per sample, and the seconds to the first batch of
a fresh process, torch imported already and the kernels in the disk cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from pretrain.batch import Loader
from pretrain.config import AugmentationConfig, DataConfig
from pretrain.data.catalog import read_manifest
from pretrain.data.loader import build_loader

NAMES = ("beton", "ffcv")
_FIRST_BATCH = """
import sys, time, torch
start = time.perf_counter()
from tests.bench.data_loaders import make
next(make(*sys.argv[1:3], *map(int, sys.argv[3:6])).epoch(0))
print(time.perf_counter() - start)
"""


def make(directory: str, name: str, size: int, batch: int, workers: int) -> Loader:
    """A loader of all of DIR's training split with SimCLR's augmentation."""
    dataset = read_manifest(directory, "train").dataset
    values = {"dataset": dataset, "directory": Path(directory), "loader": name, "workers": workers}
    augmentation = AugmentationConfig(crop_size_px=size)
    return build_loader(DataConfig.model_validate(values), augmentation, seed=0, global_batch_size=batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory")
    for option, value in (("size", 28), ("batch", 256), ("workers", 1), ("rounds", 5)):
        parser.add_argument(f"--{option}", type=int, default=value)
    given = parser.parse_args()
    shape = (given.size, given.batch, given.workers)
    loaders = {name: make(given.directory, name, *shape) for name in NAMES}
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    processor: dict[str, list[float]] = {name: [] for name in NAMES}
    for epoch in range(given.rounds):
        for name, loader in loaders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            samples = sum(len(batch.indices) for batch in loader.epoch(epoch))
            rates[name].append(samples / (time.perf_counter() - wall))
            processor[name].append((time.process_time() - cpu) / samples * 1e6)
    for name, loader in loaders.items():
        loader.close()
        first = []
        for _ in range(3):
            command = [sys.executable, "-c", _FIRST_BATCH, given.directory, name, *map(str, shape)]
            first.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(
            f"{name:6} best {max(rates[name]):8.0f} median {statistics.median(rates[name]):8.0f} samples/s, "
            f"{min(processor[name]):6.1f} us/sample, first batch {min(first):.2f} s"
        )


if __name__ == "__main__":
    main()
