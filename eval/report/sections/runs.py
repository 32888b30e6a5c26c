"""The table of runs, results.csv with everything known of each, and where the numbers come from."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.format import count, duration, many, plain
from eval.report.records import PROBE_NUMBERS, PointRecord, StudyRecord
from eval.report.sections.base import Cell, cell
from eval.report.table import ReportData, Row
from eval.schema import finite

HEADERS = ("Run", "Seed", "Top-1 %", "Top-5 %", "kNN %", "Steps", "Training", "Images/s", "Ranks", "Revision")
IDENTITY = ("point", "fingerprint", "seed", "status", "detail", "top1_interval_low", "top1_interval_high")
TRAINING = (
    *("total_steps", "epochs", "images_seen", "train_seconds", "images_per_second", "world_size", "restarts"),
    *("peak_memory_bytes", "sync_batch_norm_seconds_per_step", "loss_seconds_per_step"),
)


@dataclass(frozen=True)
class RunRow:
    """One run of the table."""

    study: str  # its label
    record: PointRecord
    cells: tuple[Cell, ...]
    command: str


def run_row(row: Row) -> RunRow:
    """The cells below HEADERS, and the command that makes this run again."""
    record, training = row.record, row.record.training
    measured = record.measured if record.status == "finished" else {}
    top1, top5, knn = (measured.get(name) for name in ("top1", "top5", "knn_top1"))
    seconds, rate = record.trained("train_seconds"), record.trained("images_per_second")
    steps = training.total_steps if training else record.point.plan.get("total_steps")
    head, dash, state = str(record.environment.get("git_revision") or "").partition("-")
    revision = f"{head[:8]}{dash}{state}"
    shown = plain(record.top1) if row.study.metric == "top1" else ""
    cells = (
        cell(row.setting),
        Cell(str(row.seed), row.seed),
        Cell(shown, top1) if record.status == "finished" else Cell(record.status),
        Cell(plain(top5), top5),
        Cell(plain(knn), knn),
        Cell(count(steps), finite(steps)),
        Cell(duration(seconds) if training else "", seconds),
        Cell(count(rate) if training else "", rate),
        Cell(count(row.ranks), row.ranks),
        Cell(revision, revision or None),
    )
    return RunRow(row.study.label, record, cells, reproduction(record))


def results_csv(*studies: StudyRecord) -> str:
    """Everything about every point, one line each; what is not known is empty. Several studies get a column."""
    records = [(study, record) for study in studies for record in study.points.values()]
    settings = list(dict.fromkeys(key for _, record in records for key in record.point.settings))
    packages = sorted({name for _, record in records for name in record.environment.get("packages", {})})
    study_column = ["study"] if len(studies) > 1 else []
    columns = [*study_column, *IDENTITY, *PROBE_NUMBERS, "probe_seconds", *TRAINING, *settings]
    columns = list(dict.fromkeys([*columns, "git_revision", "python", *packages, "command"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for study, record in records:
        values = {key: study.value(record, key) for key in settings}
        writer.writerow({"study": study.label, **_csv_row(record, packages), **values})
    return text.getvalue()


def reproduction(record: PointRecord) -> str:
    """The command that makes this run again."""
    command: Any = record.point.command or record.environment.get("command")
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command or "")


def provenance(data: ReportData) -> Iterator[str]:
    """Where the numbers come from, one line each: study files, evaluations, code, software."""
    for study in data.studies:
        who, manifest = f"{study.label}: " if data.several else "", study.manifest
        yield f"{who or 'Study '}{manifest.source}, from {manifest.base}"
        for probe in manifest.probes:
            yield f"{who or 'Evaluation '}{' '.join([probe.task, *probe.overrides])} (settings {probe.fingerprint})"
    environments = [row.record.environment for row in data.rows if row.record.environment]
    revisions = {str(found["git_revision"]) for found in environments if found.get("git_revision")}
    planned = {str(study.manifest.git_revision) for study in data.studies if study.manifest.git_revision}
    if revisions or planned:
        yield f"Code: revision {', '.join(sorted(revisions or planned))}"
    for software, number in Counter(map(_software, environments)).most_common():
        yield f"{software} ({many(number, 'run')})"
    if any(probe.task == "linear" for study in data.studies for probe in study.manifest.probes):
        yield (
            "Linear evaluation: on the frozen encoder's features; what there is to choose is chosen on part of the "
            "training images, and the test images are used once, at the end."
        )
    yield "Figures: every run's numbers are in results.csv, its curves in its metrics.jsonl"


def _software(environment: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    return f"Python {environment.get('python', '?')}, {packages}; {environment.get('platform', '?')}"


def _csv_row(record: PointRecord, packages: Sequence[str]) -> dict[str, Any]:
    low, high = record.top1_interval or (None, None)
    environment = record.environment
    return {
        "point": record.name,
        "fingerprint": record.point.fingerprint,
        "seed": record.point.seed,
        "status": record.status,
        "detail": record.detail,
        "top1_interval_low": low,
        "top1_interval_high": high,
        **(record.measured if record.status == "finished" else {}),
        "probe_seconds": record.probe_seconds,
        **{name: record.trained(name) for name in TRAINING},
        "git_revision": environment.get("git_revision"),
        "python": environment.get("python"),
        **{name: environment.get("packages", {}).get(name) for name in packages},
        "command": reproduction(record),
    }
