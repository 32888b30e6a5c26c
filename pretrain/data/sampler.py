"""Which samples, in which order, on which rank: functions of (seed, epoch) and the global batch alone.

N samples in the file, n of them used, G global batch size, W ranks, B = G / W samples per rank and batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from pretrain.collectives import all_gather_rows
from pretrain.data.catalog import read_manifest
from pretrain.data.kernels.randomness import mix64, order_keys, subset_keys

Indices = npt.NDArray[np.int64]


def subset(total: int, images: int | None) -> Indices:
    """The ``images`` samples of a file of ``total`` that a run uses, ascending, shape (images,).

    A smaller subset is part of every larger one, and none depends on the seed. None: all.

    Raises:
        ValueError: more images are asked for than there are.
    """
    index_N = np.arange(total, dtype=np.int64)
    if images is None:
        return index_N
    if not 0 < images <= total:
        raise ValueError(f"data.images: got {images}, the file holds {total} samples")
    return np.sort(np.argsort(subset_keys(index_N), kind="stable")[:images])


def permutation(seed: int, epoch: int, index_n: Indices) -> Indices:
    """``index_n`` in the order of epoch ``epoch``, shape (n,)."""
    return index_n[np.argsort(order_keys(seed, epoch, index_n), kind="stable")]


@dataclass(frozen=True)
class RankOrder:
    """Which samples one rank takes in each epoch.

    Global batch b of an epoch is permutation[b*G : (b+1)*G]; rank r holds its contiguous share [r*B, (r+1)*B): the
    ranks side by side are the global batch, in order. The samples of a last partial batch are left out of that epoch.

    Raises:
        ValueError: the global batch cannot be shared evenly, the images do not fill one, or the rank does not exist.
    """

    index_n: Indices
    seed: int
    global_batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        batch, ranks = self.global_batch_size, self.world_size
        problems = []
        if batch < 1 or batch % ranks:
            problems.append(f"global_batch_size: {batch} samples cannot be shared evenly by {ranks} ranks")
        if not 0 <= self.rank < ranks:
            problems.append(f"rank: got {self.rank}, there are ranks 0 to {ranks - 1}")
        if batch > self.images:
            problems.append(f"global_batch_size: {batch} is more than the {self.images} images in use")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def images(self) -> int:
        """Samples in use, over all ranks."""
        return len(self.index_n)

    @property
    def batches_per_epoch(self) -> int:
        """Whole global batches in an epoch."""
        return self.images // self.global_batch_size

    @property
    def batch_size_per_rank(self) -> int:
        """B = G / W."""
        return self.global_batch_size // self.world_size

    def batches(self, epoch: int, first_batch: int = 0) -> Indices:
        """Samples of this rank in the batches first_batch, first_batch + 1, … of an epoch, shape (batches, B)."""
        whole = self.batches_per_epoch * self.global_batch_size
        order_n = permutation(self.seed, epoch, self.index_n)[:whole]
        shares = order_n.reshape(self.batches_per_epoch, self.world_size, self.batch_size_per_rank)
        return np.ascontiguousarray(shares[first_batch:, self.rank])


def evaluation_slice(index_n: Indices, rank: int, world_size: int) -> Indices:
    """The contiguous part of rank ``rank``: the ranks one after another are ``index_n``, every sample once."""
    return index_n[rank * len(index_n) // world_size : (rank + 1) * len(index_n) // world_size]


def is_partition(parts: list[Indices], whole_n: Indices) -> bool:
    """Whether ``parts`` are disjoint and together hold exactly the samples of ``whole_n``."""
    joined = np.concatenate([part.reshape(-1) for part in parts]) if parts else np.empty(0, np.int64)
    return joined.size == whole_n.size and bool(np.array_equal(np.sort(joined), np.sort(whole_n)))


# What every rank must have in common, in the order of the numbers that `check_shards` compares.
_SAME = ("the data file", "the seed", "the global batch size", "the number of images")


def check_shards(path: Path, order: RankOrder, group: dist.ProcessGroup) -> None:
    """Check before the first step that the ranks of ``group`` (CPU tensors) share out one file, each image once.

    Each rank tells how many samples it takes in epoch 0 and the sum of their hashes, modulo 2**64. The sums over the
    ranks equal those of the whole epoch, which each computes itself, when no sample is missing or repeated (and by
    chance once in 2**64). Collective: every rank calls this.

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
    """Number of samples, and the sum of their hashes as a signed 64-bit number; neither depends on their order."""
    with np.errstate(over="ignore"):
        total = np.add.reduce(mix64(index.reshape(-1).astype(np.uint64)), dtype=np.uint64)
    return index.size, int(np.uint64(total).astype(np.int64))


def _content(path: Path) -> int:
    """A number for what the file holds, not for who wrote it; 7 bytes fit a signed 64-bit number."""
    return int(read_manifest(path.parent, path.stem).content[:14], 16)
