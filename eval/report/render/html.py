"""The page: one file, nothing from the network."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.content import Report
from eval.report.figures.layout import NARROW, SMALL, WIDE, Circle, cross, swatch
from eval.report.figures.model import CATEGORY, CATEGORY_DARK, RAMP, RAMP_DARK, Figure, Panel, style_variables
from eval.report.figures.svg import draw, key
from eval.report.format import DASH, many
from eval.report.render.markdown import run_cells, run_headers
from eval.report.sections.base import Cell, number_in

NO_BREAK = "\N{NO-BREAK SPACE}"
MOST_OPEN_PANELS = (60, 12)  # of a section's first and second folded figure; with more they wait for a click

Key = tuple[Markup, str]  # a drawn mark and what it stands for


def render_html(report: Report, *, refresh_s: float | None = None) -> str:
    """The whole page of ``report``; with ``refresh_s`` it loads itself again so often, for a study that still runs."""
    light, dark = style_variables(CATEGORY, RAMP), style_variables(CATEGORY_DARK, RAMP_DARK)
    style = _asset("report.css").replace("/* light colours */", light).replace("/* dark colours */", dark)
    values = {"style": Markup(style), "script": Markup(_asset("report.js")), "refresh_s": refresh_s}
    text: str = _template().render(report=report, runs=run_cells(report), run_headers=run_headers(report), **values)
    return text


def _asset(name: str) -> str:
    return resources.files("eval.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("eval.report.render"),
        autoescape=True,
        finalize=_unbroken,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = (draw, heading, keys_of, many, numeric_columns, opened, series_keys, sort_key, study_keys)
    environment.globals.update({function.__name__: function for function in functions})
    environment.globals.update(WIDE=WIDE, NARROW=NARROW, SMALL=SMALL, base64=lambda png: base64.b64encode(png).decode())
    return environment.get_template("page.html.j2")


def _unbroken(value: Any) -> Any:
    """A number and its percent sign stay on one line, and so does ``a = 1``."""
    if isinstance(value, Markup):
        return value
    return str(value).replace(" %", f"{NO_BREAK}%").replace(" = ", f"{NO_BREAK}={NO_BREAK}")


# What the template asks for.


def heading(figure: Figure) -> str:
    """Of a figure among several of its section."""
    if len(figure.panels) == 1:
        return figure.panels[0].title
    return f"Against {figure.panels[0].x_label.partition(' (')[0].lower()}"


def opened(figure: Figure, index: int) -> bool:
    """Whether a folded figure is open at first."""
    return index < 2 and len(figure.panels) <= MOST_OPEN_PANELS[index]


def keys_of(figure: Figure) -> list[Key]:
    """The legend that all panels of a figure share."""
    keys = [(key(swatch(colour, palette)), text) for text, colour, palette in figure.legend]
    series = [series for panel in figure.panels for series in panel.series]
    if any(mark.best for s in series for mark in s.marks):
        keys.append((key([Circle("ring", (14, 6), 5)]), "best of its line"))
    if any(panel.missing for panel in figure.panels):
        keys.append((key([cross((14, 6))]), "no result"))
    return keys


def series_keys(panel: Panel) -> list[Key]:
    """The legend of one panel of several, where it has several lines that hovering does not name."""
    named = [series for series in panel.series if series.marked or series.palette == "ramp"]
    return [(key(swatch(s.colour, s.palette)), s.label) for s in named] if len(named) > 1 else []


def study_keys(report: Report) -> list[Key]:
    """Colours of the studies, among several."""
    labels = [study.label for study in report.studies]
    return [(key(swatch(i, "category")), label) for i, label in enumerate(labels)] if len(labels) > 1 else []


def numeric_columns(rows: Sequence[Sequence[Cell]], headers: Sequence[str]) -> list[bool]:
    """Which columns hold a number somewhere."""
    return [any(isinstance(row[i].sort, int | float) for row in rows) for i in range(len(headers))]


def sort_key(cell: Cell, numeric: bool) -> float | str | None:
    """What a cell is sorted by, where the page's script does not know it from the text."""
    if cell.sort is None or (not numeric and str(cell.sort) == cell.text) or cell.text in ("", DASH):
        return None
    shown = number_in(cell.text)
    near = isinstance(cell.sort, int | float) and shown is not None and math.isclose(cell.sort, shown, rel_tol=1e-3)
    return None if near else f"{cell.sort:.6g}" if isinstance(cell.sort, float) else cell.sort
