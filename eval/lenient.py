"""Types of values in results, which are read leniently: what is not such a value is None, never 0 and never an error.

Results come from other versions, from damaged disks, and from evaluations of somebody's own. Torch-free.

    Number    a finite number
    Numbers   a list of them, each None where it is none
    Count     a whole number
    Pair      two finite numbers: low and high
    Matrix    rows of whole numbers
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator


def finite(value: Any) -> float | None:
    """``value`` where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _pair(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = finite(value[0]), finite(value[1])
    return None if low is None or high is None else (low, high)


def _numbers(value: Any) -> tuple[float | None, ...] | None:
    return tuple(finite(item) for item in value) if isinstance(value, list | tuple) else None


def _matrix(value: Any) -> tuple[tuple[int, ...], ...] | None:
    rows = value if isinstance(value, list | tuple) else ()
    sound = rows and all(isinstance(row, list | tuple) and all(_count(n) is not None for n in row) for row in rows)
    return tuple(tuple(row) for row in rows) if sound else None


Number = Annotated[float | None, BeforeValidator(finite)]
Count = Annotated[int | None, BeforeValidator(_count)]
Pair = Annotated[tuple[float, float] | None, BeforeValidator(_pair)]
Numbers = Annotated[tuple[float | None, ...] | None, BeforeValidator(_numbers)]
Matrix = Annotated[tuple[tuple[int, ...], ...] | None, BeforeValidator(_matrix)]


@dataclass(frozen=True)
class Refused:
    """A result that is there and does not count, and why. ``damaged``: it cannot be read at all."""

    path: Path
    why: str
    damaged: bool = False

    def __str__(self) -> str:
        return f"{self.path} {self.why}"
