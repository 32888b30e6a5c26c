"""From the directories of studies to their report: results.csv, report.md, figures, report.html last. Torch-free."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from eval.report.content import Report, make_report
from eval.report.figures.png import write_figure
from eval.report.records import StudyRecord, collect, collect_all
from eval.report.render.html import render_html
from eval.report.render.markdown import render_markdown
from eval.report.sections.runs import results_csv
from eval.study_manifest import REPORT_FILE
from pretrain.rundir import read_json, whole_file, write_json, write_text

FILES = "files.json"  # names of the figures and pictures that the report wrote beside the page


def build_report(*study_directories: Path, folder: Path | None = None, refresh_s: float | None = None) -> Path:
    """Write the report of one study, or of several side by side, as they stand; returns the page.

    folder: where it goes; by default report/ in the study's directory, or a folder beside the first of several.
    Raises FileNotFoundError or ConfigError where a directory is no study.
    """
    studies = read_studies(study_directories)
    report = make_report(*studies)
    page = page_of(study_directories, studies, folder)
    write_report(report, page, refresh_s=refresh_s)
    return page


def read_studies(study_directories: Sequence[Path]) -> list[StudyRecord]:
    """The studies as they stand."""
    return [collect(study_directories[0])] if len(study_directories) == 1 else collect_all(study_directories)


def page_of(directories: Sequence[Path], studies: Sequence[StudyRecord], folder: Path | None = None) -> Path:
    """Where the page of these studies lies."""
    if folder is not None:
        return folder / Path(REPORT_FILE).name
    if len(directories) == 1:
        return directories[0] / REPORT_FILE
    names = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "_", Path(study.label).name) for study in studies)
    return Path(os.path.abspath(directories[0])).parent / f"report-{names}" / Path(REPORT_FILE).name


def write_report(report: Report, page: Path, *, refresh_s: float | None = None, files: bool = True) -> None:
    """Every file of the report, each whole, the page last; without ``files`` only the page and results.csv."""
    folder = page.parent
    write_text(folder / "results.csv", results_csv(*report.studies))
    if files:
        _write_files(report, folder)
    write_text(page, render_html(report, refresh_s=refresh_s))


def _write_files(report: Report, folder: Path) -> None:
    """The figures and pictures, and the Markdown that shows them; those that an earlier report made here go."""
    written = [name for figure in report.headline_figures for name in write_figure(figure, folder)]
    for picture in report.pictures:
        with whole_file(folder / f"{picture.name}.png") as file:
            file.write(picture.png)
        written.append(f"{picture.name}.png")
    write_text(folder / "report.md", render_markdown(report))
    # What somebody else put beside the page is not on the list, and stays.
    for name in set(_listed(folder / FILES)) - set(written):
        (folder / name).unlink(missing_ok=True)
    write_json(folder / FILES, written)


def _listed(path: Path) -> list[str]:
    """Plain file names of an earlier report's list; none where it is missing or damaged."""
    try:
        names = read_json(path)
    except (FileNotFoundError, ValueError):
        return []
    known = names if isinstance(names, list) else []
    return [name for name in known if isinstance(name, str) and Path(name).name == name]
