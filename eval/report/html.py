"""The page: one file, nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_html
from importlib import resources

from eval.report.content import PUBLISHED_REMARK, QuestionSection, Report
from eval.report.panels import Figure, Panel
from eval.report.published import published_text
from eval.report.runs import HEADERS, RunRow, revisions, software
from eval.report.svg import NARROW, SMALL, WIDE, draw, swatch
from eval.report.text import many

MOST_OPEN_PANELS = 12  # training curves of more settings wait for a click


def render_html(report: Report) -> str:
    """The whole page of ``report``."""
    title = escape(report.study.manifest.title)
    body = "\n".join(
        [
            _header(report),
            '<main id="main">',
            _summary(report),
            *(_question(section) for section in report.questions),
            _published(report),
            _training(report),
            _runs(report),
            _provenance(report),
            "</main>",
            '<div id="tip" role="status" hidden></div>',
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<style>\n{_asset('report.css')}</style>\n</head>\n<body>\n{body}\n"
        f"<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def escape(text: str, quote: bool = False) -> str:
    """``text`` as HTML; a number and its percent sign stay on one line."""
    return escape_html(text, quote=quote).replace(" %", "\N{NO-BREAK SPACE}%")


def _asset(name: str) -> str:
    return resources.files("eval.report").joinpath(name).read_text(encoding="utf-8")


def _header(report: Report) -> str:
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts)
    state = "complete" if report.complete else "partial"
    return (
        f'<header><div class="bar"><h1>{escape(report.study.manifest.title)}</h1>'
        '<button id="theme" type="button" aria-label="Switch between light and dark">◐</button></div>'
        f'<p class="progress {state}">{escape(report.progress)}</p><dl class="facts">{facts}</dl></header>'
    )


def _summary(report: Report) -> str:
    cards = "".join(
        f'<li><a href="#{_anchor(s)}">{escape(s.analysis.question.title)}</a><p>{escape(s.findings[0])}</p></li>'
        for s in report.questions
    )
    lines = "".join(f"<li>{escape(line)}</li>" for _, line in report.baselines)
    references = f'<h3>For comparison</h3><ul class="plain">{lines}</ul>' if lines else ""
    return f'<section id="summary"><h2>What was measured</h2><ul class="cards">{cards}</ul>{references}</section>'


def _question(section: QuestionSection) -> str:
    first, *others = section.findings
    more = "".join(f"<li>{escape(text)}</li>" for text in others)
    question = section.analysis.question
    figure = _figure(section.figure, basis=section.basis) if section.figure else ""
    return (
        f'<section id="{_anchor(section)}"><h2>{escape(question.title)}</h2><p class="finding">{escape(first)}</p>'
        f"{f'<ul class=plain>{more}</ul>' if more else ''}{figure}"
        f"<details><summary>Numbers</summary>{_table(section.table)}</details></section>"
    )


def _figure(figure: Figure, *, basis: str = "") -> str:
    """A single panel in two widths, of which the page shows the one that fits; several as small multiples."""
    label = escape(figure.description, quote=True)
    legend = "".join(f"<li>{swatch(colour, palette)}{escape(text)}</li>" for text, colour, palette in figure.legend)
    keys = f'<ul class="legend">{legend}{_cross(figure)}</ul>' if legend or _cross(figure) else ""
    caption = f"<figcaption>{escape(basis)}</figcaption>" if basis else ""
    if figure.columns == 1:
        drawn = "".join(draw(p, WIDE, css_class="wide") + draw(p, NARROW, css_class="narrow") for p in figure.panels)
        return f'<figure aria-label="{label}">{keys}{drawn}{caption}</figure>'
    drawn = "".join(f"<div>{draw(p, SMALL, titled=True)}{_panel_note(p)}</div>" for p in figure.panels)
    return f'<figure class="multiples" aria-label="{label}">{keys}<div class="grid">{drawn}</div>{caption}</figure>'


def _cross(figure: Figure) -> str:
    if not any(panel.missing for panel in figure.panels):
        return ""
    cross = '<path class="missing" d="M10 2l8 8m0 -8l-8 8"/>'
    return f'<li><svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{cross}</svg>no result</li>'


def _panel_note(panel: Panel) -> str:
    marked = [series for series in panel.series if series.marked]
    items = (
        "".join(f"<li>{swatch(s.colour, s.palette)}{escape(s.label)}</li>" for s in marked) if len(marked) > 1 else ""
    )
    legend = f'<ul class="legend small">{items}</ul>' if items else ""
    return legend + (f'<p class="note">{escape(panel.footnote)}</p>' if panel.footnote else "")


def _published(report: Report) -> str:
    if report.published is None:
        return ""
    rows = "".join(f"<li>{escape(published_text(row))}</li>" for row in report.published_elsewhere)
    single = f'<details><summary>Published at a single batch size</summary><ul class="plain">{rows}</ul></details>'
    return (
        f'<section id="published"><h2>Published batch-size curves</h2><p class="remark">{escape(PUBLISHED_REMARK)}</p>'
        f"{_figure(report.published)}{single if rows else ''}</section>"
    )


def _training(report: Report) -> str:
    if not report.training:
        return ""
    figures = "".join(
        f"<details{' open' if len(f.panels) <= MOST_OPEN_PANELS else ''}>"
        f"<summary><h3>{escape(f.panels[0].y_label)}</h3></summary>{_figure(f)}</details>"
        for f in report.training
    )
    return (
        '<section id="training"><h2>Training curves</h2><p class="remark">One panel per setting, one line per seed, '
        f"the same vertical axis in all panels of a kind. Hover or touch for values.</p>{figures}</section>"
    )


def _runs(report: Report) -> str:
    head = "".join(
        f'<th scope="col"><button type="button" data-column="{i}">{escape(name)}</button></th>'
        for i, name in enumerate(HEADERS)
    )
    rows = "".join(_run(row) for row in report.runs)
    return (
        f'<section id="runs"><h2>Runs</h2><p class="remark">{many(len(report.runs), "run")}; click a column to sort. '
        'The same and more is in <a href="results.csv">results.csv</a>.</p><div class="scroll">'
        f'<table class="runs sortable"><thead><tr>{head}<th scope="col">Reproduce</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _run(row: RunRow) -> str:
    state = row.record.status
    cells = ""
    for index, cell in enumerate(row.cells):
        sort = "" if cell.sort is None else f' data-sort="{escape(str(cell.sort), quote=True)}"'
        kind = "th scope=row" if index == 0 else "td"
        css = ""
        if index == 2 and state != "finished":
            css = f' class="state" title="{escape(row.record.detail, quote=True)}"'
        cells += f"<{kind}{sort}{css}>{escape(cell.text)}</{kind.split()[0]}>"
    command = (
        f"<td><details><summary>command</summary><code>{escape(row.command)}</code></details></td>"
        if row.command
        else "<td></td>"
    )
    return f'<tr class="{state.replace(" ", "-")}">{cells}{command}</tr>'


def _provenance(report: Report) -> str:
    manifest = report.study.manifest
    items = [f"Study {manifest.source}, from {manifest.base}"]
    known = revisions(report.study) or ([manifest.git_revision] if manifest.git_revision else [])
    if known:
        items.append(f"Code: revision {', '.join(known)}")
    items += [f"{text} ({many(number, 'run')})" for text, number in software(report.study)]
    items += [
        f"Evaluation {probe.task} {' '.join(probe.overrides)}".rstrip() + f" (settings {probe.fingerprint})"
        for probe in manifest.probes
    ]
    if any(probe.task == "linear" for probe in manifest.probes):
        items.append(
            "Linear evaluation: logistic regression on the frozen encoder's features; its L2 is chosen on part of "
            "the training images, and the test images are used once, at the end."
        )
    rows = "".join(f"<li>{escape(text)}</li>" for text in items)
    return f'<section id="provenance"><h2>How this was made</h2><ul class="plain">{rows}</ul></section>'


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows[1:])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _anchor(section: QuestionSection) -> str:
    return f"question-{escape(section.analysis.question.name, quote=True)}"
