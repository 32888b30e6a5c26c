"""python -m pretrain.data.compile_kernels: compile the loaders' kernels once, into their cache on disk.

Compilation takes half a minute, which the first run would otherwise spend, once in each of its ranks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pretrain.config import AugmentationConfig, DataConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one batch of each kind from a few computed images."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.data.compile_kernels", description=__doc__)
    parser.parse_args(arguments)

    from pretrain.data.loader import build_loader, evaluation_batches
    from pretrain.data.sources.synthetic import synthetic
    from pretrain.data.write_beton import Storage, write_split

    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for split, stored_as in (("raw", Storage("raw")), ("jpg", Storage("jpg"))):
            write_split(synthetic(split, 8), directory, dataset="synthetic", split=split, storage=stored_as)
            data = DataConfig(dataset="synthetic", directory=directory, split=split, loader="beton")
            loader = build_loader(data, AugmentationConfig(crop_size_px=32), seed=0, global_batch_size=8)
            next(iter(loader.epoch(0)))
            loader.close()
            next(iter(evaluation_batches(directory, split, size_px=32, batch_size=8)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
