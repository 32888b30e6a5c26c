"""What a loader hands out, and what every loader can do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch


class Batch(NamedTuple):
    """B samples of one rank, V views each, S px a side. The storage is the batch's own: keep it as long as you like."""

    views: torch.Tensor  # (B, V, 3, S, S) uint8
    labels: torch.Tensor  # (B,) int64
    indices: torch.Tensor  # (B,) int64: sample numbers in the file


class Loader(Protocol):
    """Batches of one rank. The ranks' batches number b, side by side, are global batch b, whatever their number."""

    images: int  # samples in use, over all ranks
    batches_per_epoch: int  # whole global batches; the rest of an epoch is left out
    batch_size_per_rank: int

    def epoch(self, epoch: int, *, first_batch: int = 0) -> Iterator[Batch]:
        """Batches first_batch, first_batch + 1, … of an epoch; what is in them depends on neither."""

    def close(self) -> None:
        """End the threads. The loader cannot be used afterwards."""
