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
    varied = varied_settings(study)
    told = [key for key in varied if key in record.point.settings and not _follows_name(key, varied, study)]
    found = [_said(key, setting(record.point.settings[key])) for key in told]
    return ", ".join(found) or _from_name(record.name)


def _said(key: str, value: str) -> str:
    """``batch 256``, ``objective DCL``."""
    section, _, last = key.rpartition(".")
    return f"{short(section) if last == 'name' else short(key)} {named(value)}"


def _follows_name(key: str, varied: tuple[str, ...], study: StudyRecord) -> bool:
    """Whether the name of the key's section says its value: what an objective comes with is no setting by itself."""
    name_key = f"{key.partition('.')[0]}.name"
    if key == name_key or name_key not in varied:
        return False
    values: dict[str, set[str]] = {}
    for record in study.points.values():
        settings = record.point.settings
        values.setdefault(repr(settings.get(name_key)), set()).add(repr(settings.get(key)))
    return all(len(found) == 1 for found in values.values())


def _from_name(name: str) -> str:
    """``batch 256`` of ``global_batch_size=256,seed=0``: the base itself, as the question calls it."""
    parts = [part.partition("=") for part in name.partition(",seed=")[0].split(",")]
    return ", ".join(_said(key, value) if equals else key for key, equals, value in parts)


def varied_settings(study: StudyRecord) -> tuple[str, ...]:
    """Settings that are not the same at all points of the questions, in order of first use."""
    in_baselines = {name for baseline in study.manifest.baselines for name in baseline.points}
    points = [record.point for record in study.points.values() if record.name not in in_baselines]
    keys = dict.fromkeys(key for point in points for key in point.settings)
    return tuple(key for key in keys if len({repr(point.settings.get(key)) for point in points}) > 1)


def short(key: str) -> str:
    """Last part of a dotted key, as a person says it."""
    last = key.rpartition(".")[2]
    return {"global_batch_size": "batch", "base_learning_rate": "base LR"}.get(last, last.replace("_", " "))
