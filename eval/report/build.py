"""From a study's directory to its report: results.csv, report.md with PNG figures, and report.html last. Torch-free."""

from __future__ import annotations

from pathlib import Path

from eval.manifest import REPORT_FILE
from eval.report.collect import collect
from eval.report.content import make_report
from eval.report.html import render_html
from eval.report.markdown import render_markdown
from eval.report.png import write_png
from eval.report.runs import results_csv
from pretrain.rundir import write_text


def build_report(study_directory: Path) -> Path:
    """Write the report of the study as it stands; returns the page.

    Raises FileNotFoundError or ConfigError where ``study_directory`` is no study.
    """
    study = collect(study_directory)
    report = make_report(study)
    page = study_directory / REPORT_FILE
    folder = page.parent
    write_text(folder / "results.csv", results_csv(study))
    figures = [section.figure for section in report.questions if section.figure] + list(report.training)
    for figure in figures + ([report.published] if report.published else []):
        write_png(figure, folder / f"{figure.name}.png")
    write_text(folder / "report.md", render_markdown(report))
    write_text(page, render_html(report))
    return page
