"""Numbers as a person reads them, the same in the console, the tables of the launcher and the report. Torch-free."""

from __future__ import annotations

import math
import sys
from pathlib import Path

DASH = "\N{EN DASH}"


def number(value: float | None, form: str) -> str:
    """``value`` in the given format specification, or a dash where it is unknown or not finite."""
    return DASH if value is None or not math.isfinite(value) else format(value, form)


def duration(seconds: float | None) -> str:
    """``4.2 s``, ``42 s``, ``3 min 05 s`` or ``2 h 07 min``, or a dash where it is unknown or not finite."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    seconds = max(0.0, seconds)
    if seconds < 9.95:  # what rounds to 10.0 is written 10
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def command(name: str, module: str) -> str:
    """How this process was asked for: ``bigbatch NAME`` by the console script, else ``python -m MODULE``."""
    return f"bigbatch {name}" if Path(sys.argv[0]).stem == "bigbatch" else f"python -m {module}"


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2,048 runs``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
