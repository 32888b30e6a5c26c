"""What a training step is given: a batch, and where in training it stands; and what every loader can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch


class Batch(NamedTuple):
    """B samples of one rank, V views each, S px a side. The storage is the batch's own: keep it as long as you like."""

    views: torch.Tensor  # (B, V, 3, S, S) uint8
    labels: torch.Tensor  # (B,) int64
    indices: torch.Tensor  # (B,) int64: sample numbers in the file


@dataclass(frozen=True)
class StepContext:
    """Where in training a step stands: the one count of steps, for all that depends on it.

    step: steps finished before this one; whatever is drawn again in each step is a function of it.
    progress: the share of training that is finished once this step is.
    measure: compute the metrics that cost something too.
    rows_N: where each row of a forward is in the global batch (view * G + image), set by `Objective.embed_views`.
    """

    step: int = 0
    progress: float = 0.0
    measure: bool = False
    rows_N: torch.Tensor | None = None


class Loader(Protocol):
    """Batches of one rank. The ranks' batches number b, side by side, are global batch b, whatever their number."""

    images: int  # samples in use, over all ranks
    batches_per_epoch: int  # whole global batches; the rest of an epoch is left out
    batch_size_per_rank: int

    def epoch(self, epoch: int, *, first_batch: int = 0) -> Iterator[Batch]:
        """Batches first_batch, first_batch + 1, … of an epoch; what is in them depends on neither."""

    def close(self) -> None:
        """End the threads. The loader cannot be used afterwards."""
