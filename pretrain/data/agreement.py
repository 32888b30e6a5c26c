"""Ranks make sure before the first step that they share one data set out among them: one file, each image once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from pretrain.collectives import all_gather_rows
from pretrain.data.catalog import manifest_path
from pretrain.data.order import Indices, RankOrder
from pretrain.data.randomness import mix64

_SAME = ("the data file", "the seed", "the global batch size", "the number of images")


def check_shards(path: Path, order: RankOrder, group: dist.ProcessGroup) -> None:
    """Compare what the ranks of ``group`` (CPU tensors) are about to read in epoch 0.

    Each tells how many samples it takes and the sum of their hashes, modulo 2**64: the sums over the ranks are those of
    the whole epoch, computed by each, exactly when no sample is missing or repeated. Collective: every rank calls this.

    Raises:
        ValueError: on every rank, when the ranks differ in something or their parts are not the whole; says in what.
    """
    same = [_content(path), order.seed, order.global_batch_size, order.images]
    own = torch.tensor([[*same, *_fingerprint(order.batches(0))]], dtype=torch.int64)
    rows_W = all_gather_rows(own, group)
    problems = [
        f"{what} differs: {column.tolist()} on ranks 0 to {len(rows_W) - 1}"
        for what, column in zip(_SAME, rows_W.T, strict=False)
        if len(column.unique()) > 1
    ]
    if not problems:
        whole = RankOrder(order.index_n, order.seed, order.global_batch_size).batches(0)
        if rows_W[:, len(_SAME) :].sum(0).tolist() != list(_fingerprint(whole)):
            problems.append("the ranks' parts overlap or leave images out")
    if problems:
        raise ValueError(f"{path}: the ranks do not share one data set: {'; '.join(problems)}")


def _fingerprint(index: Indices) -> tuple[int, int]:
    """Number of samples, and the sum of their hashes as a signed 64-bit number; neither knows their order."""
    with np.errstate(over="ignore"):
        total = np.add.reduce(mix64(index.reshape(-1).astype(np.uint64)), dtype=np.uint64)
    return index.size, int(np.uint64(total).astype(np.int64))


def _content(path: Path) -> int:
    """A number for what the file holds: of its manifest, or of its size where it has none."""
    manifest = manifest_path(path.parent, path.stem)
    said = manifest.read_bytes() if manifest.is_file() else str(path.stat().st_size).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:7], "little")
