"""The page: one file, nothing from the network."""

from __future__ import annotations

import base64
from html import escape as escape_html
from importlib import resources

from eval.report.content import Report
from eval.report.figures.model import CATEGORY, CATEGORY_DARK, RAMP, RAMP_DARK, Figure, Panel, style_variables
from eval.report.figures.svg import NARROW, SMALL, WIDE, draw, swatch
from eval.report.format import DASH, many
from eval.report.sections.base import Cell, Picture, Section, Table
from eval.report.sections.runs import HEADERS, RunRow, provenance

NO_BREAK = "\N{NO-BREAK SPACE}"
MOST_OPEN_PANELS = (60, 12)  # of a section's first and second folded figure; with more they wait for a click


def render_html(report: Report, *, refresh_s: float | None = None) -> str:
    """The whole page of ``report``; with ``refresh_s`` it loads itself again so often, for a study that still runs."""
    body = "\n".join(
        [
            _header(report),
            _navigation(report),
            '<main id="main">',
            _summary(report),
            *(_section(section) for section in report.sections),
            _runs(report),
            _provenance(report),
            "</main>",
            '<div id="tip" role="status" hidden></div>',
        ]
    )
    again = f'<meta http-equiv="refresh" content="{refresh_s:g}">\n' if refresh_s is not None else ""
    light, dark = style_variables(CATEGORY, RAMP), style_variables(CATEGORY_DARK, RAMP_DARK)
    style = _asset("report.css").replace("/* light colours */", light).replace("/* dark colours */", dark)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(report.title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{again}'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}\n<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def escape(text: str, quote: bool = False) -> str:
    """``text`` as HTML; a number and its percent sign stay on one line, and so does ``a = 1``."""
    return escape_html(text, quote=quote).replace(" %", f"{NO_BREAK}%").replace(" = ", f"{NO_BREAK}={NO_BREAK}")


def _asset(name: str) -> str:
    return resources.files("eval.report").joinpath(name).read_text(encoding="utf-8")


def _header(report: Report) -> str:
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts)
    state = "complete" if report.complete else "partial"
    return (
        f'<header><div class="bar"><h1>{escape(report.title)}</h1>'
        '<button id="theme" type="button" aria-label="Switch between light and dark">◐</button></div>'
        f'<p class="progress {state}">{escape(report.progress)}</p>'
        f"{f'<dl class=facts>{facts}</dl>' if facts else ''}</header>"
    )


def _navigation(report: Report) -> str:
    links = [(section.anchor, section.title) for section in report.sections] + [("runs", "Runs")]
    items = "".join(f'<a href="#{escape(anchor, quote=True)}">{escape(title)}</a>' for anchor, title in links)
    return f'<nav aria-label="Sections">{items}</nav>'


def _summary(report: Report) -> str:
    cards = "".join(
        f'<li><a href="#{escape(s.anchor, quote=True)}">{escape(s.title)}</a>'
        f"{''.join(f'<p>{escape(text)}</p>' for text in s.findings[: len(report.studies)])}</li>"
        for s in report.sections
        if s.in_summary
    )
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.baselines)
    references = f'<h3>For comparison</h3><ul class="plain">{lines}</ul>' if lines else ""
    warned = "".join(f"<li>{escape(text)}</li>" for text in report.cautions)
    cautions = f'<h3>With caution</h3><ul class="plain">{warned}</ul>' if warned else ""
    several = len(report.studies) > 1
    keys = "".join(f"<li>{swatch(i, 'category')}{escape(s.label)}</li>" for i, s in enumerate(report.studies))
    legend = f'<ul class="legend">{keys}</ul>' if several else ""
    overview = "".join(_table(table) for table in report.overview)
    return (
        f'<section id="summary"><h2>What was measured</h2>{legend}<ul class="cards">{cards}</ul>{references}{cautions}'
        f"{overview}</section>"
    )


def _section(section: Section) -> str:
    first = f'<p class="finding">{escape(section.findings[0])}</p>' if section.findings else ""
    more = "".join(f"<li>{escape(text)}</li>" for text in section.findings[1:])
    parts = [
        f'<section id="{escape(section.anchor, quote=True)}"><h2>{escape(section.title)}</h2>',
        first,
        f'<ul class="plain">{more}</ul>' if more else "",
        f'<p class="remark">{escape(section.remark)}</p>' if section.remark else "",
        _figures(section),
        _pictures(section.pictures),
        *(_table(table) for table in section.tables),
        *(f'<p class="note">{escape(note)}</p>' for note in section.notes),
        "</section>",
    ]
    return "".join(parts)


def _figures(section: Section) -> str:
    if not section.folded_figures:
        titled = len(section.figures) > 1
        return "".join(
            (f"<h3>{escape(_heading(figure))}</h3>" if titled else "") + _figure(figure, basis=section.basis)
            for figure in section.figures
        )
    return "".join(
        f"<details{' open' if i < 2 and len(figure.panels) <= MOST_OPEN_PANELS[i] else ''}>"
        f"<summary><h3>{escape(figure.panels[0].y_label)}</h3></summary>{_figure(figure)}</details>"
        for i, figure in enumerate(section.figures)
    )


def _heading(figure: Figure) -> str:
    if len(figure.panels) == 1:
        return figure.panels[0].title
    return f"Against {figure.panels[0].x_label.partition(' (')[0].lower()}"


def _figure(figure: Figure, *, basis: str = "") -> str:
    """A single panel in two widths, of which the page shows the one that fits; several as small multiples."""
    label = escape(figure.description, quote=True)
    legend = "".join(f"<li>{swatch(colour, palette)}{escape(text)}</li>" for text, colour, palette in figure.legend)
    extra = _ring(figure) + _cross(figure)
    keys = f'<ul class="legend">{legend}{extra}</ul>' if legend or extra else ""
    caption = f"<figcaption>{escape(basis)}</figcaption>" if basis else ""
    if figure.columns == 1:
        drawn = "".join(draw(p, WIDE, css_class="wide") + draw(p, NARROW, css_class="narrow") for p in figure.panels)
        return f'<figure aria-label="{label}">{keys}{drawn}{caption}</figure>'
    drawn = "".join(
        f'<div><p class="title">{escape(p.title)}</p>{draw(p, SMALL)}'
        f"<div>{_panel_note(p, legend=figure.per_panel_legend)}</div></div>"
        for p in figure.panels
    )
    return f'<figure class="multiples" aria-label="{label}">{keys}<div class="grid">{drawn}</div>{caption}</figure>'


def _cross(figure: Figure) -> str:
    if not any(panel.missing for panel in figure.panels):
        return ""
    cross = '<path class="missing" d="M10 2l8 8m0 -8l-8 8"/>'
    return f'<li><svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{cross}</svg>no result</li>'


def _ring(figure: Figure) -> str:
    if not any(mark.best for panel in figure.panels for series in panel.series for mark in series.marks):
        return ""
    ring = '<circle class="ring" cx="14" cy="6" r="5"/>'
    return f'<li><svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{ring}</svg>best of its line</li>'


def _panel_note(panel: Panel, *, legend: bool) -> str:
    marked = [series for series in panel.series if series.marked]
    items = ""
    if legend and len(marked) > 1:
        items = "".join(f"<li>{swatch(s.colour, s.palette)}{escape(s.label)}</li>" for s in marked)
    keys = f'<ul class="legend small">{items}</ul>' if items else ""
    return keys + (f'<p class="note">{escape(panel.footnote)}</p>' if panel.footnote else "")


def _pictures(pictures: tuple[Picture, ...]) -> str:
    if not pictures:
        return ""
    items = "".join(
        f'<figure><img alt="{escape(p.description, quote=True)}" '
        f'src="data:image/png;base64,{base64.b64encode(p.png).decode()}"><figcaption>{escape(p.title)}</figcaption></figure>'
        for p in pictures
    )
    return f'<div class="pictures">{items}</div>'


def _table(table: Table) -> str:
    numeric = [any(isinstance(row[i].sort, int | float) for row in table.rows) for i in range(len(table.headers))]
    head = "".join(_head(i, text, numeric[i]) for i, text in enumerate(table.headers))
    rows = ("".join(_cell(cell, numeric[i]) for i, cell in enumerate(row)) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    drawn = f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    scrolled = f'<div class="scroll" tabindex="0" role="group" aria-label="Table">{drawn}</div>{note}'
    if table.folded:
        return f"<details><summary>{escape(table.title)}</summary>{scrolled}</details>"
    return (f"<h3>{escape(table.title)}</h3>" if table.title else "") + scrolled


def _head(column: int, text: str, numeric: bool) -> str:
    css = ' class="n"' if numeric else ""
    return f'<th scope="col"{css}><button type="button" data-column="{column}">{escape(text)}</button></th>'


def _cell(cell: Cell, numeric: bool) -> str:
    """A table's cell. In a column of numbers, what is no number sorts last."""
    sort = cell.sort if numeric or cell.sort is not None or cell.text in ("", DASH) else cell.text
    css = ' class="n"' if numeric else ""
    shade = f' style="--shade:{100 * cell.shade:.0f}%"' if cell.shade else ""
    return f"<td{_sort(sort)}{css}{shade}>{escape(cell.text)}</td>"


def _sort(key: float | str | None) -> str:
    return "" if key is None else f' data-sort="{escape(str(key), quote=True)}"'


def _runs(report: Report) -> str:
    several = len(report.studies) > 1
    headers = (("Study",) if several else ()) + HEADERS
    numeric = [any(isinstance(row.cells[i].sort, int | float) for row in report.runs) for i in range(len(HEADERS))]
    numeric = [False, *numeric] if several else numeric
    head = "".join(_head(i, name, numeric[i]) for i, name in enumerate(headers))
    rows = "".join(_run(row, several) for row in report.runs)
    return (
        f'<section id="runs"><h2>Runs</h2><p class="remark">{many(len(report.runs), "run")}; click a column to sort. '
        'The same and more is in <a href="results.csv">results.csv</a>.</p>'
        '<div class="scroll" tabindex="0" role="group" aria-label="Runs">'
        f'<table class="runs sortable"><thead><tr>{head}<th scope="col">Reproduce</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _run(row: RunRow, several: bool) -> str:
    state = row.record.status
    cells = f"<td{_sort(row.study)}>{escape(row.study)}</td>" if several else ""
    for index, cell in enumerate(row.cells):
        kind = "th scope=row" if index == 0 else "td"
        css = "" if index in (0, len(row.cells) - 1) else ' class="n"'
        if index == 2 and row.record.detail:
            css = f' class="n {"state" if state != "finished" else ""}" title="{escape(row.record.detail, quote=True)}"'
        cells += f"<{kind}{_sort(cell.sort)}{css}>{escape(cell.text)}</{kind.split()[0]}>"
    why = f"<p>{escape(row.record.detail)}</p>" if row.record.detail else ""
    command = f"<code>{escape(row.command)}</code>" if row.command else ""
    last = f"<details><summary>command</summary>{why}{command}</details>" if why or command else ""
    return f'<tr class="{state.replace(" ", "-")}">{cells}<td>{last}</td></tr>'


def _provenance(report: Report) -> str:
    rows = "".join(f"<li>{escape(text)}</li>" for text in provenance(report.studies))
    return f'<section id="provenance"><h2>How this was made</h2><ul class="plain">{rows}</ul></section>'
