"""The table of runs, results.csv with everything known of each, and where the numbers come from."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from eval.report.format import count, duration, plain
from eval.report.records import PROBE_NUMBERS, PointRecord, StudyRecord
from eval.report.sections.base import Cell, Column, cell, num
from eval.report.table import ReportData, Row
from pretrain.format import plural

IDENTITY = ("point", "fingerprint", "seed", "status", "detail", "top1_interval_low", "top1_interval_high")
TRAINING = (
    *("total_steps", "epochs", "images_seen", "train_seconds", "images_per_second", "world_size", "restarts"),
    *("peak_memory_bytes", "sync_batch_norm_seconds_per_step", "loss_seconds_per_step"),
)


class RunRow(NamedTuple):
    """One run of the table."""

    study: str  # its label
    record: PointRecord
    cells: tuple[Cell, ...]  # below HEADERS
    command: str  # that makes this run again


def run_row(row: Row) -> RunRow:
    """The run as the table shows it."""
    cells = tuple(make(row) for make in COLUMNS.values())
    return RunRow(row.study.label, row.record, cells, reproduction(row.record))


def _top1(row: Row) -> Cell:
    if row.record.status != "finished":
        return Cell(row.record.status)
    value = row.record.measured["top1"]
    return Cell("" if row.study.metric.task == "knn" else plain(value), value)


def _trained(row: Row, key: str, form: Any) -> Cell:
    return num(row.record.trained(key), form if row.record.training else lambda value: "")


def _revision(row: Row) -> Cell:
    head, dash, state = str(row.record.environment.get("git_revision") or "").partition("-")
    return cell(f"{head[:8]}{dash}{state}")


COLUMNS: dict[str, Column[Row]] = {
    "Run": lambda row: cell(row.setting),
    "Seed": lambda row: Cell(str(row.seed), row.seed),
    "Top-1 %": _top1,
    "Top-5 %": lambda row: num(row.record.measured.get("top5")),
    "kNN %": lambda row: num(row.record.measured.get("knn_top1")),
    "Steps": lambda row: num(row.record.trained("total_steps") or row.plan("total_steps"), count),
    "Training": lambda row: _trained(row, "train_seconds", duration),
    "Images/s": lambda row: _trained(row, "images_per_second", count),
    "Ranks": lambda row: num(row.ranks, count),
    "Revision": _revision,
}
HEADERS = tuple(COLUMNS)


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
        who, manifest = data.who(study), study.manifest
        yield f"{who or 'Study '}{manifest.source}, from {manifest.base}"
        for probe in manifest.probes:
            yield f"{who or 'Evaluation '}{' '.join([probe.task, *probe.overrides])} (settings {probe.fingerprint})"
    environments = [row.record.environment for row in data.rows if row.record.environment]
    revisions = {str(found["git_revision"]) for found in environments if found.get("git_revision")}
    planned = {str(study.manifest.git_revision) for study in data.studies if study.manifest.git_revision}
    if revisions or planned:
        yield f"Code: revision {', '.join(sorted(revisions or planned))}"
    for software, number in Counter(map(_software, environments)).most_common():
        yield f"{software} ({plural(number, 'run')})"
    if any(probe.task == "linear" for study in data.studies for probe in study.manifest.probes):
        yield (
            "Linear evaluation: on the frozen encoder's features; hyper-parameters are chosen on held-out training "
            "images, and the test images are used once, at the end."
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
        "command": reproduction(record),
        "top1_interval_low": low,
        "top1_interval_high": high,
        **{name: getattr(record.point, name) for name in ("fingerprint", "seed")},
        **{name: getattr(record, name) for name in ("status", "detail", "probe_seconds")},
        **{name: record.trained(name) for name in TRAINING},
        **{name: environment.get(name) for name in ("git_revision", "python")},
        **{name: environment.get("packages", {}).get(name) for name in packages},
        **record.measured,
    }
