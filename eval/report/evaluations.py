"""Every evaluation that the runs have, whether the study asked for it or somebody ran it later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eval.report.format import named, setting
from eval.report.records import PointRecord, StudyRecord

# What a point is called among those of its study.


def settings_label(record: PointRecord, study: StudyRecord) -> str:
    """What sets a point apart: the baseline's title, else the settings that differ within the study."""
    for baseline in study.manifest.baselines:
        if record.name in baseline.points:
            return baseline.title
    settings = record.point.settings
    found = [_said(key, setting(settings[key])) for key in study.told_settings if key in settings]
    return ", ".join(found) or _from_name(record.name)


def _said(key: str, value: str) -> str:
    """``batch 256``, ``objective DCL``."""
    section, _, last = key.rpartition(".")
    return f"{short(section) if last == 'name' else short(key)} {named(value)}"


def _from_name(name: str) -> str:
    """``batch 256`` of ``global_batch_size=256,seed=0``: the base itself, as the question calls it."""
    parts = [part.partition("=") for part in name.partition(",seed=")[0].split(",")]
    return ", ".join(_said(key, value) if equals else key for key, equals, value in parts)


def short(key: str) -> str:
    """Last part of a dotted key, as a person says it."""
    last = key.rpartition(".")[2]
    return {"global_batch_size": "batch", "base_learning_rate": "base LR"}.get(last, last.replace("_", " "))


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
