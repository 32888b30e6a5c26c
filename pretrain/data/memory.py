"""Memory of batches, used again once nobody holds the batch any more.

Fresh pages of memory cost as much time as decoding a small image. On CUDA torch's own allocator of pinned memory does
the same and more: it waits for the copies to the device that still read a buffer.
"""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
import numpy.typing as npt
import torch


class BatchMemory:
    """Gives out tensors whose storage nobody else holds. Thread-safe. At most ``keep`` unused buffers are kept."""

    def __init__(self, keep: int = 4) -> None:
        # No lock: buffers come back from the garbage collector, which may run in a thread that holds one.
        self._unused: deque[npt.NDArray[np.uint8]] = deque(maxlen=keep)

    def take(self, *shape: int) -> torch.Tensor:
        """A uint8 tensor of this shape, its content undefined; the caller's for as long as any view of it lives."""
        if torch.cuda.is_available():
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        buffer = self._buffer(math.prod(shape))
        lent = buffer[:]  # torch's storage holds this very object, and lets go of it when the last tensor is gone
        weakref.finalize(lent, self._unused.append, buffer).atexit = False
        return torch.from_numpy(lent).view(shape)

    def _buffer(self, size: int) -> npt.NDArray[np.uint8]:
        try:
            while len(buffer := self._unused.pop()) != size:
                pass  # of another size than is wanted now: dropped
        except IndexError:
            return np.empty(size, np.uint8)
        return buffer
