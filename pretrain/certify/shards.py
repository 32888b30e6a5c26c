"""Every rank runs the same configuration, and the ranks' parts of the data make up what one rank would see."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from pretrain.certify.harness import CheckResult, Harness
from pretrain.collectives import all_gather_rows
from pretrain.config import run_fingerprint
from pretrain.data.catalog import beton_path, image_count
from pretrain.data.loader import build_loader
from pretrain.data.sampler import Indices, RankOrder, is_partition, subset
from pretrain.rundir import environment

EPOCHS = (0, 1)
IMAGES_WITHOUT_DATA = 50_000
LOADED_PER_RANK = 8


def configuration_findings(harness: Harness) -> list[CheckResult]:
    """Seed, configuration and software of all ranks. Collective: every rank calls this."""
    here = environment()
    software = {name: here[name] for name in ("git_revision", "python", "packages")}
    said = {"configuration and seed": run_fingerprint(harness.config), "software": repr(software)}
    results = []
    for subject, text in said.items():
        same = harness.all_equal(torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8))
        measured = text if same and subject != "software" else "the same" if same else "ranks differ"
        results.append(CheckResult("ranks", subject, measured, "the same on all ranks", same))
    return results


def shard_findings(harness: Harness) -> list[CheckResult]:
    """Order of two epochs, and what the loader makes of it where the data set is on disk.

    Collective: every rank calls this.
    """
    data, batch = harness.config.data, harness.config.global_batch_size
    try:
        total = image_count(data.dataset, data.directory, data.split)
    except (ValueError, OSError):
        total = None
    images = max(total or IMAGES_WITHOUT_DATA, batch)
    index_n = subset(images, min(data.images, images) if data.images else None)
    results = [_order(harness, index_n, epoch, known=total is not None) for epoch in EPOCHS]
    written = beton_path(data.directory, data.split).is_file()
    return [*results, _loaded(harness)] if harness.largest(float(not written)) == 0.0 else results


def _order(harness: Harness, index_n: Indices, epoch: int, *, known: bool) -> CheckResult:
    batch, world, seed = harness.config.global_batch_size, harness.world, harness.config.seed
    own = RankOrder(index_n, seed, batch, world.rank, world.size).batches(epoch)
    together = _of_all_ranks(harness, own)  # (W, batches, B)
    expected = RankOrder(index_n, seed, batch).batches(epoch)
    parts = list(together)
    complete = is_partition(parts, expected.reshape(-1))
    in_order = complete and np.array_equal(np.concatenate(parts, axis=1), expected)
    passed = harness.largest(float(not in_order)) == 0.0
    seen = len(np.unique(together)) / expected.size
    what = "images" if known else "images (a stand-in: the data set is not written)"
    measured = "every image once, in one rank's order" if passed else f"{seen:.0%} of the images are seen"
    if complete and not passed:
        measured = "every image once, but in other global batches than on one rank"
    subject = f"epoch {epoch}, {expected.size:,} of {len(index_n):,} {what}"
    return CheckResult("shards", subject, measured, "disjoint, complete", passed, {"seen": seen})


def _of_all_ranks(harness: Harness, own: Indices) -> Indices:
    # Through the device: NCCL has no CPU tensors.
    gathered = all_gather_rows(harness.on_device(torch.from_numpy(own)[None]), harness.world.groups.loss)
    joined: Indices = gathered.cpu().numpy()
    return joined


def _loaded(harness: Harness) -> CheckResult:
    """The first global batch as the ranks load it, against this rank's part of what one rank loads."""
    config, world = harness.config, harness.world
    batch = min(LOADED_PER_RANK * world.size, config.global_batch_size)
    own = _first_views(harness, batch, world.rank, world.size)
    alone = _first_views(harness, batch, 0, 1)
    rows = batch // world.size
    same = torch.equal(own, alone[world.rank * rows : (world.rank + 1) * rows])
    passed = harness.largest(float(not same)) == 0.0
    measured = "the same bits" if passed else "other views than on one rank"
    return CheckResult(
        "shards", f"views of {batch} images, {config.data.loader}", measured, "those of one rank", passed
    )


def _first_views(harness: Harness, batch: int, rank: int, world_size: int) -> Tensor:
    config = harness.config
    loader = build_loader(
        config.data, config.augmentation, seed=config.seed, global_batch_size=batch, rank=rank, world_size=world_size
    )
    try:
        views: Tensor = next(iter(loader.epoch(0))).views
        return views
    finally:
        loader.close()
