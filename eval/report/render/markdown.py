"""The report as Markdown, for a repository or an issue; its figures and pictures are PNG files beside it."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.content import Report
from eval.report.sections.base import Section, Table
from eval.report.sections.runs import HEADERS, provenance


def render_markdown(report: Report) -> str:
    """The text of report.md."""
    parts = [f"# {report.title}", report.progress[:1].upper() + report.progress[1:] + "."]
    parts.append("\n".join(f"- {name}: {value}" for name, value in report.facts))
    for table in report.overview:
        parts += _table(table)
    if report.baselines:
        parts += ["## For comparison", "\n".join(f"- {line}" for line in report.baselines)]
    if report.cautions:
        parts += ["## With caution", "\n".join(f"- {text}" for text in report.cautions)]
    for section in report.sections:
        parts += _section(section)
    several = len(report.studies) > 1
    rows = [(*(("Study",) if several else ()), *HEADERS)]
    rows += [(*((row.study,) if several else ()), *(cell.text for cell in row.cells)) for row in report.runs]
    parts += ["## Runs", _rows(rows)]
    troubles = [f"- {row.record.name}: {row.record.detail}" for row in report.runs if row.record.detail]
    parts += ["\n".join(troubles)] if troubles else []
    commands = "\n".join(row.command for row in report.runs if row.command)
    if commands:
        parts += ["Commands, in the order of the table:", f"```\n{commands}\n```"]
    parts += ["## How this was made", "\n".join(f"- {text}" for text in provenance(report.studies))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}", section.findings[0] if section.findings else ""]
    parts.append("\n".join(f"- {text}" for text in section.findings[1:]))
    parts.append(section.remark)
    for figure in section.figures:
        if not figure.in_files:
            continue
        parts.append(f"![{figure.description}]({figure.name}.png)")
        notes = [f"- {panel.title}: {panel.footnote}" for panel in figure.panels if panel.footnote]
        parts.append("\n".join(notes))
    parts += [section.basis if section.figures else ""]
    parts += [f"![{picture.description}]({picture.name}.png)" for picture in section.pictures]
    for table in section.tables:
        parts += _table(table)
    return [*parts, *section.notes]


def _table(table: Table) -> list[str]:
    texts = [tuple(cell.text for cell in row) for row in table.rows]
    return [f"**{table.title}**" if table.title else "", _rows([table.headers, *texts]), table.note]


def _rows(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])
