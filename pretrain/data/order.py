"""Which samples, in which order, on which rank: functions of (seed, epoch) and the global batch alone.

N samples in the file, n of them used, G global batch size, W ranks, B = G / W samples per rank and batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pretrain.data.randomness import order_keys, subset_keys

Indices = npt.NDArray[np.int64]


def subset(total: int, images: int | None) -> Indices:
    """The ``images`` samples of a file of ``total`` that a run uses, ascending, shape (images,).

    A smaller subset is part of every larger one, and none depends on the seed. None: all.

    Raises:
        ValueError: more images are wanted than there are.
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
