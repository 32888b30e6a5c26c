"""Every evaluation that the runs have, whether the study asked for it or somebody ran it later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eval.report.format import named, setting
from eval.report.records import PointRecord, StudyRecord
from eval.schema import EvaluationResult


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
Found = Sequence[tuple[str, PointRecord, EvaluationResult]]


def evaluations(studies: Sequence[StudyRecord], *, random: bool = False) -> Found:
    """All evaluations of trained encoders, in the studies' order; with ``random`` those of random encoders too."""
    return [
        (setting, record, result)
        for setting, record in _records(studies)
        for result in record.evaluations
        if random or result.initialisation == "pretrained"
    ]


def _records(studies: Sequence[StudyRecord]) -> Iterable[tuple[str, PointRecord]]:
    for study in studies:
        for record in study.points.values():
            label = settings_label(record, study)
            yield (f"{study.label}: {label}" if len(studies) > 1 else label), record
