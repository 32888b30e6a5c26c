"""Memory of this process: its peak so far, and how far one call raises it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import torch

_CPU = torch.device("cpu")


def peak_memory_bytes(device: torch.device = _CPU) -> int:
    """Most memory that this process has held so far: of its GPU where ``device`` is one, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kilobytes


def peak_growth_bytes(call: Callable[[], object], device: torch.device = _CPU) -> int:
    """Bytes that ``call`` needs at its worst beyond what is held before it.

    Resident memory is too small a number where memory that was freed before lies ready for use. Where the kernel cannot
    start the peak anew (a container without /proc/self/clear_refs), only what exceeds the old peak is counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident
    except OSError:
        before = peak_memory_bytes()
        call()
        return peak_memory_bytes() - before
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")
