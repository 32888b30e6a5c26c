"""A panel as inline SVG: colours come from the page's style sheet, so that it follows light, dark and print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from eval.report.figures.model import CATEGORY, RAMP, Mark, Panel, Reference, Series

SHAPES = ("circle", "square", "triangle", "diamond")
DODGE_PX = 9.0  # between curves at the same place
SEED_PX = 5.0  # between seeds at the same place


@dataclass(frozen=True)
class Frame:
    """Size of a panel in px, and where its axes are inside it."""

    width: float
    height: float
    left: float = 50.0
    right: float = 14.0
    top: float = 30.0
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


WIDE = Frame(760, 400, top=36)
NARROW = Frame(360, 330, left=44, right=10, top=36)
SMALL = Frame(340, 234, left=44, right=10, top=30, bottom=42, mark=3.6)


def draw(panel: Panel, frame: Frame, *, css_class: str = "") -> str:
    """``<svg>`` of ``panel``, without its title."""
    parts = [*_axes(panel, frame)]
    parts += _references(panel, frame)
    for number, series in enumerate(panel.series):
        offset = (number - (len(panel.series) - 1) / 2) * DODGE_PX if panel.dodge else 0.0
        parts += _series(panel, frame, series, offset)
    parts += _missing(panel, frame)
    label = escape(f"{panel.title}. {panel.y_label} against {panel.x_label}.", quote=True)
    return (
        f'<svg class="panel {css_class}" viewBox="0 0 {_n(frame.width)} {_n(frame.height)}" role="img" '
        f'aria-label="{label}" data-x-label="{escape(panel.x_label, quote=True)}">' + "".join(parts) + "</svg>"
    )


def swatch(colour: int, palette: str) -> str:
    """A small ``<svg>`` of a series' line and mark, for legends."""
    mark = _shape(colour, palette, 14, 6, 4)
    return (
        f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true"><line class="line {_css(colour, palette)}" '
        f'x1="1" x2="27" y1="6" y2="6"/>{mark}</svg>'
    )


def _axes(panel: Panel, frame: Frame) -> list[str]:
    parts = []
    for value in panel.y.ticks:
        y = frame.y(panel.y.position(value))
        parts.append(f'<line class="rule" x1="{_n(frame.left)}" x2="{_n(frame.right_x)}" y1="{_n(y)}" y2="{_n(y)}"/>')
        parts.append(_text(frame.left - 7, y + 4, panel.y.label(value), "tick", "end"))
    parts.append(
        f'<line class="axis" x1="{_n(frame.left)}" x2="{_n(frame.right_x)}" y1="{_n(frame.bottom_y)}" '
        f'y2="{_n(frame.bottom_y)}"/>'
    )
    last = -1e9
    for value in panel.x.ticks:
        x, text = frame.x(panel.x.position(value)), panel.x.label(value)
        parts.append(
            f'<line class="axis" x1="{_n(x)}" x2="{_n(x)}" y1="{_n(frame.bottom_y)}" y2="{_n(frame.bottom_y + 4)}"/>'
        )
        if panel.x.names:
            text = _shortened(text, (frame.right_x - frame.left) / max(len(panel.x.names), 1))
        half = 3.6 * len(text)
        if x - half > last + 4:  # labels that would touch are left out
            parts.append(_text(x, frame.bottom_y + 17, text, "tick", "middle"))
            last = x + half
    middle = (frame.left + frame.right_x) / 2
    parts.append(_text(middle, frame.height - 8, panel.x_label, "label", "middle"))
    parts.append(_text(2, frame.top - 14, panel.y_label, "label", "start"))
    return parts


def _shortened(text: str, width_px: float) -> str:
    """``text`` cut to what fits; hovering tells the whole of it."""
    most = max(3, int(width_px / 6.6))
    return text if len(text) <= most else text[: most - 1] + "…"


def _references(panel: Panel, frame: Frame) -> list[str]:
    parts = []
    for reference in sorted(panel.references, key=lambda r: r.y):
        parts += _reference(panel, frame, reference)
    return parts


def _reference(panel: Panel, frame: Frame, reference: Reference) -> list[str]:
    position = panel.y.position(reference.y)
    crowded = [_crowded(panel, position, side) for side in (0.0, 1.0)]
    x, anchor = (frame.left + 4, "start") if crowded[1] and not crowded[0] else (frame.right_x - 2, "end")
    tip = _tip(reference.tip)
    text = f"{reference.label} {reference.y:.1f} %"
    if 0 <= position <= 1:
        y = frame.y(position)
        above = y - 5 if y - 16 > frame.top else y + 13
        return [
            f'<line class="reference d{reference.style}" x1="{_n(frame.left)}" x2="{_n(frame.right_x)}" y1="{_n(y)}" '
            f'y2="{_n(y)}"/><line class="catch" x1="{_n(frame.left)}" x2="{_n(frame.right_x)}" y1="{_n(y)}" '
            f'y2="{_n(y)}"{tip}/>',
            _text(x, above, text, "note", anchor),
        ]
    below = frame.bottom_y - (22 if panel.missing else 8)
    outside, arrow = (frame.top + 10, "\N{UPWARDS ARROW}") if position > 1 else (below, "\N{DOWNWARDS ARROW}")
    return [_text(frame.right_x - 2, outside, f"{arrow} {text}", "note", "end", tip)]


def _crowded(panel: Panel, height: float, side: float) -> bool:
    """True where marks of the left (0) or right (1) third of the panel are near ``height``."""
    places = [(panel.x.position(m.x), panel.y.position(m.y)) for series in panel.series for m in series.marks]
    return any(abs(x - side) < 1 / 3 and abs(y - height) < 0.12 for x, y in places)


def _series(panel: Panel, frame: Frame, series: Series, offset: float) -> list[str]:
    css = _css(series.colour, series.palette)
    if not series.marked:
        return [_curve(panel, frame, series, css)]
    parts = []
    places = [(frame.x(panel.x.position(m.x)) + offset, frame.y(panel.y.position(m.y)), m) for m in series.marks]
    where = {id(mark): f"{_n(x)},{_n(y)}" for x, y, mark in places}
    for piece in series.pieces():
        if len(piece) > 1:
            points = " ".join(where[id(mark)] for mark in piece)
            parts.append(f'<polyline class="line {css}" points="{points}"/>')
    parts += [_bar(panel, frame, mark, x, css) for x, _, mark in places]
    parts += _singles(panel, frame, series, offset, css)
    for x, y, mark in places:
        if mark.best:
            parts.append(f'<circle class="ring {css}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(frame.mark + 3.5)}"/>')
        parts.append(_shape(series.colour, series.palette, x, y, frame.mark))
        parts.append(
            f'<circle class="catch" cx="{_n(x)}" cy="{_n(y)}" r="11" tabindex="0" role="img"'
            f'{_tip(mark.tip)} aria-label="{escape(mark.tip, quote=True)}"/>'
        )
    return parts


def _bar(panel: Panel, frame: Frame, mark: Mark, x: float, css: str) -> str:
    """The interval with caps, where there is one; an end outside the panel has no cap."""
    if mark.low is None or mark.high is None:
        return ""
    low, high = (panel.y.position(value) for value in (mark.low, mark.high))
    y_low, y_high = frame.y(max(low, 0.0)), frame.y(min(high, 1.0))
    text = f'<line class="bar {css}" x1="{_n(x)}" x2="{_n(x)}" y1="{_n(y_low)}" y2="{_n(y_high)}"/>'
    for y, inside in ((y_low, low >= 0), (y_high, high <= 1)):
        if inside:
            text += f'<line class="bar {css}" x1="{_n(x - 4)}" x2="{_n(x + 4)}" y1="{_n(y)}" y2="{_n(y)}"/>'
    return text


def _singles(panel: Panel, frame: Frame, series: Series, offset: float, css: str) -> list[str]:
    """Single seeds beside the mean, each with a place of its own."""
    parts = []
    seen: dict[float, int] = {}
    for mark in series.singles:
        number = seen.get(mark.x, 0)
        seen[mark.x] = number + 1
        shift = offset + 9 + SEED_PX * (number % 3)
        x, y = frame.x(panel.x.position(mark.x)) + shift, frame.y(panel.y.position(mark.y))
        parts.append(f'<circle class="single {css}" cx="{_n(x)}" cy="{_n(y)}" r="2.6"/>')
        parts.append(f'<circle class="catch" cx="{_n(x)}" cy="{_n(y)}" r="5"{_tip(mark.tip)}/>')
    return parts


def _curve(panel: Panel, frame: Frame, series: Series, css: str) -> str:
    """A line of many values; the page's script reads them from data-x and data-y."""
    places = " ".join(
        f"{_n(frame.x(panel.x.position(m.x)))},{_n(frame.y(min(max(panel.y.position(m.y), 0.0), 1.0)))}"
        for m in series.marks
    )
    x = " ".join(f"{m.x:.4g}" for m in series.marks)
    y = " ".join(f"{m.y:.4g}" for m in series.marks)
    label = escape(series.label, quote=True)
    return f'<polyline class="curve {css}" points="{places}" data-label="{label}" data-x="{x}" data-y="{y}"/>'


def _missing(panel: Panel, frame: Frame) -> list[str]:
    parts = []
    seen: dict[float, int] = {}
    for missing in panel.missing:
        number = seen.get(missing.x, 0)
        seen[missing.x] = number + 1
        x = frame.x(panel.x.position(missing.x))
        y = frame.bottom_y - 9 - 12 * number
        parts.append(
            f'<path class="missing" d="M{_n(x - 4)} {_n(y - 4)}l8 8m0 -8l-8 8"/>'
            f'<circle class="catch" cx="{_n(x)}" cy="{_n(y)}" r="8" tabindex="0" role="img"'
            f'{_tip(missing.tip)} aria-label="{escape(missing.tip, quote=True)}"/>'
        )
    return parts


def _shape(colour: int, palette: str, x: float, y: float, size: float) -> str:
    css = f'class="mark {_css(colour, palette)}"'
    match SHAPES[colour % len(SHAPES)]:
        case "circle":
            return f'<circle {css} cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}"/>'
        case "square":
            s = size * 0.9
            return f'<rect {css} x="{_n(x - s)}" y="{_n(y - s)}" width="{_n(2 * s)}" height="{_n(2 * s)}"/>'
        case "triangle":
            s = size * 1.2
            corners = [(x, y - s), (x + s, y + 0.8 * s), (x - s, y + 0.8 * s)]
        case _:
            s = size * 1.25
            corners = [(x, y - s), (x + s, y), (x, y + s), (x - s, y)]
    return f'<polygon {css} points="{_points(corners)}"/>'


def _points(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in corners)


def _css(colour: int, palette: str) -> str:
    return f"r{colour % len(RAMP)}" if palette == "ramp" else f"c{colour % len(CATEGORY)}"


def _tip(text: str) -> str:
    return f' data-tip="{escape(text, quote=True)}"' if text else ""


def _text(x: float, y: float, text: str, css: str, anchor: str, extra: str = "") -> str:
    return f'<text class="{css}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
