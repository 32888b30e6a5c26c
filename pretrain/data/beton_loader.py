"""Batches from a .beton file without ffcv: the same file, the same kernels, the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pretrain.config import DataConfig
from pretrain.data.batch import Batch
from pretrain.data.beton import read_table
from pretrain.data.handoff import in_background
from pretrain.data.order import RankOrder
from pretrain.data.views import Rendering, ViewMaker


class BetonLoader:
    """Batches of one rank, made ahead by a thread of this process. See `batch.Loader`."""

    def __init__(self, path: Path, order: RankOrder, rendering: Rendering, data: DataConfig) -> None:
        workers, batches_ahead = data.workers, data.batches_ahead
        self._order, self._rendering, self._ahead = order, rendering, batches_ahead
        self._maker = ViewMaker(read_table(path), workers, data.decoded_in_memory)
        self.images = order.images
        self.batches_per_epoch = order.batches_per_epoch
        self.batch_size_per_rank = order.batch_size_per_rank

    def epoch(self, epoch: int, *, first_batch: int = 0) -> Iterator[Batch]:
        """Batches from ``first_batch`` of epoch ``epoch``; leaving the loop early ends the thread."""
        indices = self._order.batches(epoch, first_batch)
        batches = (self._maker.augmented(index_B, self._rendering, epoch) for index_B in indices)
        return in_background(batches, ahead=self._ahead, name="beton-loader")

    def close(self) -> None:
        """End the threads."""
        self._maker.close()
