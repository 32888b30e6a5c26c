"""The page: one file, nothing from the network."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.content import Report
from eval.report.figures.model import Figure, Panel
from eval.report.figures.svg import NARROW, SMALL, WIDE, best_of_line, draw, no_result, style, swatch
from eval.report.render.markdown import run_cells, run_headers
from eval.report.sections.base import Cell, number_in
from pretrain.format import plural

NO_BREAK = "\N{NO-BREAK SPACE}"
MOST_OPEN_PANELS = (60, 12)  # of a section's first and second folded figure; with more they wait for a click

Key = tuple[Markup, str]  # a drawn mark and what it stands for


def render_html(report: Report, *, refresh_s: float | None = None) -> str:
    """The whole page of ``report``; with ``refresh_s`` it loads itself again so often, for a study that still runs."""
    script = resources.files("eval.report").joinpath("report.js").read_text(encoding="utf-8")
    values = {"style": Markup(style()), "script": Markup(script), "refresh_s": refresh_s}
    text: str = _template().render(report=report, runs=run_cells(report), run_headers=run_headers(report), **values)
    return text


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
    functions = (draw, heading, keys_of, plural, numeric_columns, opened, series_keys, sort_key, study_keys)
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
    keys = [(swatch(colour, palette), text) for text, colour, palette in figure.legend]
    marks = [mark for panel in figure.panels for series in panel.series for mark in series.marks]
    keys += [(best_of_line(), "best of its line")] * any(mark.best for mark in marks)
    return keys + [(no_result(), "no result")] * any(panel.missing for panel in figure.panels)


def series_keys(panel: Panel) -> list[Key]:
    """The legend of one panel of several, where it has several lines that hovering does not name."""
    named = [series for series in panel.series if series.marked or series.palette == "ramp"]
    return [(swatch(s.colour, s.palette), s.label) for s in named] if len(named) > 1 else []


def study_keys(report: Report) -> list[Key]:
    """Colours of the studies, among several."""
    keys = [(swatch(i, "category"), study.label) for i, study in enumerate(report.studies)]
    return keys if len(keys) > 1 else []


def numeric_columns(rows: Sequence[Sequence[Cell]], headers: Sequence[str]) -> list[bool]:
    """Which columns hold a number somewhere."""
    return [any(isinstance(row[i].sort, int | float) for row in rows) for i in range(len(headers))]


def sort_key(cell: Cell) -> str | None:
    """What a cell is sorted by, where the page's script does not know it from the text."""
    if not isinstance(cell.sort, int | float) or number_in(cell.text) is not None:
        return None
    return f"{cell.sort:.6g}"
