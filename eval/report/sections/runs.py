"""The table of runs: the same rows for the page, for Markdown and for results.csv."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.evaluations import settings_label
from eval.report.format import count, duration, many, plain
from eval.report.records import PROBE_NUMBERS, PointRecord, StudyRecord
from eval.report.sections.base import Cell, cell
from eval.schema import finite


@dataclass(frozen=True)
class RunRow:
    """One run of the table."""

    study: str  # its label
    record: PointRecord
    cells: tuple[Cell, ...]
    command: str


HEADERS = (
    "Run",
    "Seed",
    "Top-1 %",
    "Top-5 %",
    "kNN %",
    "Steps",
    "Training",
    "Images/s",
    "Ranks",
    "Revision",
)


def run_rows(study: StudyRecord) -> tuple[RunRow, ...]:
    """One row for each point, in the study's order."""
    return tuple(_row(record, study) for record in study.points.values())


def results_csv(*studies: StudyRecord) -> str:
    """Everything about every point, one line each; what is not known is empty. Several studies get a column."""
    records = [(study, record) for study in studies for record in study.points.values()]
    settings = list(dict.fromkeys(key for _, record in records for key in record.point.settings))
    packages = sorted({name for _, record in records for name in record.environment.get("packages", {})})
    fixed = [
        *(["study"] if len(studies) > 1 else []),
        "point",
        "fingerprint",
        "seed",
        "status",
        "detail",
        "top1_interval_low",
        "top1_interval_high",
    ]
    training = ["total_steps", "epochs", "images_seen", "train_seconds", "images_per_second", "world_size", "restarts"]
    training += ["peak_memory_bytes", "sync_batch_norm_seconds_per_step", "loss_seconds_per_step"]
    columns = [*fixed, *PROBE_NUMBERS, "probe_seconds", *training, *settings]
    columns = list(dict.fromkeys([*columns, "git_revision", "python", *packages, "command"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for owner, record in records:
        row = {**_csv_row(record, training, packages), **{key: owner.value(record, key) for key in settings}}
        writer.writerow({"study": owner.label, **row} if len(studies) > 1 else row)
    return text.getvalue()


def reproduction(record: PointRecord) -> str:
    """The command that makes this run again."""
    command: Any = record.point.command or record.environment.get("command")
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")


def software(studies: Sequence[StudyRecord]) -> list[tuple[str, int]]:
    """(versions and machine, number of runs with them), most first."""
    found: dict[str, int] = {}
    for record in (record for study in studies for record in study.points.values()):
        environment = record.environment
        if environment:
            packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
            key = f"Python {environment.get('python', '?')}, {packages}; {environment.get('platform', '?')}"
            found[key] = found.get(key, 0) + 1
    return sorted(found.items(), key=lambda item: -item[1])


def revisions(studies: Sequence[StudyRecord]) -> list[str]:
    """Git revisions that the runs were made with."""
    environments = (record.environment for study in studies for record in study.points.values())
    return sorted({str(found["git_revision"]) for found in environments if found.get("git_revision")})


def _row(record: PointRecord, study: StudyRecord) -> RunRow:
    measured, training = record.measured, record.training
    seconds, rate = record.trained("train_seconds"), record.trained("images_per_second")
    steps = training.total_steps if training else record.point.plan.get("total_steps")
    ranks = record.trained("world_size") or record.point.world_size
    revision = _short_revision(record.environment.get("git_revision"))
    finished = record.status == "finished"
    cells = [
        cell(settings_label(record, study)),
        Cell(str(record.point.seed), record.point.seed),
        Cell(plain(record.top1) if finished and study.metric == "top1" else "", _finite(measured, "top1", finished)),
        Cell(plain(_finite(measured, "top5", finished)), _finite(measured, "top5", finished)),
        Cell(plain(_finite(measured, "knn_top1", finished)), _finite(measured, "knn_top1", finished)),
        Cell(count(steps), finite(steps)),
        Cell(duration(seconds) if training else "", seconds if training else None),
        Cell(count(rate) if training else "", rate),
        Cell(count(ranks), finite(ranks)),
        Cell(revision, revision or None),
    ]
    if not finished:
        cells[2] = Cell(record.status, None)
    return RunRow(study.label, record, tuple(cells), reproduction(record))


def _finite(measured: dict[str, float | None], name: str, finished: bool) -> float | None:
    return measured.get(name) if finished else None


def _short_revision(revision: Any) -> str:
    text = str(revision or "")
    head, dash, state = text.partition("-")
    return f"{head[:8]}{dash}{state}"


def _csv_row(record: PointRecord, training: list[str], packages: list[str]) -> dict[str, Any]:
    low, high = record.top1_interval or (None, None)
    environment = record.environment
    finished = record.status == "finished"
    return {
        "point": record.name,
        "fingerprint": record.point.fingerprint,
        "seed": record.point.seed,
        "status": record.status,
        "detail": record.detail,
        "top1_interval_low": low,
        "top1_interval_high": high,
        **{name: value if finished else None for name, value in record.measured.items()},
        "probe_seconds": record.probe_seconds,
        **{name: record.trained(name) for name in training},
        "git_revision": environment.get("git_revision"),
        "python": environment.get("python"),
        **{name: environment.get("packages", {}).get(name) for name in packages},
        "command": reproduction(record),
    }


# Where the numbers come from: study files, code, software, evaluations.


def provenance(studies: Sequence[StudyRecord]) -> list[str]:
    """One line each."""
    items = []
    for study in studies:
        who = f"{study.label}: " if len(studies) > 1 else ""
        manifest = study.manifest
        items.append(f"{who or 'Study '}{manifest.source}, from {manifest.base}")
        items += [
            f"{who or 'Evaluation '}{' '.join([probe.task, *probe.overrides])} (settings {probe.fingerprint})"
            for probe in manifest.probes
        ]
    planned = {str(study.manifest.git_revision) for study in studies if study.manifest.git_revision}
    known = revisions(studies) or sorted(planned)
    if known:
        items.append(f"Code: revision {', '.join(known)}")
    items += [f"{text} ({many(number, 'run')})" for text, number in software(studies)]
    if any(probe.task == "linear" for study in studies for probe in study.manifest.probes):
        items.append(
            "Linear evaluation: on the frozen encoder's features; what there is to choose is chosen on part of the "
            "training images, and the test images are used once, at the end."
        )
    return items
