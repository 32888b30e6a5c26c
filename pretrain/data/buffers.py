"""Memory of batches, which is used again once a batch is no longer referenced; and of decoded images that are kept.

Fresh pages of memory cost as much time as decoding a small image. On CUDA torch's own allocator of pinned memory does
the same, and also waits for copies to the device that still read a buffer.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pretrain.data.beton.format import ImageTable

PADDING = 8  # bytes after the last pixel, since kernels read one beyond


class BatchMemory:
    """Gives out tensors with storage of their own. Thread-safe. At most ``keep`` unused buffers are kept."""

    def __init__(self, keep: int = 4) -> None:
        # A deque needs no lock. The garbage collector returns buffers, and may run in a thread that holds a lock.
        self._unused: deque[npt.NDArray[np.uint8]] = deque(maxlen=keep)

    def take(self, *shape: int) -> torch.Tensor:
        """A uint8 tensor of this shape, its content undefined; not used again while any view of it lives."""
        if torch.cuda.is_available():
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        buffer = self._buffer(math.prod(shape))
        alias = buffer[:]  # torch's storage references this very object, and drops it with the last tensor
        weakref.finalize(alias, self._unused.append, buffer).atexit = False
        return torch.from_numpy(alias).view(shape)

    def _buffer(self, size: int) -> npt.NDArray[np.uint8]:
        try:
            while len(buffer := self._unused.pop()) != size:
                pass  # of another size than this batch needs: dropped
        except IndexError:
            return np.empty(size, np.uint8)
        return buffer


class KeptImages:
    """Memory for every image of a file, decoded; the system assigns its pages when they are first written.

    pixels, readable: the same memory, to write and to read. start_N: where in it image n starts. decoded_N: whether
    image n is in it.

    Raises:
        ValueError: it does not fit the memory that is available.
    """

    def __init__(self, table: ImageTable) -> None:
        end_N = np.cumsum(3 * table.height_N * table.width_N)
        size, free = int(end_N[-1]) + PADDING if len(end_N) else PADDING, _available_bytes()
        if free is not None and size > free:
            raise ValueError(
                f"data.decoded_in_memory: the images of {table.path} take {size / 1e9:.1f} GB when decoded, "
                f"{free / 1e9:.1f} GB of memory are available; every rank keeps its own"
            )
        self.pixels = np.empty(size, np.uint8)
        self.readable = self.pixels[:]
        self.readable.setflags(write=False)
        self.start_N = np.concatenate([[0], end_N[:-1]]).astype(np.int64)
        self.decoded_N = np.zeros(len(table), np.bool_)


def _available_bytes() -> int | None:
    """Memory that Linux can give without swapping; None on other systems."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    return next(
        int(line.split()[1]) * 1024 for line in path.read_text().splitlines() if line.startswith("MemAvailable")
    )
