"""Memory of batches, which is used again once a batch is no longer referenced; and of decoded images that are kept.

Fresh pages of memory cost as much time as decoding a small image. On CUDA torch's own allocator of pinned memory does
the same, and also waits for copies to the device that still read a buffer.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import weakref
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pretrain.data.beton.format import ImageTable
from pretrain.ranks import ranks_per_node_from_environment

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
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
    """Memory for the images ``index_n`` of a file, decoded; the system assigns its pages when they are first written.

    pixels, readable: the same memory, to write and to read. start_N: where in it image n starts. decoded_N: whether
    image n is in it.

    Raises:
        ValueError: the copies of all ranks of this node do not fit the memory that is available.
    """

    def __init__(self, table: ImageTable, index_n: npt.NDArray[np.int64]) -> None:
        size_N = np.zeros(len(table), np.int64)
        size_N[index_n] = 3 * table.height_N[index_n] * table.width_N[index_n]
        size, ranks, free = int(size_N.sum()) + PADDING, ranks_per_node_from_environment(), available_bytes()
        if free is not None and size * ranks > free:
            raise ValueError(
                f"data.decoded_in_memory: the images of {table.path} take {size / 1e9:.1f} GB when decoded, each of "
                f"the {ranks} ranks of this node keeps its own; {free / 1e9:.1f} GB of memory are available"
            )
        self.pixels = np.empty(size, np.uint8)
        self.readable = self.pixels[:]
        self.readable.setflags(write=False)
        self.start_N = np.cumsum(size_N) - size_N
        self.decoded_N = np.zeros(len(table), np.bool_)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int | None:
    """Memory that Linux can give without swapping, under the limits of control groups; None on other systems."""
    free = []
    with contextlib.suppress(OSError):
        lines = (line.split() for line in (_PROC / "meminfo").read_text().splitlines())
        free += [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    with contextlib.suppress(OSError):
        for line in (_PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                place = _GROUPS / controllers / path.lstrip("/")
                free += [_left_in(folder) for folder in (place, *place.parents) if folder.is_relative_to(_GROUPS)]
    return min(free, default=None)


def _left_in(group: Path) -> int:
    """Bytes below a control group's limit, version 2 or 1; what it caches of files counts as free."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            figures = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            top, now = (int((group / name).read_text()) for name in (limit, used))
            return max(0, top - now + int(figures.get(cached, 0)))
    return sys.maxsize
