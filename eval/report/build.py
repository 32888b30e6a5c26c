"""From the directories of studies to their report: results.csv, figures, report.md, report.html last. Torch-free."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eval.report.content import Report, make_report
from eval.report.figures.svg import write_figure
from eval.report.records import collect_all
from eval.report.render.html import render_html
from eval.report.render.markdown import render_markdown
from eval.report.render.wandb import Mode, push
from eval.report.sections.runs import results_csv
from eval.study_manifest import FILE_NAME, REPORT_FILE, read_manifest
from pretrain.rundir import read_json, whole_file, write_json, write_text

FILES = "files.json"  # names of the figures and pictures that the report wrote beside the page

Signature = frozenset[tuple[Path, int, int]]


def build_report(*study_directories: Path, folder: Path | None = None, wandb: Mode | None = "disabled") -> Path:
    """Write the report of one study, or of several side by side, as they stand; returns the page.

    folder: where it goes; by default report/ in the study's directory, or a folder beside the first of several.
    wandb: whether it is pushed there too; None: as the runs were. Raises FileNotFoundError or ConfigError where a
    directory is no study.
    """
    report = make_report(*collect_all(study_directories))
    page = page_of(report, folder)
    write_report(report, page)
    push(report, page, wandb)
    return page


def watch(
    directories: Sequence[Path],
    folder: Path | None,
    seconds: float,
    *,
    tell: Callable[[Path], None] = lambda page: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the page again whenever a file of the studies is new, until every run has finished. Its own files wait."""
    last: Signature | None = None
    while True:
        now = signature(directories)
        if now != last:
            report = make_report(*collect_all(directories))
            page = page_of(report, folder)
            if report.complete:
                return
            write_report(report, page, refresh_s=seconds, files=False)
            if last is None:
                tell(page)
            last = now
        sleep(seconds)


def signature(directories: Sequence[Path]) -> Signature:
    """Age and size of every file that a report reads. Raises FileNotFoundError or ConfigError as `read_manifest`."""
    found = set()
    for directory in directories:
        runs = [directory / point.directory for point in read_manifest(directory).points]
        patterns = ("*.json", "*.jsonl", "config.yaml", "eval/*/result.json", "logs/*.json")
        for path in (
            directory / FILE_NAME,
            *(path for run in runs for pattern in patterns for path in run.glob(pattern)),
        ):
            try:
                state = path.stat()
            except FileNotFoundError:  # since it was listed
                continue
            found.add((path, state.st_mtime_ns, state.st_size))
    return frozenset(found)


def page_of(report: Report, folder: Path | None = None) -> Path:
    """Where the page lies."""
    name, first = Path(REPORT_FILE).name, report.studies[0].directory
    if folder is not None:
        return folder / name
    if len(report.studies) == 1:
        return first / REPORT_FILE
    names = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "_", Path(study.label).name) for study in report.studies)
    return Path(os.path.abspath(first)).parent / f"report-{names}" / name


def write_report(report: Report, page: Path, *, refresh_s: float | None = None, files: bool = True) -> None:
    """Every file of the report, each whole, the page last; without ``files`` only the page and results.csv."""
    folder = page.parent
    write_text(folder / "results.csv", results_csv(*report.studies))
    if files:
        written = [write_figure(figure, folder) for figure in report.headline_figures]
        for picture in report.pictures:
            with whole_file(folder / f"{picture.name}.png") as file:
                file.write(picture.png)
            written.append(f"{picture.name}.png")
        write_text(folder / "report.md", render_markdown(report))
        # What an earlier report wrote goes; what somebody else put beside the page is not on the list, and stays.
        for name in set(_listed(folder / FILES)) - set(written):
            (folder / name).unlink(missing_ok=True)
        write_json(folder / FILES, written)
    write_text(page, render_html(report, refresh_s=refresh_s))


def _listed(path: Path) -> list[str]:
    """Plain file names of an earlier report's list; none where it is missing or damaged."""
    try:
        names = read_json(path)
    except (FileNotFoundError, ValueError):
        return []
    known = names if isinstance(names, list) else []
    return [name for name in known if isinstance(name, str) and Path(name).name == name]
