"""The augmentation as an operation inside ffcv.Loader.

ffcv reads the file, schedules the batches and runs the pipeline in its thread; the operation decodes once and renders
all views. Faults of ffcv 1.0 that are worked around here: an exception in a stage hangs the consumer; an early break
leaks the thread and its buffers; kept batches are overwritten; a damaged JPEG passes silently; torch's thread count is
set to the loader's; compilation in every process costs ten seconds and more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numba.typed
import numpy as np
import numpy.typing as npt
import torch

from pretrain.batch import Batch
from pretrain.config import DataConfig
from pretrain.data.beton.format import image_table, read_layout
from pretrain.data.prefetch import PrefetchQueue, ended_by
from pretrain.data.renderer import Renderer, RenderSettings
from pretrain.data.sampler import Indices, RankOrder


@contextmanager
def _thread_counts_kept() -> Iterator[None]:
    """ffcv sets torch's and numba's thread counts when imported and with every loader."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


@contextmanager
def _plain_dict() -> Iterator[None]:
    """ffcv keeps two constants in a numba dictionary, whose compilation takes seconds; a dict serves the same uses."""
    typed = numba.typed.Dict
    numba.typed.Dict = dict
    try:
        yield
    finally:
        numba.typed.Dict = typed


with _thread_counts_kept(), _plain_dict():
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader as FFCVLoaderBase
    from ffcv.loader import OrderOption
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.pipeline.compiler import Compiler


@contextmanager
def _uncompiled() -> Iterator[None]:
    """ffcv's switch for plain Python stages: the only stage calls kernels that are compiled and cached already."""
    enabled = Compiler.is_enabled
    Compiler.set_enabled(False)
    try:
        yield
    finally:
        Compiler.set_enabled(enabled)


class RenderViews(SimpleRGBImageDecoder):  # type: ignore[misc]
    """ffcv operation for an image field: sample numbers in, a `Batch` out, in storage of its own.

    ffcv does not pass the epoch to an operation; the thread that runs the stages sets it, with `use_epoch`.
    """

    def __init__(self, path: Path, settings: RenderSettings, workers: int, keep_n: Indices | None = None) -> None:
        super().__init__()
        self._path, self._settings, self._workers, self._keep_n = path, settings, workers, keep_n
        self._thread = threading.local()
        self._renderer: Renderer | None = None

    def use_epoch(self, epoch: int) -> None:
        """The epoch of the batches that the calling thread makes from now on."""
        self._thread.epoch = epoch

    def open(self, data: npt.NDArray[np.uint8], image_N: Any, label_N: Any, allocations: Any) -> None:
        """Use the file as ffcv has read it."""
        table = image_table(self._path, data, image_N, label_N, allocations)
        self._renderer = Renderer(table, self._workers, self._keep_n)

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        """ffcv's protocol. No memory of ffcv's ring: a batch that is kept must not change."""
        side = self._settings.side
        shape = (len(self._settings.settings_V), 3, side, side)
        return replace(previous_state, jit_mode=True, shape=shape, dtype=np.dtype("<u1")), None

    def generate_code(self) -> Any:
        """ffcv's protocol: the function of the stage."""

        def render(batch_indices: Any, memory: Any, metadata: Any, storage_state: Any) -> Batch:
            assert self._renderer is not None, "open() comes before the first batch"
            return self._renderer.augmented(batch_indices, self._settings, self._thread.epoch)

        return render

    def close(self) -> None:
        """End the threads."""
        if self._renderer is not None:
            self._renderer.close()


class _Epoch(EpochIterator):  # type: ignore[misc]
    """ffcv's producing thread, which passes on exceptions and stops when asked."""

    closed: bool

    def __init__(self, loader: _ViewLoader, index_n: Indices, epoch: int) -> None:
        self._epoch = epoch
        self._queue: PrefetchQueue[Batch] = PrefetchQueue(loader.batches_ahead)
        super().__init__(loader, index_n)  # starts the thread

    def run(self) -> None:
        self._queue.run(self._produce)

    def _produce(self) -> None:
        self.loader.operation.use_epoch(self._epoch)
        for number, index_B in enumerate(self.iter_ixes):
            (batch,) = self.run_pipeline(number, index_B, 0, None)
            if not self._queue.put(batch):
                return

    def __next__(self) -> Batch:
        batch = self._queue.get()
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        self._queue.stop()
        if threading.current_thread() is not self:
            self.join()
        if not self.closed:
            self.closed = True
            self.memory_context.__exit__(None, None, None)


class _ViewLoader(FFCVLoaderBase):  # type: ignore[misc]
    """ffcv.Loader of one operation, with epochs by number."""

    def __init__(self, path: Path, operation: RenderViews, batch_size: int, workers: int, batches_ahead: int) -> None:
        self.operation = operation
        others = {name: None for name in read_layout(path)[1] if name != "image"}  # labels come with the metadata
        with _thread_counts_kept(), _uncompiled():
            # seed: without one ffcv draws it from numpy's global generator.
            super().__init__(
                str(path),
                batch_size=batch_size,
                num_workers=min(workers, numba.config.NUMBA_NUM_THREADS),
                os_cache=True,
                order=OrderOption.SEQUENTIAL,
                seed=0,
                drop_last=True,
                batches_ahead=batches_ahead,
                pipelines={"image": [operation], **others},
            )
        reader, columns = self.reader, self.field_name_to_f_ix
        with self.memory_manager.schedule_epoch([]) as context:
            data = context.state[0]
        image_N, label_N = (reader.metadata[f"f{columns[name]}"] for name in ("image", "label"))
        operation.open(data, image_N, label_N, reader.alloc_table)

    def numbered(self, index_n: Indices, epoch: int) -> _Epoch:
        """Batches of the samples ``index_n`` in this order, augmented for epoch ``epoch``."""
        with _uncompiled():  # ffcv asks for the stages' code again when it allocates memory
            return _Epoch(self, index_n, epoch)


class FFCVLoader:
    """Batches of one rank through ffcv.Loader. See `batch.Loader`."""

    def __init__(self, path: Path, order: RankOrder, settings: RenderSettings, data: DataConfig) -> None:
        self._order = order
        assert isinstance(data.workers, int), "build_loader decides on a number"
        keep_n = order.index_n if data.decoded_in_memory else None
        self._operation = RenderViews(path, settings, data.workers, keep_n)
        self._loader = _ViewLoader(path, self._operation, order.batch_size_per_rank, data.workers, data.batches_ahead)
        self.images = order.images
        self.batches_per_epoch = order.batches_per_epoch
        self.batch_size_per_rank = order.batch_size_per_rank

    def epoch(self, epoch: int, *, first_batch: int = 0) -> Iterator[Batch]:
        """Batches from ``first_batch`` of epoch ``epoch``; leaving the loop early ends the thread."""
        iterator = self._loader.numbered(self._order.batches(epoch, first_batch).reshape(-1), epoch)
        with ended_by(iterator.close):
            yield from iterator

    def close(self) -> None:
        """End the threads."""
        self._operation.close()
