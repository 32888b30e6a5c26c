"""Everything that a report says, read from a study's directory. What is missing stays None; nothing becomes 0."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from eval.schema import EvaluationResult, Refused, RunResult, finite, read_evaluations, read_run_result
from eval.study_manifest import Point, Probe, StudyManifest, read_manifest
from pretrain.configio import flatten, read_yaml
from pretrain.errors import ConfigError, Problem
from pretrain.rundir import RunDirectory, read_json, read_json_lines

Status = Literal["finished", "not evaluated", "not a number", "diverged", "failed", "unfinished", "not started"]

BASE_VALUE = "as in the base"
PROBE_NUMBERS = ("top1", "top5", "per_class_mean", "knn_top1", "knn_plain_top1", "l2")


@dataclass(frozen=True)
class PointRecord:
    """One point of the study as its files tell it. Accuracies in percent, times in seconds."""

    point: Point
    status: Status
    detail: str = ""
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    measured: dict[str, float | None] = field(default_factory=dict)  # PROBE_NUMBERS, first probe that has each
    probe_seconds: float | None = None
    training: RunResult | None = None  # result.json of the run
    environment: dict[str, Any] = field(default_factory=dict)  # of its last start
    config: dict[str, Any] = field(default_factory=dict)  # dotted keys of what it ran, or will run, with
    evaluations: tuple[EvaluationResult, ...] = ()  # of this run's end, the study's probes or not
    refused: tuple[Refused, ...] = ()  # results that are there and do not count
    curves: tuple[dict[str, Any], ...] = ()  # rows of metrics.jsonl

    @property
    def name(self) -> str:
        return self.point.name

    def trained(self, name: str) -> float | None:
        """A number of the run's own result; None before it has one."""
        return finite(getattr(self.training, name, None))


@dataclass(frozen=True)
class StudyRecord:
    """A study as it stands."""

    directory: Path
    manifest: StudyManifest
    points: dict[str, PointRecord]
    config: dict[str, Any]  # config.yaml of the first point that has one
    metric: Literal["top1", "knn_top1"]
    base: dict[str, Any] = field(default_factory=dict)  # dotted keys of the study's base.yaml
    label: str = ""  # of this study among several; its name where that is enough

    @property
    def metric_label(self) -> str:
        """What the vertical axis of every figure shows."""
        return "Linear-probe top-1 (%)" if self.metric == "top1" else "Nearest-neighbour top-1 (%)"

    @cached_property
    def distinguishing_settings(self) -> tuple[str, ...]:
        """Settings that set the points of the questions apart, in order of first use.

        What the name of a section says already is not among them: an objective comes with settings of its own.
        """
        in_baselines = {name for baseline in self.manifest.baselines for name in baseline.points}
        points = [record.point for record in self.points.values() if record.name not in in_baselines]
        keys = dict.fromkeys(key for point in points for key in point.settings)
        varied = [key for key in keys if len({repr(point.settings.get(key)) for point in points}) > 1]
        return tuple(key for key in varied if not self._follows_name(key, varied))

    def _follows_name(self, key: str, varied: Sequence[str]) -> bool:
        name_key = f"{key.partition('.')[0]}.name"
        if key == name_key or name_key not in varied:
            return False
        values: dict[str, set[str]] = {}
        for record in self.points.values():
            settings = record.point.settings
            values.setdefault(repr(settings.get(name_key)), set()).add(repr(settings.get(key)))
        return all(len(found) == 1 for found in values.values())

    def count(self, status: Status) -> int:
        """Number of points in this state."""
        return sum(record.status == status for record in self.points.values())

    def value(self, record: PointRecord, key: str) -> Any:
        """Value of a dotted configuration key, or of a number of the plan, at a point; BASE_VALUE where nobody knows.

        A point that has not started has no configuration of its own yet: what it does not change, it shares with
        another point that does not change it either, and with the study's base.
        """
        if key in record.point.settings:
            return record.point.settings[key]
        if key in record.config:
            return record.config[key]
        if key in record.point.plan:
            return record.point.plan[key]
        same = (r for r in self.points.values() if key in r.config and key not in r.point.settings)
        return next((other.config[key] for other in same), self.base.get(key, BASE_VALUE))


def collect(directory: Path) -> StudyRecord:
    """The study in ``directory``. Raises FileNotFoundError or ConfigError where there is none."""
    manifest = read_manifest(directory)
    points = {point.name: _record(directory, point, manifest.probes) for point in manifest.points}
    linear = any(probe.task == "linear" for probe in manifest.probes) or not manifest.probes
    config = next((_nested(record.config) for record in points.values() if record.config), {})
    metric: Literal["top1", "knn_top1"] = "top1" if linear else "knn_top1"
    base = _settings(directory / "base.yaml")
    return StudyRecord(directory, manifest, points, config, metric, base, manifest.name)


def collect_all(directories: Sequence[Path]) -> list[StudyRecord]:
    """Several studies, each with a label of its own. Raises FileNotFoundError or ConfigError, also for one twice."""
    resolved = [directory.resolve() for directory in directories]
    twice = sorted({str(directory) for directory in resolved if resolved.count(directory) > 1})
    if twice:
        raise ConfigError("command line", [Problem("STUDY_DIR", f"{', '.join(twice)} is given twice")])
    studies = [collect(directory) for directory in directories]
    for label in ("manifest.name", "directory.name", "directory"):
        labels = [operator.attrgetter(label)(study) for study in studies]
        if len(set(map(str, labels))) == len(studies):
            break
    return [replace(study, label=str(text)) for study, text in zip(studies, labels)]


def _record(study: Path, point: Point, probes: tuple[Probe, ...]) -> PointRecord:
    run = RunDirectory(study / point.directory)
    read = read_run_result(run, point.fingerprint)
    training = read if isinstance(read, RunResult) else None
    evaluations, refused = read_evaluations(run, training) if training is not None else ((), ())
    asked = [run.evaluation(probe.task, probe.fingerprint) for probe in probes]
    results = [next((found for found in evaluations if found.directory == place), None) for place in asked]
    trained = [found for found in results if found is not None and found.initialisation == "pretrained"]
    measured = _measured(trained)
    metric = "top1" if any(probe.task == "linear" for probe in probes) or not probes else "knn_top1"
    first = next((found for found in trained if getattr(found, metric, None) is not None), None)
    status, detail = _status(run, training, probes, results, measured[metric])
    against = [read] if isinstance(read, Refused) else []
    against += [found for found in refused if found.path.parent in asked]
    if against and status != "finished":
        damaged = any(found.damaged for found in against)
        status, detail = "failed" if damaged else status, "; ".join(_short(found, run) for found in against)
    finished = status == "finished"
    return PointRecord(
        point=point,
        status=status,
        detail=detail,
        top1=measured[metric] if finished else None,
        top1_interval=getattr(first, "top1_interval", None) if finished else None,
        measured=measured,
        probe_seconds=first.seconds.get("total") if first is not None else None,
        training=training,
        environment=_environment(run),
        config=_config(run),
        evaluations=evaluations,
        refused=refused,
        curves=_curves(run),
    )


def _short(found: Refused, run: RunDirectory) -> str:
    return f"{found.path.relative_to(run.path)} {found.why}"


def _status(
    run: RunDirectory,
    training: RunResult | None,
    probes: tuple[Probe, ...],
    results: list[EvaluationResult | None],
    accuracy: float | None,
) -> tuple[Status, str]:
    if training is None:
        return _untrained(run)
    if accuracy is not None:
        absent = [probe.task for probe, result in zip(probes, results) if result is None]
        return "finished", f"without a result of {', '.join(absent)}" if absent else ""
    for probe, result in zip(probes, results):
        stage = f"{probe.task}-{probe.fingerprint}"
        if result is None and _launched(run, stage).get("state") == "failed":
            return "failed", f"evaluation '{probe.task}' failed; see {run.path.name}/logs/{stage}.log"
    if any(result is not None for result in results):
        return "not a number", "the evaluation has no finite accuracy"
    return "not evaluated", "trained, but without an evaluation"


def _untrained(run: RunDirectory) -> tuple[Status, str]:
    progress = _json(run.progress) or {}
    step, total = progress.get("step"), progress.get("total_steps")
    where = f" at step {step:,} of {total:,}" if isinstance(step, int) and isinstance(total, int) else ""
    launched = _launched(run, "train")
    if progress.get("state") == "diverged":
        return "diverged", f"the loss was not a finite number{where}"
    if progress.get("state") == "failed" or launched.get("state") == "failed":
        return "failed", f"training failed{where}"
    if progress or launched:
        return "unfinished", f"training has not finished{': it is' + where if where else ''}"
    return "not started", "no training yet"


def _launched(run: RunDirectory, stage: str) -> dict[str, Any]:
    """What the launcher noted of the latest start of a stage."""
    return _json(run.path / "logs" / f"{stage}.json") or {}


def _measured(results: Sequence[EvaluationResult]) -> dict[str, float | None]:
    """Each number of the first evaluation that has it."""
    found: dict[str, float | None] = dict.fromkeys(PROBE_NUMBERS)
    for result in results:
        for name in PROBE_NUMBERS:
            if found[name] is None:
                found[name] = getattr(result, name, None)
    return found


def _environment(run: RunDirectory) -> dict[str, Any]:
    found = _json(run.environment) or {}
    sessions = found.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions else found
    return last if isinstance(last, dict) else {}


def _curves(run: RunDirectory) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(row for row in read_json_lines(run.metrics) if isinstance(row, dict))
    except (ValueError, json.JSONDecodeError):
        return ()


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON mapping; None where the file is missing or damaged: nothing but a hint hangs on it."""
    try:
        found = read_json(path)
    except (ValueError, OSError):
        return None
    return found if isinstance(found, dict) else None


def _config(run: RunDirectory) -> dict[str, Any]:
    """Dotted keys of the run's configuration; of the one it was asked to run with, before it starts."""
    return _settings(run.config) or _settings(run.path / "requested.yaml")


def _settings(path: Path) -> dict[str, Any]:
    """Dotted keys of a YAML file; none where it is missing or damaged."""
    try:
        return flatten(read_yaml(path))
    except ConfigError:
        return {}


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in flat.items():
        node = found
        for part in key.split(".")[:-1]:
            node = node.setdefault(part, {})
        node[key.rpartition(".")[2]] = value
    return found
