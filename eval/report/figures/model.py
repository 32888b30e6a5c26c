"""What a figure shows: panels with axes, series and marks. `svg` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

ScaleName = Literal["log2", "log", "linear", "category"]  # category: 0, 1, 2, ... with names


@dataclass(frozen=True)
class Axis:
    """From values to positions between 0 and 1, linear or logarithmic, with ticks that a person would choose."""

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


def round_ticks(low: float, high: float, expected: int) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten between ``low`` and ``high``, about ``expected`` of them."""
    rough = (high - low) / max(expected, 1)
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


@dataclass(frozen=True)
class Mark:
    """A value with its interval; ``tip`` is what hovering shows, lines separated by newlines."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""
    best: bool = False  # ringed: the best of a grid that was run

    @property
    def heights(self) -> list[float]:
        """All that the vertical axis has to hold."""
        return [value for value in (self.y, self.low, self.high) if value is not None]


@dataclass(frozen=True)
class Series:
    """Marks joined by a line, and the single measurements behind them. ``colour``: position in its palette.

    Without ``marked`` it is a curve of many values, with a band from their lows to their highs.
    """

    label: str
    colour: int
    marks: tuple[Mark, ...]
    singles: tuple[Mark, ...] = ()
    palette: str = "category"  # or "ramp": an ordered quantity, pale to strong
    marked: bool = True
    joined: bool = True
    gaps: tuple[float, ...] = ()  # places without a result: the line does not bridge them

    def pieces(self) -> list[tuple[Mark, ...]]:
        """Marks by increasing x, parted where a result is missing in between; alone where nothing joins them."""
        if not self.joined:
            return [(mark,) for mark in self.marks]
        ordered = sorted(self.marks, key=lambda mark: mark.x)
        pieces: list[list[Mark]] = []
        for previous, mark in zip([None, *ordered], ordered):
            if previous is None or any(previous.x < gap < mark.x for gap in self.gaps):
                pieces.append([])
            pieces[-1].append(mark)
        return [tuple(piece) for piece in pieces]


@dataclass(frozen=True)
class Reference:
    """A dashed horizontal line; at the edge of the panel with an arrow where it lies outside."""

    label: str
    y: float
    tip: str
    style: int


@dataclass(frozen=True)
class Missing:
    """A point that should be at ``x`` and is not: shown below the axis, never as a value."""

    x: float
    tip: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    references: tuple[Reference, ...] = ()
    missing: tuple[Missing, ...] = ()
    footnote: str = ""
    dodge: bool = False  # move the series apart, so that their intervals do not cover each other


@dataclass(frozen=True)
class Figure:
    """Panels side by side. ``columns``: how many fit next to each other on a wide page."""

    name: str  # of its files
    description: str  # for those who do not see it
    panels: tuple[Panel, ...]
    columns: int = 1
    legend: tuple[tuple[str, int, str], ...] = ()  # (label, colour, palette), shared by the panels
    per_panel_legend: bool = True  # each of several panels names its own series
    headline: bool = False  # a file beside the page too


# Colours for the page (light and dark) and for paper. Each has 3 : 1 on its background.
# Kinds that have no order; a mark's shape changes with the colour, so that neither has to be told apart alone.
CATEGORY = ("#1f5fbf", "#c8541b", "#17805a", "#8a3fa0", "#a07800", "#0f7f96", "#b82f6b", "#555a61")
CATEGORY_DARK = ("#7db0ff", "#ff9a66", "#5fcf9a", "#d29bea", "#e3c04d", "#5cc8de", "#ff8fbd", "#b5bac2")
# An ordered quantity: hue and lightness change together, also for those who do not see hues.
RAMP = ("#3f9bb8", "#2f83c0", "#2a6cc0", "#3456b0", "#40409c", "#452e84", "#421f69", "#38134c")
RAMP_DARK = ("#6472b8", "#5a8acb", "#4fa2d4", "#4bb8d2", "#5dccc5", "#87deb5", "#b9ecaa", "#eef5b4")


def ramp_step(rank: int, number: int) -> int:
    """Place in the ramp of the ``rank``-th of ``number`` ordered values, spread over all of it."""
    return round(rank * (len(RAMP) - 1) / (number - 1)) if number > 1 else 0
