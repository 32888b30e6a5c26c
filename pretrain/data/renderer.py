"""From sample numbers to batches of views: the one implementation behind both loaders.

B samples of a batch, V views, S side of a view in pixels.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pretrain.batch import Batch
from pretrain.config import AugmentationConfig, Flavour
from pretrain.data.beton.format import JPEG, RAW, ImageTable
from pretrain.data.buffers import PADDING, BatchMemory, KeptImages
from pretrain.data.kernels import jpeg
from pretrain.data.kernels import view as view_kernels
from pretrain.data.kernels.operations import DRAWN, SETTINGS, settings_record
from pretrain.data.sampler import Indices

_WHOLE_PX = 32  # google-research/simclr evaluates on whole images up to this size, CIFAR's
CENTRE_FRACTION = 0.875  # of the shorter side: SimCLR's evaluation crop, 224 of 256 px
_DECODED_PER_CHUNK = 8  # few enough that pixels are still in cache when they are rendered

_RANDOM_WINDOWS = np.empty((0, 4), np.int64)  # no windows given: the kernels draw them

Views = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RenderSettings:
    """What random views depend on, besides the epoch and the sample. settings_V: rows of `operations.SETTINGS`."""

    settings_V: npt.NDArray[np.void]
    side: int
    seed: int

    @classmethod
    def of(cls, augmentation: AugmentationConfig, seed: int) -> RenderSettings:
        """The configuration of all views, in the form that the kernels read."""
        side = augmentation.crop_size_px
        views = range(augmentation.number_of_views)
        return cls(np.concatenate([settings_record(augmentation.for_view(v), side) for v in views]), side, seed)


class Renderer:
    """Reads, decodes and renders samples of one file with ``workers`` threads. Thread-safe.

    keep_n: samples that stay decoded in memory from their first use on; only these may be asked for then.
    """

    def __init__(self, table: ImageTable, workers: int, keep_n: Indices | None = None) -> None:
        self.table = table
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="views") if workers > 1 else None
        self._raw = bool((table.mode_N == RAW).all())
        self._memory, self._thread = BatchMemory(), threading.local()
        self._kept = KeptImages(table, keep_n) if keep_n is not None and not self._raw else None
        self._turbojpeg = not self._raw and jpeg.load()

    def augmented(self, index_B: Indices, settings: RenderSettings, epoch: int) -> Batch:
        """Random views of the samples; a function of (seed, epoch, sample, view) and the settings.

        Raises:
            ValueError: a sample's image cannot be decoded; names the sample and the file.
        """

        def render(index_b: Indices, views: Views) -> None:
            self._render(index_b, _RANDOM_WINDOWS, settings, epoch, views)

        return self._batch(index_B, len(settings.settings_V), settings.side, render)

    def centred(self, index_B: Indices, side: int, flavour: Flavour = "torchvision") -> Batch:
        """One view without augmentation: `centre_windows`, resized as ``flavour`` does."""

        plain = RenderSettings(np.zeros(1, SETTINGS), side, seed=0)  # every probability zero
        plain.settings_V["simclr"] = flavour == "simclr"

        def render(index_b: Indices, views: Views) -> None:
            window_b4 = centre_windows(self.table.height_N[index_b], self.table.width_N[index_b], side, flavour)
            self._render(index_b, window_b4, plain, 0, views)

        return self._batch(index_B, 1, side, render)

    def drawn(self, index: int, settings: RenderSettings, epoch: int) -> npt.NDArray[np.void]:
        """What `augmented` draws for the views of one sample, shape (V,): rows of `operations.DRAWN`."""
        drawn_1V: npt.NDArray[np.void] = np.zeros((1, len(settings.settings_V)), DRAWN)
        counters = (np.uint64(settings.seed), np.uint64(epoch), np.array([index], np.int64))
        size = (int(self.table.height_N[index]), int(self.table.width_N[index]))
        view_kernels.draw(*counters, *size, settings.settings_V, drawn_1V)
        return drawn_1V.reshape(-1)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, index_B: Indices, views: int, side: int, render: Callable[[Indices, Views], None]) -> Batch:
        index_B = np.ascontiguousarray(index_B, np.int64)
        views_BV3SS = self._memory.take(len(index_B), views, 3, side, side)
        target = views_BV3SS.numpy()
        chunk = -(-len(index_B) // self._workers) if self._raw else _DECODED_PER_CHUNK
        parts = [slice(low, low + chunk) for low in range(0, len(index_B), chunk)]
        run: Callable[..., Iterable[None]] = self._pool.map if self._pool is not None else map
        for _ in run(lambda part: render(index_B[part], target[part]), parts):
            pass  # raises what a chunk raised
        numbers = (torch.from_numpy(self.table.label_N[index_B]), torch.from_numpy(index_B.copy()))
        if views_BV3SS.is_pinned():  # a copy from other memory would make the host wait
            numbers = (numbers[0].pin_memory(), numbers[1].pin_memory())
        return Batch(views_BV3SS, *numbers)

    def _render(
        self, index_b: Indices, window_b4: npt.NDArray[np.int64], settings: RenderSettings, epoch: int, views: Views
    ) -> None:
        data, offset_b = self.decoded(index_b)
        sizes = (self.table.height_N[index_b], self.table.width_N[index_b])
        counters = (index_b, np.uint64(settings.seed), np.uint64(epoch))
        view_kernels.augment(data, offset_b, *sizes, window_b4, *counters, settings.settings_V, views)

    def decoded(self, index_b: Indices) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Raw pixels of the samples: an array, this thread's until its next call, and where in it each image starts.

        Raises:
            ValueError: an image cannot be decoded; names the sample and the file.
        """
        table = self.table
        offset_b, height_b, width_b = table.offset_N[index_b], table.height_N[index_b], table.width_N[index_b]
        if self._raw:
            return table.data, offset_b
        if self._kept is not None:
            missing = np.unique(index_b[~self._kept.decoded_N[index_b]])
            self._decode(missing, self._kept.pixels, self._kept.start_N[missing])
            self._kept.decoded_N[missing] = True
            return self._kept.readable, self._kept.start_N[index_b]
        end_b = np.cumsum(3 * height_b * width_b)
        start_b = np.concatenate([[0], end_b[:-1]])
        pixels = self._buffer(int(end_b[-1]) + PADDING)
        self._decode(index_b, pixels, start_b)
        pixels.setflags(write=False)  # the type of the mapped file: one compilation serves both
        return pixels, start_b

    def _decode(self, index_b: Indices, pixels: npt.NDArray[np.uint8], start_b: npt.NDArray[np.int64]) -> None:
        """Pixels of the samples to pixels[start_b:]. Pillow reads what libturbojpeg cannot."""
        table = self.table
        if self._turbojpeg:
            jpeg_b = table.mode_N[index_b] == JPEG
            index_j, start_j = index_b[jpeg_b], start_b[jpeg_b]
            sizes = (table.height_N[index_j], table.width_N[index_j])
            bad = jpeg.decode(table.data, table.offset_N[index_j], table.size_N[index_j], *sizes, start_j, pixels)
            if bad >= 0:
                raise self._undecodable(int(index_j[bad]))
            index_b, start_b = index_b[~jpeg_b], start_b[~jpeg_b]
        for index, start in zip(index_b.tolist(), start_b.tolist(), strict=True):
            original = self.original(index).reshape(-1)
            pixels[start : start + len(original)] = original

    def _buffer(self, size: int) -> npt.NDArray[np.uint8]:
        """Memory of the calling thread, the same at every call."""
        buffer: npt.NDArray[np.uint8] | None = getattr(self._thread, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._thread.buffer = np.empty(size, np.uint8)
        return buffer[:size]

    def original(self, index: int) -> npt.NDArray[np.uint8]:
        """(height, width, 3) pixels of one sample, decoded by Pillow.

        Raises:
            ValueError: it cannot be decoded; names the sample and the file.
        """
        table = self.table
        stored = table.data[table.offset_N[index] : table.offset_N[index] + table.size_N[index]]
        shape = (int(table.height_N[index]), int(table.width_N[index]), 3)
        if table.mode_N[index] == RAW:
            return stored.reshape(shape)
        try:
            with Image.open(io.BytesIO(stored.tobytes())) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise self._undecodable(index) from error
        if pixels.shape != shape:
            raise self._undecodable(index)
        return pixels

    def _undecodable(self, index: int) -> ValueError:
        table = self.table
        return ValueError(
            f"{table.path}: sample {index} is not a JPEG image of {table.width_N[index]} x {table.height_N[index]} px "
            f"(bytes {table.offset_N[index]} to {table.offset_N[index] + table.size_N[index]}); write the file again"
        )


def centre_windows(
    height_b: npt.NDArray[np.int64], width_b: npt.NDArray[np.int64], side: int, flavour: Flavour = "torchvision"
) -> npt.NDArray[np.int64]:
    """Windows (b, 4) of top, left, height, width: the centre square, 7/8 of a shorter side that exceeds ``side``.

    simclr, as google-research/simclr has it: 7/8 of the shorter side of every image where views exceed 32 px, else all.
    """
    shorter_b = np.minimum(height_b, width_b)
    reduced_b = np.maximum(np.rint(shorter_b * CENTRE_FRACTION).astype(np.int64), 1)
    cut_b = shorter_b > side if flavour == "torchvision" else np.full(shorter_b.shape, side > _WHOLE_PX)
    square_b = np.where(cut_b, reduced_b, shorter_b)
    top_b, left_b = (height_b - square_b) // 2, (width_b - square_b) // 2
    return np.ascontiguousarray(np.stack([top_b, left_b, square_b, square_b], axis=1))
