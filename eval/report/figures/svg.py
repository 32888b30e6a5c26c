"""Panels as SVG: inline on the page, whose style sheet has the colours, and as files that carry them along.

Elements have class names in place of colours, so that the page's figures follow light, dark and print.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from eval.report.figures.model import (
    CATEGORY,
    CATEGORY_DARK,
    RAMP,
    RAMP_DARK,
    Figure,
    Mark,
    Panel,
    Reference,
    Series,
)
from pretrain.rundir import write_text

# Corners of the marks that are no circles, in radii: sizes that look alike.
CORNERS = (
    (),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0.0, -1.2), (1.2, 0.96), (-1.2, 0.96)),
    ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
)
DODGE_PX = 9.0  # between curves at the same place
SEED_PX = 5.0  # between seeds at the same place
LETTER_PX = 6.6  # width of a letter of a tick's text
TITLE_PX, KEY_PX = 24.0, 18.0  # rows above and below a panel in a file
MOST_PANELS = 24  # of very many panels the first are in the file: the page has them all

Point = tuple[float, float]
Pieces = Sequence[Sequence[Point]]


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


@functools.lru_cache(maxsize=10_000)  # a page that is built again draws only the panels that have changed
def draw(panel: Panel, frame: Frame, css: str = "") -> Markup:
    """``<svg>`` of ``panel``, without its title; ``css``: further classes.

    data-x and data-y are (pixel, value, pixel, value) of both ends of linear axes: from them the page's script tells
    the values of a curve.
    """
    label = f"{panel.title}. {panel.y_label} against {panel.x_label}."
    x = f"{_n(frame.left)} {panel.x.low:.6g} {_n(frame.right_x)} {panel.x.high:.6g}"
    y = f"{_n(frame.bottom_y)} {panel.y.low:.6g} {_n(frame.top)} {panel.y.high:.6g}"
    ends = {} if all(s.marked for s in panel.series) else {"data-x": x, "data-y": y, "data-x-label": panel.x_label}
    named = {"role": "img", "aria-label": label}
    box = {"viewBox": f"0 0 {_n(frame.width)} {_n(frame.height)}"}
    return Markup(_tag("svg", f"panel {css}".strip(), box | ends | named, "".join(shapes(panel, frame))))


def write_figure(figure: Figure, folder: Path) -> str:
    """Draw ``figure`` into ``folder`` as <name>.svg, whole; returns the file's name. Equal figures, equal files."""
    panels = figure.panels[:MOST_PANELS]
    columns = min(figure.columns, len(panels))
    frame = WIDE if columns == 1 else SMALL
    cell_px = frame.height + TITLE_PX + 2 * KEY_PX
    width, height = columns * frame.width, math.ceil(len(panels) / columns) * cell_px
    parts = [_tag("style", "", {}, escape(_file_style(), quote=False))]
    for index, panel in enumerate(panels):
        seen = [shape for shape in shapes(panel, frame) if 'class="catch"' not in shape]
        title = _text("title", (2, -9), panel.title[: int(frame.width / LETTER_PX)])
        keys = [(swatch(s.colour, s.palette), s.label) for s in panel.series] if len(panel.series) > 1 else []
        keys += [(no_result(), "no result")] if panel.missing else []
        at = f"translate({_n(index % columns * frame.width)} {_n(index // columns * cell_px + TITLE_PX)})"
        parts.append(_tag("g", "", {"transform": at}, "".join((title, *seen, *_legend(keys, frame)))))
    box = {"viewBox": f"0 0 {_n(width)} {_n(height)}", "width": _n(width), "height": _n(height)}
    head = {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": figure.description}
    write_text(folder / f"{figure.name}.svg", _tag("svg", "", head | box, "\n".join(parts)))
    return f"{figure.name}.svg"


def _legend(keys: Sequence[tuple[Markup, str]], frame: Frame) -> Iterator[str]:
    """Keys and labels side by side below a panel, in as many rows as they need."""
    left, row = 0.0, 0
    for drawn, label in keys:
        needed = 46 + LETTER_PX * len(label)
        if left and left + needed > frame.width:
            left, row = 0.0, row + 1
        y = frame.height + 4 + KEY_PX * row
        place = {"x": _n(left + 4), "y": _n(y), "width": "28", "height": "12"}
        yield str(drawn).replace("<svg", f"<svg{_attributes(place)}", 1)
        yield _text("tick", (left + 36, y + 10), label)
        left += needed


def style() -> str:
    """The page's style sheet, with the colours of the figures in light and dark."""
    text = resources.files("eval.report").joinpath("report.css").read_text(encoding="utf-8")
    for name, category, ramp in (("light", CATEGORY, RAMP), ("dark", CATEGORY_DARK, RAMP_DARK)):
        colours = " ".join(f"--{key}: {colour};" for key, colour in _colours(category, ramp).items())
        text = text.replace(f"/* {name} colours */", colours)
    return text


def _file_style() -> str:
    """The part of it that figures need, on paper: without variables, which not every program knows."""
    whole = style()
    rules = whole.partition("/* figures */\n")[2].partition("/* end of figures */")[0].splitlines()
    paper = dict(re.findall(r"--(\w+): (#\w+);", whole.partition("}")[0])) | {"card": "#ffffff"}
    own = _colours(CATEGORY, RAMP)
    found = [
        "svg { background: #ffffff; font-family: system-ui, sans-serif; }",
        ".title { font-size: 12px; font-weight: 600; }",
    ]
    for rule in rules:
        for name, colour in own.items() if "var(--k" in rule else [("", "")]:
            text = re.sub(r"var\(--k(, var\(--ink\))?\)", colour, f".{name}{rule}" if name else rule)
            found.append(re.sub(r"var\(--(\w+)\)", lambda variable: paper[variable[1]], text))
    return "\n".join(found)


def _colours(category: Sequence[str], ramp: Sequence[str]) -> dict[str, str]:
    """By class: c0 to c7 of the kinds, r0 to r7 of the ramp."""
    return {f"{kind}{i}": colour for kind, row in (("c", category), ("r", ramp)) for i, colour in enumerate(row)}


def shapes(panel: Panel, frame: Frame) -> Iterator[str]:
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
        yield _cross(at)
        yield _circle("catch", at, 8, missing.tip, focus=True)


# Signs of a legend.


def swatch(colour: int, palette: str) -> Markup:
    """A series' line and mark."""
    return _key(
        _path(f"line {colour_class(colour, palette)}", [((1, 6), (27, 6))]) + _mark(colour, palette, (14, 6), 4)
    )


def best_of_line() -> Markup:
    return _key(_circle("ring", (14, 6), 5))


def no_result() -> Markup:
    return _key(_cross((14, 6)))


def _key(drawn: str) -> Markup:
    return Markup(_tag("svg", "swatch", {"viewBox": "0 0 28 12", "aria-hidden": "true"}, drawn))


def colour_class(colour: int, palette: str) -> str:
    """``c3`` of the kinds, ``r3`` of the ramp."""
    return f"r{colour % len(RAMP)}" if palette == "ramp" else f"c{colour % len(CATEGORY)}"


# Parts of a panel.


def _axes(panel: Panel, frame: Frame) -> Iterator[str]:
    heights = [frame.y(panel.y.position(value)) for value in panel.y.ticks]
    yield _path("rule", [((frame.left, y), (frame.right_x, y)) for y in heights])
    for value, y in zip(panel.y.ticks, heights):
        yield _text("tick", (frame.left - 7, y + 4), panel.y.label(value), "end")
    places = [frame.x(panel.x.position(value)) for value in panel.x.ticks]
    strokes = [((x, frame.bottom_y), (x, frame.bottom_y + 4)) for x in places]
    yield _path("axis", [((frame.left, frame.bottom_y), (frame.right_x, frame.bottom_y)), *strokes])
    last, room = -1e9, (frame.right_x - frame.left) / max(len(panel.x.names), 1)
    for value, x in zip(panel.x.ticks, places):
        text = panel.x.label(value)
        most = max(3, int(room / LETTER_PX))
        if panel.x.names and len(text) > most:
            text = text[: most - 1] + "…"  # hovering shows the whole of it
        half = 3.6 * len(text)
        if x - half > last + 4:  # labels that would touch are left out
            yield _text("tick", (x, frame.bottom_y + 17), text, "middle")
            last = x + half
    yield _text("label", ((frame.left + frame.right_x) / 2, frame.height - 8), panel.x_label, "middle")
    yield _text("label", (2, frame.top - 14), panel.y_label)


def _reference(panel: Panel, frame: Frame, reference: Reference) -> Iterator[str]:
    position = panel.y.position(reference.y)
    text = f"{reference.label} {reference.y:.1f} %"
    if not 0 <= position <= 1:  # an arrow at the edge
        below = frame.bottom_y - (22 if panel.missing else 8)
        y, arrow = (frame.top + 10, "\N{UPWARDS ARROW}") if position > 1 else (below, "\N{DOWNWARDS ARROW}")
        yield _text("note", (frame.right_x - 2, y), f"{arrow} {text}", "end", reference.tip)
        return
    left_crowded, right_crowded = (_crowded(panel, position, side) for side in (0.0, 1.0))
    x, anchor = (frame.left + 4, "start") if right_crowded and not left_crowded else (frame.right_x - 2, "end")
    y = frame.y(position)
    across = (((frame.left, y), (frame.right_x, y)),)
    yield _path(f"reference d{reference.style % 3}", across)
    yield _path("catch", across, tip=reference.tip)
    yield _text("note", (x, y - 5 if y - 16 > frame.top else y + 13), text, anchor)


def _crowded(panel: Panel, height: float, side: float) -> bool:
    """True where marks of the left (0) or right (1) third of the panel are near ``height``."""
    places = [(panel.x.position(m.x), panel.y.position(m.y)) for series in panel.series for m in series.marks]
    return any(abs(x - side) < 1 / 3 and abs(y - height) < 0.12 for x, y in places)


def _marked(panel: Panel, frame: Frame, series: Series, offset: float) -> Iterator[str]:
    """Joined means with their intervals, single measurements beside them."""
    css = colour_class(series.colour, series.palette)

    def at(mark: Mark, shift: float = 0.0) -> Point:
        return frame.x(panel.x.position(mark.x)) + offset + shift, frame.y(panel.y.position(mark.y))

    pieces = [[at(mark) for mark in piece] for piece in series.pieces() if len(piece) > 1]
    if pieces:
        yield _path(f"line {css}", pieces)
    for mark in series.marks:
        if mark.low is not None and mark.high is not None:
            yield _bar(panel, frame, (mark.low, mark.high), at(mark)[0], css)
    seen: dict[float, int] = {}
    for mark in series.singles:
        number = seen[mark.x] = seen.get(mark.x, -1) + 1
        beside = at(mark, 9 + SEED_PX * (number % 3))
        yield _circle(f"single {css}", beside, 2.6)
        yield _circle("catch", beside, 5, mark.tip)
    for mark in series.marks:
        if mark.best:
            yield _circle(f"ring {css}", at(mark), frame.mark + 3.5)
        yield _mark(series.colour, series.palette, at(mark), frame.mark)
        yield _circle("catch", at(mark), 11, mark.tip, focus=True)


def _bar(panel: Panel, frame: Frame, ends: Sequence[float], x: float, css: str) -> str:
    """The interval with caps; an end outside the panel has no cap."""
    low, high = (panel.y.position(value) for value in ends)
    y_low, y_high = frame.y(max(low, 0.0)), frame.y(min(high, 1.0))
    caps = [((x - 4, y), (x + 4, y)) for y, inside in ((y_low, low >= 0), (y_high, high <= 1)) if inside]
    return _path(f"bar {css}", [((x, y_low), (x, y_high)), *caps])


def _curve(panel: Panel, frame: Frame, series: Series) -> Iterator[str]:
    """A line of many values, and the band around it where its marks have one."""
    css = colour_class(series.colour, series.palette)

    def at(x: float, y: float) -> Point:
        return frame.x(panel.x.position(x)), frame.y(min(max(panel.y.position(y), 0.0), 1.0))

    band = [(m.x, m.low, m.high) for m in series.marks if m.low is not None and m.high is not None]
    if len(band) > 1:
        outline = [at(x, high) for x, _, high in band] + [at(x, low) for x, low, _ in reversed(band)]
        yield _path(f"band {css}", [outline], closed=True)
    if series.marks:
        yield _path(f"curve {css}", [[at(mark.x, mark.y) for mark in series.marks]], label=series.label)


def _mark(colour: int, palette: str, at: Point, radius: float) -> str:
    """The mark of a series; its form changes with its colour."""
    css, corners = f"mark {colour_class(colour, palette)}", CORNERS[colour % len(CORNERS)]
    if not corners:
        return _circle(css, at, radius)
    return _path(css, [[(at[0] + dx * radius, at[1] + dy * radius) for dx, dy in corners]], closed=True)


def _cross(at: Point) -> str:
    """The sign of a missing result."""
    x, y = at
    return _path("missing", [((x - 4, y - 4), (x + 4, y + 4)), ((x + 4, y - 4), (x - 4, y + 4))])


# Elements. ``tip``: what hovering shows.


def _path(css: str, pieces: Pieces, *, closed: bool = False, tip: str = "", label: str = "") -> str:
    """Pieces of one line, or the outline of one area; ``label``: a curve that hovering reads."""
    texts = [[f"{_n(x)} {_n(y)}" for x, y in piece] for piece in pieces]
    d = "".join(f"M{first}" + ("L" + " ".join(rest) if rest else "") + "Z" * closed for first, *rest in texts)
    return _tag("path", css, {"d": d, "data-label": label, "data-tip": tip})


def _circle(css: str, at: Point, radius: float, tip: str = "", *, focus: bool = False) -> str:
    """``focus``: reached with the keyboard too; the page's script names it by its tip."""
    where = {"cx": _n(at[0]), "cy": _n(at[1]), "r": _n(radius)}
    return _tag("circle", css, where | ({"tabindex": "0", "role": "img"} if focus else {}) | {"data-tip": tip})


def _text(css: str, at: Point, text: str, anchor: str = "start", tip: str = "") -> str:
    """``anchor``: which end of the text stands at ``at``."""
    side = {} if anchor == "start" else {"text-anchor": anchor}
    return _tag("text", css, {"x": _n(at[0]), "y": _n(at[1])} | side | {"data-tip": tip}, escape(text))


def _tag(name: str, css: str, attributes: dict[str, str], body: str = "") -> str:
    head = f"<{name}{_attributes({'class': css} | attributes)}"
    return f"{head}>{body}</{name}>" if body else f"{head}/>"


def _attributes(values: dict[str, str]) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items() if value)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
