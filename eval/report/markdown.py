"""The report as Markdown, for a repository or an issue; its figures are PNG files beside it."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.content import PUBLISHED_REMARK, Report
from eval.report.panels import Figure
from eval.report.published import published_text
from eval.report.runs import HEADERS, revisions, software
from eval.report.text import many


def render_markdown(report: Report) -> str:
    """The text of report.md."""
    study = report.study.manifest
    parts = [f"# {study.title}", report.progress[:1].upper() + report.progress[1:] + "."]
    parts.append("\n".join(f"- {name}: {value}" for name, value in report.facts))
    for section in report.questions:
        parts += [
            f"## {section.analysis.question.title}",
            " ".join(section.findings),
            _image(section.figure) if section.figure else "",
            section.basis,
        ]
        parts.append(_table(section.table))
    if report.baselines:
        parts += ["## For comparison", "\n".join(f"- {line}" for _, line in report.baselines)]
    if report.published is not None:
        parts += ["## Published batch-size curves", PUBLISHED_REMARK, _image(report.published)]
        parts.append("\n".join(f"- {p.title}: {p.footnote}" for p in report.published.panels))
        parts.append("\n".join(f"- {published_text(row)}" for row in report.published_elsewhere))
    if report.training:
        parts += ["## Training curves", *(_image(figure) for figure in report.training)]
    rows = [(*HEADERS,), *(tuple(cell.text for cell in row.cells) for row in report.runs)]
    parts += ["## Runs", _table(rows)]
    commands = "\n".join(row.command for row in report.runs if row.command)
    if commands:
        parts += ["Commands, in the order of the table:", f"```\n{commands}\n```"]
    made = [f"Study {study.source}, from {study.base}", *(f"Revision {text}" for text in revisions(report.study))]
    made += [f"{text} ({many(number, 'run')})" for text, number in software(report.study)]
    parts += ["## How this was made", "\n".join(f"- {text}" for text in made)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _image(figure: Figure) -> str:
    return f"![{figure.description}]({figure.name}.png)"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
