"""Which samples, in which order, on which rank: functions of (seed, epoch) and the global batch alone.

N samples in the file, n of them used, G global batch size, W ranks, B = G / W samples per rank and batch.
"""

from __future__ import annotations

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


def batches_per_epoch(images: int, global_batch_size: int) -> int:
    """Whole global batches in an epoch; the samples of a last partial batch are left out of that epoch."""
    return images // global_batch_size


def rank_slice(order_n: Indices, global_batch_size: int, rank: int, world_size: int) -> Indices:
    """The part of rank ``rank`` of every whole global batch of ``order_n``, shape (batches, B).

    Global batch b is order_n[b*G : (b+1)*G]; rank r holds its contiguous share [r*B, (r+1)*B): the ranks side by side
    are the global batch, in order.

    Raises:
        ValueError: the global batch cannot be shared evenly, or the rank does not exist.
    """
    if global_batch_size % world_size:
        raise ValueError(
            f"global_batch_size: {global_batch_size} samples cannot be shared evenly by {world_size} ranks; "
            f"take a multiple of {world_size}"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank: got {rank}, there are ranks 0 to {world_size - 1}")
    batches = batches_per_epoch(len(order_n), global_batch_size)
    whole = order_n[: batches * global_batch_size].reshape(batches, world_size, global_batch_size // world_size)
    return np.ascontiguousarray(whole[:, rank])


def evaluation_slice(index_n: Indices, rank: int, world_size: int) -> Indices:
    """The contiguous part of rank ``rank``: the ranks one after another are ``index_n``, every sample once."""
    return index_n[rank * len(index_n) // world_size : (rank + 1) * len(index_n) // world_size]


def is_partition(parts: list[Indices], whole_n: Indices) -> bool:
    """Whether ``parts`` are disjoint and together hold exactly the samples of ``whole_n``."""
    joined = np.concatenate([part.reshape(-1) for part in parts]) if parts else np.empty(0, np.int64)
    return joined.size == whole_n.size and bool(np.array_equal(np.sort(joined), np.sort(whole_n)))
