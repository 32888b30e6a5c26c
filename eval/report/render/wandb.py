"""The report on wandb: its table of runs, its figures and the page, under the setting that the runs themselves had."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from eval.report.content import Report
from eval.report.records import StudyRecord
from eval.report.sections.runs import HEADERS
from pretrain.rundir import write_text

Mode = Literal["disabled", "offline", "online"]
MARK = "pushed.sha256"  # of the page that was pushed last: the same page is not pushed again


def push(report: Report, page: Path, mode: Mode | None = None) -> bool:
    """Log the report as a wandb run in ``page``'s folder; False where wandb is off, has it already, or fails.

    mode: by default what log.wandb says in the first study's runs. A failure of wandb's is only printed.
    """
    mode = mode or wandb_mode(report.studies)
    mark, digest = page.parent / "wandb" / MARK, f"{hashlib.sha256(page.read_bytes()).hexdigest()} {mode}"
    if mode == "disabled" or (mark.is_file() and mark.read_text() == digest):
        return False
    try:
        _log(report, page, mode)
    except Exception as error:
        print(f"wandb has no copy of this report: {error}", file=sys.stderr)
        return False
    write_text(mark, digest)
    return True


def wandb_mode(studies: Sequence[StudyRecord]) -> Mode:
    """What the runs' log.wandb says; off where no run says anything."""
    found = [study.config.get("log.wandb") for study in studies]
    return "offline" if "offline" in found else "online" if "online" in found else "disabled"


def _log(report: Report, page: Path, mode: Mode) -> None:
    import wandb  # a second to import, and only needed here

    projects = [study.config.get("log.wandb_project") for study in report.studies]
    identity = hashlib.sha256("\n".join(str(s.directory.resolve()) for s in report.studies).encode()).hexdigest()[:12]
    run = wandb.init(
        mode=mode,
        project=next((project for project in projects if project), "bigbatch"),
        name=f"report: {report.title}",
        id=f"report-{identity}",
        job_type="report",
        resume="allow" if mode == "online" else None,
        dir=page.parent,
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
    )
    columns: list[str | int] = ["Study", *HEADERS, "Reproduce"]
    rows = [[row.study, *(cell.text for cell in row.cells), row.command] for row in report.runs]
    logged: dict[str, Any] = {"runs": wandb.Table(columns=columns, data=rows), "report": wandb.Html(page.read_text())}
    for section in report.sections:
        for number, table in enumerate(section.tables):
            data = [[cell.text for cell in row] for row in table.rows]
            logged[f"tables/{section.anchor}-{number}"] = wandb.Table(columns=list(table.headers), data=data)
    for figure in report.headline_figures:
        logged[f"figures/{figure.name}"] = wandb.Html((page.parent / f"{figure.name}.svg").read_text())
    for picture in report.pictures:
        path = str(page.parent / f"{picture.name}.png")
        logged[f"figures/{picture.name}"] = wandb.Image(path, caption=picture.description)
    run.log(logged)
    run.finish(exit_code=0)
