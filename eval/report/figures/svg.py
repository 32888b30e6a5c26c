"""A panel as inline SVG: colours come from the page's style sheet, so that it follows light, dark and print."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from html import escape

from markupsafe import Markup

from eval.report.figures.layout import Circle, Frame, Line, Point, Shape, Text, shapes
from eval.report.figures.model import Panel


@functools.lru_cache(maxsize=10_000)  # a page that is built again draws only the panels that have changed
def draw(panel: Panel, frame: Frame, css: str = "") -> Markup:
    """``<svg>`` of ``panel``, without its title; ``css``: further classes.

    data-x and data-y are (pixel, value, pixel, value) of both ends of linear axes: from them the page's script tells
    the values of a curve.
    """
    label = f"{panel.title}. {panel.y_label} against {panel.x_label}."
    x = f"{_n(frame.left)} {panel.x.low:.6g} {_n(frame.right_x)} {panel.x.high:.6g}"
    y = f"{_n(frame.bottom_y)} {panel.y.low:.6g} {_n(frame.top)} {panel.y.high:.6g}"
    head = _attributes({"class": f"panel {css}".strip(), "viewBox": f"0 0 {_n(frame.width)} {_n(frame.height)}"})
    if any(not series.marked for series in panel.series):
        head += _attributes({"data-x": x, "data-y": y, "data-x-label": panel.x_label})
    return Markup(
        f"<svg{head}{_attributes({'role': 'img', 'aria-label': label})}>{elements(shapes(panel, frame))}</svg>"
    )


def key(drawn: Iterable[Shape]) -> Markup:
    """A small ``<svg>`` for a legend."""
    return Markup(f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{elements(drawn)}</svg>')


def elements(drawn: Iterable[Shape]) -> str:
    """The shapes, as SVG elements."""
    return "".join(map(_element, drawn))


def _element(shape: Shape) -> str:
    tip = {"data-tip": shape.tip} if shape.tip else {}
    match shape:
        case Line():
            path = "".join(_path(piece) + "Z" * shape.closed for piece in shape.pieces)
            label = {"data-label": shape.label} if shape.label else {}
            return f"<path{_attributes({'class': shape.css, 'd': path, **label, **tip})}/>"
        case Circle(centre=(x, y)):
            focus = {"tabindex": "0", "role": "img"} if shape.focus else {}  # the script names it by its tip
            where = {"class": shape.css, "cx": _n(x), "cy": _n(y), "r": _n(shape.radius)}
            return f"<circle{_attributes({**where, **focus, **tip})}/>"
        case Text(at=(x, y)):
            anchor = {} if shape.anchor == "start" else {"text-anchor": shape.anchor}
            where = {"class": shape.css, "x": _n(x), "y": _n(y)}
            return f"<text{_attributes({**where, **anchor, **tip})}>{escape(shape.text)}</text>"


def _path(points: Sequence[Point]) -> str:
    """``M1 2L3 4 5 6``."""
    (x, y), *rest = points
    return f"M{_n(x)} {_n(y)}" + ("L" + " ".join(f"{_n(x)} {_n(y)}" for x, y in rest) if rest else "")


def _attributes(values: dict[str, str]) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items())


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
