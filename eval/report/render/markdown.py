"""The report as Markdown, for a repository or an issue; its figures are SVG files beside it, its pictures PNG."""

from __future__ import annotations

import functools
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.report.content import Report
from eval.report.sections.base import Cell
from eval.report.sections.runs import HEADERS

# What would begin markup anywhere in a line; an underscore only at the edge of a word, a bracket only of a link.
MARKUP = re.compile(r"[\\`*~|<]|(?<!\w)_|_(?!\w)|\](?=\()|^\[|&(?=#?\w+;)")
LINE_START = re.compile(r"^(?:(?:#{1,6}|[-+>])(?=\s|$)|\d+(?=[.)](?:\s|$)))")  # headings, lists and quotations


def render_markdown(report: Report) -> str:
    """The text of report.md."""
    runs = run_cells(report)
    commands = "\n".join(row.command for row in report.runs if row.command)
    text = _template().render(
        report=report, run_headers=run_headers(report), runs=runs, commands=code(commands) if commands else ""
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def run_headers(report: Report) -> tuple[str, ...]:
    """Headers of the table of runs: with the study, among several."""
    return ("Study", *HEADERS) if len(report.studies) > 1 else HEADERS


def run_cells(report: Report) -> list[tuple[Cell, ...]]:
    """Rows below `run_headers`."""
    return [(Cell(row.study, row.study), *row.cells)[len(report.studies) == 1 :] for row in report.runs]


def escape(value: Any) -> Markup:
    """``value`` as text in one line, whatever it holds: names cannot break a table, a list or the page."""
    if isinstance(value, Markup):
        return value
    text = MARKUP.sub(lambda found: f"\\{found[0]}", " ".join(str(value).split()))
    return Markup(LINE_START.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", text))


def code(text: str) -> Markup:
    """A block that shows ``text`` as it is, behind a fence longer than any in it."""
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text)), 3)
    return Markup(f"{fence}\n{text}\n{fence}")


@functools.cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("eval.report.render"),
        autoescape=True,
        finalize=escape,  # what is written into the template, before jinja2 would escape it for HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.md.j2")
