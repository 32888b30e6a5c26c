"""What a point is called among those of its study."""

from __future__ import annotations

from eval.report.collect import PointRecord, StudyRecord
from eval.report.names import named
from eval.report.text import setting


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
