"""A figure as files: PNG for Markdown, SVG for a paper, drawn as on the page. Only here matplotlib is imported."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eval.report.figures.layout import SMALL, WIDE, Circle, Line, Shape, Text, cross, shapes, swatch
from eval.report.figures.model import CATEGORY, RAMP, Figure
from pretrain.rundir import whole_file

MOST_PANELS = 24  # of very many panels the first are in the files: the page has them all
PX = 72 / 100  # points of one pixel: 100 px are an inch
TITLE_PX, KEY_PX, LETTER_PX = 22.0, 18.0, 6.2
DASHES = {"d0": (0, (5, 4)), "d1": (0, (1.5, 3)), "d2": (0, (8, 3, 1.5, 3))}
SOFT, HAIR = "#5b6067", "#e6e7e9"
# What a class looks like on paper: colours (None: its own, of c0 to c7 or r0 to r7) and width of the stroke in px.
STYLES: dict[str, tuple[str | None, str | None, float]] = {
    "rule": ("none", HAIR, 1.0),
    "axis": ("none", SOFT, 1.0),
    "line": ("none", None, 2.0),
    "curve": ("none", None, 1.6),
    "band": (None, "none", 0.0),
    "bar": ("none", None, 1.5),
    "mark": (None, "white", 1.5),
    "ring": ("none", None, 1.6),
    "single": ("white", None, 1.3),
    "reference": ("none", "#6b7078", 1.4),
    "missing": ("none", "#c0262d", 2.0),
}


def write_figure(figure: Figure, folder: Path) -> list[str]:
    """Draw ``figure`` into ``folder`` as <name>.png and <name>.svg, each whole; returns the files' names.

    Equal figures make equal files.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    panels = figure.panels[:MOST_PANELS]
    columns = min(figure.columns, len(panels))
    frame = WIDE if columns == 1 else SMALL
    cell_px = frame.height + TITLE_PX + KEY_PX * 2
    width, height = columns * frame.width, math.ceil(len(panels) / columns) * cell_px
    canvas = Canvas(figsize=(width / 100, height / 100), dpi=150, facecolor="white")
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for index, panel in enumerate(panels):
        x, y = index % columns * frame.width, index // columns * cell_px
        _draw(axes, [Text("title", (2, 15), panel.title[: int(frame.width / LETTER_PX)])], x, y)
        _draw(axes, shapes(panel, frame), x, y + TITLE_PX)
        keys = [(series.label, swatch(series.colour, series.palette)) for series in panel.series]
        keys = (keys if len(keys) > 1 else []) + ([("no result", (cross((14, 6)),))] if panel.missing else [])
        _legend(axes, keys, x, y + TITLE_PX + frame.height, frame.width)
    with whole_file(folder / f"{figure.name}.png") as file:
        canvas.savefig(file, format="png", metadata={"Software": None})
    # Text stays text, in whatever font the paper has.
    with (
        rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none"}),
        whole_file(folder / f"{figure.name}.svg") as file,
    ):
        canvas.savefig(file, format="svg", metadata={"Date": None})
    return [f"{figure.name}.png", f"{figure.name}.svg"]


def _legend(axes: Any, keys: list[tuple[str, tuple[Shape, ...]]], x: float, y: float, width: float) -> None:
    """Keys and labels side by side, in as many rows as they need."""
    left, row = 0.0, 0
    for label, key in keys:
        needed = 46 + LETTER_PX * len(label)
        if left and left + needed > width:
            left, row = 0.0, row + 1
        _draw(axes, key, x + left + 4, y + KEY_PX * row)
        _draw(axes, [Text("tick", (36, 10), label)], x + left, y + KEY_PX * row)
        left += needed


def _draw(axes: Any, drawn: Iterable[Shape], x: float, y: float) -> None:
    """Add shapes to ``axes``, whose units are pixels, moved by (x, y)."""
    from matplotlib.patches import Circle as Disc
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    for order, shape in enumerate(drawn):
        if isinstance(shape, Text):
            colour = {"label": "black", "title": "black"}.get(shape.css, SOFT)
            bold = "bold" if shape.css == "title" else "normal"
            align = {"start": "left", "middle": "center", "end": "right"}[shape.anchor]
            at = shape.at[0] + x, shape.at[1] + y
            axes.text(
                *at, shape.text, fontsize=12 * PX, ha=align, color=colour, fontweight=bold, zorder=3 + order / 1e6
            )
            continue
        name, _, own = shape.css.partition(" ")
        if name not in STYLES:  # what catches the pointer has no look
            continue
        palette = RAMP if own[:1] == "r" else CATEGORY
        base = palette[int(own[1:])] if own[:1] in ("c", "r") else "black"
        face, edge, stroke = STYLES[name]
        style = {
            "facecolor": face or base,
            "edgecolor": edge or base,
            "linewidth": stroke * PX,
            "zorder": 2 + order / 1e6,
        }
        style |= {"linestyle": DASHES.get(own, "solid"), "alpha": 0.2 if name == "band" else None, "clip_on": False}
        if isinstance(shape, Circle):
            axes.add_patch(Disc((shape.centre[0] + x, shape.centre[1] + y), shape.radius, **style))
        elif isinstance(shape, Line):
            moved = [[(px + x, py + y) for px, py in piece] for piece in shape.pieces]
            parts = [Outline([*p, p[0]] if shape.closed else p, closed=shape.closed) for p in moved]
            axes.add_patch(PathPatch(Outline.make_compound_path(*parts), **style))
