"""Every evaluation that the runs have, whether the study asked for it or somebody ran it later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eval.report.collect import PointRecord, StudyRecord
from eval.report.labels import settings_label

# (setting, run, result) of each evaluation.
Found = Sequence[tuple[str, PointRecord, dict[str, Any]]]


def evaluations(studies: Sequence[StudyRecord]) -> Found:
    """All evaluations of trained runs, in the studies' order."""
    return [(setting, record, result) for setting, record in _records(studies) for result in _own(record)]


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a result that has several."""
    rows = result.get("rows")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _records(studies: Sequence[StudyRecord]) -> Iterable[tuple[str, PointRecord]]:
    for study in studies:
        for record in study.points.values():
            label = settings_label(record, study)
            yield (f"{study.label}: {label}" if len(studies) > 1 else label), record


def _own(record: PointRecord) -> list[dict[str, Any]]:
    """Evaluations of this run's end: not those of a run that lay here before, nor of an unfinished one."""
    if not record.training:
        return []
    runs = ((result, result.get("run")) for result in record.evaluations)
    return [
        result
        for result, run in runs
        if not isinstance(run, dict)
        or (run.get("finished", True) and run.get("fingerprint", record.point.fingerprint) == record.point.fingerprint)
    ]
