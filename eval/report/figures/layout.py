"""Where everything of a panel stands, in pixels: one drawing, which `svg` writes for the page and `png` for files.

Shapes carry class names in place of colours: the page's style sheet knows them in light and dark, `png` for files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.report.figures.model import CATEGORY, RAMP, Mark, Panel, Reference, Series

SHAPES = ("circle", "square", "triangle", "diamond")
# Corners of the marks that are no circles, in radii: sizes that look alike.
CORNERS = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0.0, -1.2), (1.2, 0.96), (-1.2, 0.96)),
    "diamond": ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
}
DODGE_PX = 9.0  # between curves at the same place
SEED_PX = 5.0  # between seeds at the same place
LETTER_PX = 6.6  # width of a letter of a tick's text

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Pieces of one line, or the outline of one area where ``closed``; ``label``: a curve that hovering reads."""

    css: str
    pieces: tuple[tuple[Point, ...], ...]
    closed: bool = False
    tip: str = ""
    label: str = ""


@dataclass(frozen=True)
class Circle:
    """``focus``: reached with the keyboard too."""

    css: str
    centre: Point
    radius: float
    tip: str = ""
    focus: bool = False


@dataclass(frozen=True)
class Text:
    """``anchor``: which end of the text stands at ``at``."""

    css: str
    at: Point
    text: str
    anchor: str = "start"
    tip: str = ""


Shape = Line | Circle | Text


@dataclass(frozen=True)
class Frame:
    """Size of a panel in px, and where its axes are inside it."""

    width: float
    height: float
    left: float = 50.0
    right: float = 14.0
    top: float = 36.0
    bottom: float = 46.0
    mark: float = 5.0  # radius of a mark

    @property
    def bottom_y(self) -> float:
        return self.height - self.bottom

    @property
    def right_x(self) -> float:
        return self.width - self.right

    def x(self, position: float) -> float:
        """Pixels of a horizontal position between 0 and 1."""
        return self.left + position * (self.right_x - self.left)

    def y(self, position: float) -> float:
        """Pixels of a vertical position between 0 (below) and 1."""
        return self.bottom_y - position * (self.bottom_y - self.top)


WIDE = Frame(760, 400)
NARROW = Frame(360, 330, left=44, right=10)
SMALL = Frame(340, 234, left=44, right=10, top=30, bottom=42, mark=3.6)


def shapes(panel: Panel, frame: Frame) -> Iterator[Shape]:
    """Everything of ``panel`` but its title, the lowest first."""
    yield from _axes(panel, frame)
    for reference in sorted(panel.references, key=lambda r: r.y):
        yield from _reference(panel, frame, reference)
    for number, series in enumerate(panel.series):
        offset = (number - (len(panel.series) - 1) / 2) * DODGE_PX if panel.dodge else 0.0
        yield from _marked(panel, frame, series, offset) if series.marked else _curve(panel, frame, series)
    seen: dict[float, int] = {}
    for missing in panel.missing:
        seen[missing.x] = seen.get(missing.x, 0) + 1
        at = frame.x(panel.x.position(missing.x)), frame.bottom_y + 3 - 12 * seen[missing.x]
        yield cross(at)
        yield Circle("catch", at, 8, missing.tip, focus=True)


def swatch(colour: int, palette: str) -> tuple[Shape, ...]:
    """A series' line and mark for a legend, 28 px wide and 12 high."""
    line = Line(f"line {colour_class(colour, palette)}", (((1, 6), (27, 6)),))
    return line, mark_shape(colour, palette, (14, 6), 4)


def cross(at: Point) -> Line:
    """The sign of a missing result."""
    x, y = at
    return Line("missing", (((x - 4, y - 4), (x + 4, y + 4)), ((x + 4, y - 4), (x - 4, y + 4))))


def mark_shape(colour: int, palette: str, at: Point, radius: float) -> Shape:
    """The mark of a series; its form changes with its colour."""
    css, form = f"mark {colour_class(colour, palette)}", SHAPES[colour % len(SHAPES)]
    if form == "circle":
        return Circle(css, at, radius)
    corners = tuple((at[0] + dx * radius, at[1] + dy * radius) for dx, dy in CORNERS[form])
    return Line(css, (corners,), closed=True)


def colour_class(colour: int, palette: str) -> str:
    """``c3`` of the kinds, ``r3`` of the ramp."""
    return f"r{colour % len(RAMP)}" if palette == "ramp" else f"c{colour % len(CATEGORY)}"


def _axes(panel: Panel, frame: Frame) -> Iterator[Shape]:
    heights = [frame.y(panel.y.position(value)) for value in panel.y.ticks]
    yield Line("rule", tuple(((frame.left, y), (frame.right_x, y)) for y in heights))
    for value, y in zip(panel.y.ticks, heights):
        yield Text("tick", (frame.left - 7, y + 4), panel.y.label(value), "end")
    places = [frame.x(panel.x.position(value)) for value in panel.x.ticks]
    strokes = [((x, frame.bottom_y), (x, frame.bottom_y + 4)) for x in places]
    yield Line("axis", (((frame.left, frame.bottom_y), (frame.right_x, frame.bottom_y)), *strokes))
    last, room = -1e9, (frame.right_x - frame.left) / max(len(panel.x.names), 1)
    for value, x in zip(panel.x.ticks, places):
        text = panel.x.label(value)
        most = max(3, int(room / LETTER_PX))
        if panel.x.names and len(text) > most:
            text = text[: most - 1] + "…"  # hovering shows the whole of it
        half = 3.6 * len(text)
        if x - half > last + 4:  # labels that would touch are left out
            yield Text("tick", (x, frame.bottom_y + 17), text, "middle")
            last = x + half
    yield Text("label", ((frame.left + frame.right_x) / 2, frame.height - 8), panel.x_label, "middle")
    yield Text("label", (2, frame.top - 14), panel.y_label)


def _reference(panel: Panel, frame: Frame, reference: Reference) -> Iterator[Shape]:
    position = panel.y.position(reference.y)
    text = f"{reference.label} {reference.y:.1f} %"
    if not 0 <= position <= 1:  # an arrow at the edge
        below = frame.bottom_y - (22 if panel.missing else 8)
        y, arrow = (frame.top + 10, "\N{UPWARDS ARROW}") if position > 1 else (below, "\N{DOWNWARDS ARROW}")
        yield Text("note", (frame.right_x - 2, y), f"{arrow} {text}", "end", reference.tip)
        return
    left_crowded, right_crowded = (_crowded(panel, position, side) for side in (0.0, 1.0))
    x, anchor = (frame.left + 4, "start") if right_crowded and not left_crowded else (frame.right_x - 2, "end")
    y = frame.y(position)
    across = (((frame.left, y), (frame.right_x, y)),)
    yield Line(f"reference d{reference.style % 3}", across)
    yield Line("catch", across, tip=reference.tip)
    yield Text("note", (x, y - 5 if y - 16 > frame.top else y + 13), text, anchor)


def _crowded(panel: Panel, height: float, side: float) -> bool:
    """True where marks of the left (0) or right (1) third of the panel are near ``height``."""
    places = [(panel.x.position(m.x), panel.y.position(m.y)) for series in panel.series for m in series.marks]
    return any(abs(x - side) < 1 / 3 and abs(y - height) < 0.12 for x, y in places)


def _marked(panel: Panel, frame: Frame, series: Series, offset: float) -> Iterator[Shape]:
    """Joined means with their intervals, single measurements beside them."""
    css = colour_class(series.colour, series.palette)

    def at(mark: Mark, shift: float = 0.0) -> Point:
        return frame.x(panel.x.position(mark.x)) + offset + shift, frame.y(panel.y.position(mark.y))

    pieces = tuple(tuple(at(mark) for mark in piece) for piece in series.pieces() if len(piece) > 1)
    if pieces:
        yield Line(f"line {css}", pieces)
    for mark in series.marks:
        if mark.low is not None and mark.high is not None:
            yield _bar(panel, frame, (mark.low, mark.high), at(mark)[0], css)
    seen: dict[float, int] = {}
    for mark in series.singles:
        number = seen[mark.x] = seen.get(mark.x, -1) + 1
        beside = at(mark, 9 + SEED_PX * (number % 3))
        yield Circle(f"single {css}", beside, 2.6)
        yield Circle("catch", beside, 5, mark.tip)
    for mark in series.marks:
        if mark.best:
            yield Circle(f"ring {css}", at(mark), frame.mark + 3.5)
        yield mark_shape(series.colour, series.palette, at(mark), frame.mark)
        yield Circle("catch", at(mark), 11, mark.tip, focus=True)


def _bar(panel: Panel, frame: Frame, ends: Sequence[float], x: float, css: str) -> Line:
    """The interval with caps; an end outside the panel has no cap."""
    low, high = (panel.y.position(value) for value in ends)
    y_low, y_high = frame.y(max(low, 0.0)), frame.y(min(high, 1.0))
    caps = [((x - 4, y), (x + 4, y)) for y, inside in ((y_low, low >= 0), (y_high, high <= 1)) if inside]
    return Line(f"bar {css}", (((x, y_low), (x, y_high)), *caps))


def _curve(panel: Panel, frame: Frame, series: Series) -> Iterator[Shape]:
    """A line of many values, and the band around it where its marks have one."""
    css = colour_class(series.colour, series.palette)

    def at(x: float, y: float) -> Point:
        return frame.x(panel.x.position(x)), frame.y(min(max(panel.y.position(y), 0.0), 1.0))

    band = [mark for mark in series.marks if mark.low is not None and mark.high is not None]
    if len(band) > 1:
        upper = [at(m.x, m.high) for m in band if m.high is not None]
        lower = [at(m.x, m.low) for m in band if m.low is not None]
        yield Line(f"band {css}", ((*upper, *reversed(lower)),), closed=True)
    if series.marks:
        yield Line(f"curve {css}", (tuple(at(mark.x, mark.y) for mark in series.marks),), label=series.label)
