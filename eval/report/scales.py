"""Axes: from values to positions between 0 and 1, with ticks that a person would choose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

ScaleName = Literal["log2", "log", "linear", "category"]  # category: 0, 1, 2, ... with names


@dataclass(frozen=True)
class Axis:
    """A range of values, linear or logarithmic, and its ticks."""

    scale: ScaleName
    low: float
    high: float
    ticks: tuple[float, ...]
    names: tuple[str, ...] = ()  # of the places 0, 1, 2, ... of an axis without numbers

    def label(self, tick: float) -> str:
        """Text of a tick."""
        return self.names[round(tick)] if self.names else tick_label(tick)

    def position(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``."""
        low, high, value = (self._plain(v) for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def _plain(self, value: float) -> float:
        return value if self.scale in ("linear", "category") else math.log2(value)


def category_axis(values: Iterable[float], scale: ScaleName) -> Axis:
    """Horizontal axis with a tick at each of the places that were measured, and a margin on both sides."""
    places = sorted(set(values)) or [1.0]
    if scale in ("log2", "log") and places[0] <= 0:
        scale = "linear"
    if scale == "linear":
        margin = 0.08 * (places[-1] - places[0]) or 0.5 * abs(places[0]) or 1.0
        return Axis(scale, places[0] - margin, places[-1] + margin, _sparse(places))
    margin = 0.08 * math.log2(places[-1] / places[0]) or 1.0
    return Axis(scale, places[0] * 2**-margin, places[-1] * 2**margin, _sparse(places))


def named_axis(names: Sequence[str]) -> Axis:
    """Horizontal axis of places that have names instead of numbers, in their order."""
    last = max(len(names) - 1, 0)
    return Axis("category", -0.4, last + 0.4, tuple(map(float, range(len(names)))), tuple(names))


def value_axis(
    values: Iterable[float],
    *,
    ticks: int = 5,
    floor: float | None = None,
    top: float | None = None,
    margins: tuple[float, float] = (0.08, 0.08),
) -> Axis:
    """Linear axis around ``values`` with round ticks; it stays within ``floor`` and ``top``.

    margins: room below and above, as fractions of the values' range.
    """
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    span = high - low or max(abs(high) * 0.02, 0.5)
    low, high = low - margins[0] * span, high + margins[1] * span
    bounded_low = low if floor is None else max(low, floor)
    bounded_high = high if top is None else min(high, top)
    if bounded_high > bounded_low:  # else all values lie on or beyond a bound, and it would leave no axis
        low, high = bounded_low, bounded_high
    elif high <= low:
        low, high = low - span / 2, high + span / 2
    return Axis("linear", low, high, round_ticks(low, high, ticks))


def round_ticks(low: float, high: float, wanted: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten between ``low`` and ``high``, about ``wanted`` of them."""
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(index * step, 10) for index in range(first, last + 1))


def tick_label(value: float) -> str:
    """Short text of a tick: 64, 4,096, 0.05, 1.5."""
    if value == round(value) and abs(value) < 1e6:
        return f"{round(value):,}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _sparse(places: Sequence[float], most: int = 12) -> tuple[float, ...]:
    every = math.ceil(len(places) / most)
    return tuple(places[::every])
