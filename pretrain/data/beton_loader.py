"""Batches from a .beton file without ffcv: the same file, the same kernels, the same batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pretrain.data import order
from pretrain.data.batch import Batch
from pretrain.data.beton import read_table
from pretrain.data.handoff import Handoff
from pretrain.data.views import ViewMaker


class BetonLoader:
    """Batches of one rank, made ahead by a thread of this process. See `batch.Loader`."""

    def __init__(
        self, path: Path, settings_V: npt.NDArray[np.void], side: int, *, seed: int, global_batch_size: int,
        images: int | None, rank: int, world_size: int, workers: int, batches_ahead: int,
    ) -> None:  # fmt: skip
        table = read_table(path)
        self._index_n = order.subset(len(table), images)
        self._settings_V, self._side, self._seed = settings_V, side, seed
        self._global_batch_size, self._rank, self._world_size = global_batch_size, rank, world_size
        self._ahead = batches_ahead
        self._maker = ViewMaker(table, workers)
        self.images = len(self._index_n)
        self.batches_per_epoch = order.batches_per_epoch(self.images, global_batch_size)
        self.batch_size_per_rank = global_batch_size // world_size

    def epoch(self, epoch: int, *, first_batch: int = 0) -> Iterator[Batch]:
        """Batches from ``first_batch`` of epoch ``epoch``; leaving the loop early ends the thread."""
        handoff: Handoff[Batch] = Handoff(self._ahead)
        arguments = (handoff, epoch, first_batch)
        thread = threading.Thread(target=self._produce, args=arguments, name="beton-loader", daemon=True)
        thread.start()
        try:
            while (batch := handoff.get()) is not None:
                yield batch
        finally:
            handoff.stop()
            thread.join()

    def close(self) -> None:
        """End the threads."""
        self._maker.close()

    def _produce(self, handoff: Handoff[Batch], epoch: int, first_batch: int) -> None:
        try:
            permuted_n = order.permutation(self._seed, epoch, self._index_n)
            batches = order.rank_slice(permuted_n, self._global_batch_size, self._rank, self._world_size)
            for index_B in batches[first_batch:]:
                batch = self._maker.augmented(index_B, self._settings_V, self._side, self._seed, epoch)
                if not handoff.put(batch):
                    return
            handoff.end()
        except BaseException as error:
            handoff.end(error)
