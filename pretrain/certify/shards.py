"""Every rank runs the same configuration, and the ranks' parts of the data make up what one rank would see."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from pretrain.certify.harness import Bench, Finding
from pretrain.collectives import all_gather_rows
from pretrain.config import run_fingerprint
from pretrain.data.catalog import beton_path, image_count
from pretrain.data.loader import build_loader
from pretrain.data.sampler import Indices, RankOrder, is_partition, subset
from pretrain.rundir import environment

EPOCHS = (0, 1)
IMAGES_WITHOUT_DATA = 50_000
LOADED_PER_RANK = 8


def configuration_findings(bench: Bench) -> list[Finding]:
    """Seed, configuration and software of all ranks. Collective: every rank calls this."""
    here = environment()
    software = {name: here[name] for name in ("git_revision", "python", "packages")}
    said = {"configuration and seed": run_fingerprint(bench.config), "software": repr(software)}
    findings = []
    for subject, text in said.items():
        same = bench.all_equal(torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8))
        measured = text if same and subject != "software" else "the same" if same else "ranks differ"
        findings.append(Finding("ranks", subject, measured, "the same on all ranks", same))
    return findings


def shard_findings(bench: Bench) -> list[Finding]:
    """Order of two epochs, and what the loader makes of it where the data set is on disk.

    Collective: every rank calls this.
    """
    data, batch = bench.config.data, bench.config.global_batch_size
    try:
        total = image_count(data.dataset, data.directory, data.split)
    except (ValueError, OSError):
        total = None
    images = max(total or IMAGES_WITHOUT_DATA, batch)
    index_n = subset(images, min(data.images, images) if data.images else None)
    findings = [_order(bench, index_n, epoch, known=total is not None) for epoch in EPOCHS]
    written = beton_path(data.directory, data.split).is_file()
    return [*findings, _loaded(bench)] if bench.largest(float(not written)) == 0.0 else findings


def _order(bench: Bench, index_n: Indices, epoch: int, *, known: bool) -> Finding:
    batch, world, seed = bench.config.global_batch_size, bench.world, bench.config.seed
    own = RankOrder(index_n, seed, batch, world.rank, world.size).batches(epoch)
    together = _of_all_ranks(bench, own)  # (W, batches, B)
    expected = RankOrder(index_n, seed, batch).batches(epoch)
    parts = list(together)
    complete = is_partition(parts, expected.reshape(-1))
    in_order = complete and np.array_equal(np.concatenate(parts, axis=1), expected)
    passed = bench.largest(float(not in_order)) == 0.0
    seen = len(np.unique(together)) / expected.size
    what = "images" if known else "images (a stand-in: the data set is not written)"
    measured = "every image once, in one rank's order" if passed else f"{seen:.0%} of the images are seen"
    if complete and not passed:
        measured = "every image once, but in other global batches than on one rank"
    subject = f"epoch {epoch}, {expected.size:,} of {len(index_n):,} {what}"
    return Finding("shards", subject, measured, "disjoint, complete", passed, {"seen": seen})


def _of_all_ranks(bench: Bench, own: Indices) -> Indices:
    # Through the device: NCCL has no CPU tensors.
    gathered = all_gather_rows(bench.on_device(torch.from_numpy(own)[None]))
    joined: Indices = gathered.cpu().numpy()
    return joined


def _loaded(bench: Bench) -> Finding:
    """The first global batch as the ranks load it, against this rank's part of what one rank loads."""
    config, world = bench.config, bench.world
    batch = min(LOADED_PER_RANK * world.size, config.global_batch_size)
    own = _first_views(bench, batch, world.rank, world.size)
    alone = _first_views(bench, batch, 0, 1)
    rows = batch // world.size
    same = torch.equal(own, alone[world.rank * rows : (world.rank + 1) * rows])
    passed = bench.largest(float(not same)) == 0.0
    measured = "the same bits" if passed else "other views than on one rank"
    return Finding("shards", f"views of {batch} images, {config.data.loader}", measured, "those of one rank", passed)


def _first_views(bench: Bench, batch: int, rank: int, world_size: int) -> Tensor:
    config = bench.config
    loader = build_loader(
        config.data, config.augmentation, seed=config.seed, global_batch_size=batch, rank=rank, world_size=world_size
    )
    try:
        views: Tensor = next(iter(loader.epoch(0))).views
        return views
    finally:
        loader.close()
