"""The same figures as files, for Markdown (PNG) and for a paper (SVG). matplotlib is imported here and nowhere else."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

from eval.report.figures.model import CATEGORY, RAMP, Figure, Panel, Series
from pretrain.rundir import whole_file

MOST_PANELS, MOST_SVG_PANELS = 24, 8
MARKERS = ("o", "s", "^", "D")
DASHES = ((0, (6, 4)), (0, (1.5, 3)), (0, (8, 3, 1.5, 3)))
DODGE = 0.012  # of the axis' width, between curves at the same place


def write_figure(figure: Figure, folder: Path) -> list[str]:
    """Draw ``figure`` into ``folder`` as <name>.png, and as <name>.svg where it has few panels, each whole.

    Returns the files' names. Equal figures make equal files. Of very many panels the first are drawn: the page has
    them all.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    panels = figure.panels[:MOST_PANELS]
    columns = min(figure.columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = (8.0, 4.4) if columns == 1 else (4.0 * columns, 2.9 * rows)
    canvas = Canvas(figsize=(width, height), dpi=144 if len(panels) <= MOST_SVG_PANELS else 96, facecolor="white")
    edges = {"left": 0.65 / width, "right": 1 - 0.15 / width, "bottom": 0.55 / height, "top": 1 - 0.35 / height}
    canvas.subplots_adjust(**edges, wspace=0.22, hspace=0.42)  # a layout engine would draw everything twice
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(rows, columns, squeeze=False)
    for index, axis in enumerate(axes.flat):
        if index < len(panels):
            _panel(axis, panels[index], narrow=columns > 1)
        else:
            axis.set_axis_off()
    with whole_file(folder / f"{figure.name}.png") as file:
        canvas.savefig(file, format="png", metadata={"Software": None})
    if len(panels) > MOST_SVG_PANELS:
        return [f"{figure.name}.png"]
    # Text stays text, in whatever font the paper has.
    with (
        rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none"}),
        whole_file(folder / f"{figure.name}.svg") as file,
    ):
        canvas.savefig(file, format="svg", metadata={"Date": None})
    return [f"{figure.name}.png", f"{figure.name}.svg"]


def _panel(axis: Any, panel: Panel, *, narrow: bool) -> None:
    title = "\n".join(textwrap.wrap(panel.title, 46 if narrow else 90)[:2])
    axis.set_title(title, loc="left", fontsize=8 if "\n" in title else 10, fontweight="bold")
    axis.set_xlim(0, 1)
    axis.set_ylim(panel.y.low, panel.y.high)
    axis.set_xticks([panel.x.position(value) for value in panel.x.ticks], [panel.x.label(v) for v in panel.x.ticks])
    axis.set_yticks(panel.y.ticks, [panel.y.label(value) for value in panel.y.ticks])
    axis.set_xlabel(panel.x_label, fontsize=9)
    axis.set_ylabel(panel.y_label, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="#e6e7e9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    for number, series in enumerate(panel.series):
        offset = (number - (len(panel.series) - 1) / 2) * DODGE if panel.dodge else 0.0
        _series(axis, panel, series, offset)
    for reference in panel.references:
        _reference(axis, panel, reference.label, reference.y, reference.style)
    if panel.missing:
        places = [panel.x.position(missing.x) for missing in panel.missing]
        axis.plot(
            places,
            [0.03] * len(places),
            "x",
            color="#c0262d",
            transform=axis.transAxes,
            label="no result",
            clip_on=False,
        )
    if len(panel.series) > 1 or panel.missing:
        axis.legend(fontsize=7.5, frameon=False)


def _series(axis: Any, panel: Panel, series: Series, offset: float) -> None:
    colour = RAMP[series.colour % len(RAMP)] if series.palette == "ramp" else CATEGORY[series.colour % len(CATEGORY)]
    x = [panel.x.position(mark.x) + (offset if series.marked else 0.0) for mark in series.marks]
    y = [mark.y for mark in series.marks]
    if not series.marked:
        axis.plot(x, y, color=colour, linewidth=1.2, label=series.label)
        return
    marker = MARKERS[series.colour % len(MARKERS)]
    for number, piece in enumerate(series.pieces()):
        places = [panel.x.position(mark.x) + offset for mark in piece]
        label = series.label if number == 0 else None
        axis.plot(places, [mark.y for mark in piece], marker=marker, color=colour, label=label, markersize=5)
    for place, mark in zip(x, series.marks):
        if mark.best:
            axis.plot([place], [mark.y], "o", markersize=11, markerfacecolor="none", color=colour)
        if mark.low is not None and mark.high is not None:
            axis.errorbar(
                place, mark.y, [[mark.y - mark.low], [mark.high - mark.y]], color=colour, capsize=3, linewidth=1.2
            )
    places = [panel.x.position(mark.x) + offset + 0.012 for mark in series.singles]
    axis.plot(places, [m.y for m in series.singles], "o", markersize=3, markerfacecolor="white", color=colour)


def _reference(axis: Any, panel: Panel, label: str, y: float, style: int) -> None:
    text = f"{label} {y:.1f} %"
    place = {"fontsize": 8, "color": "#5b6067", "ha": "right"}
    if panel.y.low <= y <= panel.y.high:
        axis.axhline(y, color="#6b7078", linewidth=1.1, linestyle=DASHES[style % len(DASHES)])
        axis.text(0.995, y, text, va="bottom", **place)
    elif y > panel.y.high:
        axis.text(0.995, 0.99, f"\N{UPWARDS ARROW} {text}", va="top", transform=axis.transAxes, **place)
    else:
        axis.text(0.995, 0.01, f"\N{DOWNWARDS ARROW} {text}", va="bottom", transform=axis.transAxes, **place)
