"""Everything that a report says, read from a study's directory. What is missing stays None; nothing becomes 0."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from eval.schema import EvaluationResult, Refused, RunResult, finite, read_evaluations, read_run_result
from eval.study_manifest import Point, Probe, StudyManifest, read_manifest
from pretrain.configio import flatten, read_yaml
from pretrain.errors import ConfigError, Problem
from pretrain.format import plural
from pretrain.rundir import RunDirectory, read_json

Status = Literal["finished", "not evaluated", "without accuracy", "diverged", "failed", "unfinished", "not started"]

BASE_VALUE = "as in the base"
PROBE_NUMBERS = ("top1", "top5", "per_class_mean", "knn_top1", "knn_plain_top1", "l2")

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by ``key``, in the order of first appearance."""
    found: dict[Key, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the known ones; None where there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class Metric(NamedTuple):
    """The accuracy of a run that a study is about: of which evaluation, what it is called, and where it is."""

    task: str
    name: str
    of: Callable[[Any], float | None]


def _fine_tuned(result: Any) -> float | None:
    """Of the largest share of labels."""
    rows = [row for row in getattr(result, "rows", ()) if getattr(row, "name", "") == "fine-tuned"]
    return max(rows, key=lambda row: row.label_fraction or 0.0).top1 if rows else None


# The first that a study asks for; those that measure no accuracy of the encoder are not among them.
METRICS = (
    Metric("linear", "Top-1", lambda result: getattr(result, "top1", None)),
    Metric("knn", "Nearest-neighbour top-1", lambda result: getattr(result, "knn_top1", None)),
    Metric("finetune", "Fine-tuned top-1", _fine_tuned),
    Metric("transfer", "Mean transfer top-1", lambda result: getattr(result, "mean_top1", None)),
    Metric("distill", "Student's top-1", lambda result: getattr(getattr(result, "student", None), "top1", None)),
)


def metric_of(tasks: Sequence[str]) -> Metric:
    """The metric of a study with these evaluations; an evaluation of somebody's own may have a top1."""
    return next((metric for metric in METRICS if metric.task in tasks), METRICS[0])


@dataclass(frozen=True)
class PointRecord:
    """One point of the study as its files tell it. Accuracies in percent, times in seconds."""

    point: Point
    status: Status
    detail: str = ""
    top1: float | None = None
    top1_interval: tuple[float, float] | None = None
    held_out: float | None = None  # of the held-out training images by which the evaluation chose its settings
    measured: dict[str, float | None] = field(default_factory=dict)  # PROBE_NUMBERS of a finished point
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
    metric: Metric
    base: dict[str, Any]  # dotted keys of the study's base.yaml
    label: str  # of this study among several; its name where that is enough

    @cached_property
    def config(self) -> dict[str, Any]:
        """Dotted keys of the first configuration that a point has."""
        return next((record.config for record in self.points.values() if record.config), {})

    @property
    def metric_label(self) -> str:
        """What the vertical axis of every figure shows."""
        return f"{'Linear-probe top-1' if self.metric.task == 'linear' else self.metric.name} (%)"

    @cached_property
    def _baseline_points(self) -> frozenset[str]:
        return frozenset(name for baseline in self.manifest.baselines for name in baseline.points)

    def compared(self, record: PointRecord) -> bool:
        """Whether a point is a baseline's."""
        return record.name in self._baseline_points

    @cached_property
    def distinguishing_settings(self) -> tuple[str, ...]:
        """Settings that set the points of the questions apart, in order of first use.

        What the name of a section says already is not among them: an objective comes with settings of its own.
        """
        every = [record.point.settings for record in self.points.values()]
        asked = [record.point.settings for record in self.points.values() if not self.compared(record)]
        keys = dict.fromkeys(key for settings in asked for key in settings)
        varied = [key for key in keys if len({repr(settings.get(key)) for settings in asked}) > 1]

        def follows(key: str, name: str) -> bool:
            pairs = {(repr(settings.get(name)), repr(settings.get(key))) for settings in every}
            return key != name and name in varied and len(pairs) == len({value for value, _ in pairs})

        return tuple(key for key in varied if not follows(key, f"{key.partition('.')[0]}.name"))

    @cached_property
    def _varied_at(self) -> dict[str, frozenset[str]]:
        """Point to the settings that vary in a question that it belongs to, at the base's own value too."""
        found: dict[str, frozenset[str]] = {}
        for question in self.manifest.questions:
            names = {name for curve in question.curves for name in curve.points if name in self.points}
            keys = {key for name in names for key in self.points[name].point.settings}
            varied = {k for k in keys if len({repr(self.value(self.points[name], k)) for name in names}) > 1}
            found.update({name: found.get(name, frozenset()) | varied for name in names})
        return found

    def label_settings(self, record: PointRecord) -> dict[str, Any]:
        """What sets a point apart from the others of its questions, and what it changes of the base."""
        keys = self._varied_at.get(record.name, frozenset()) | record.point.settings.keys()
        values = {key: self.value(record, key) for key in self.distinguishing_settings if key in keys}
        return {key: value for key, value in values.items() if value != BASE_VALUE}

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
    metric = metric_of([probe.task for probe in manifest.probes])
    points = {point.name: _record(directory, point, manifest.probes, metric) for point in manifest.points}
    return StudyRecord(directory, manifest, points, metric, _settings(directory / "base.yaml"), manifest.name)


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


def _record(study: Path, point: Point, probes: Sequence[Probe], metric: Metric) -> PointRecord:
    run = RunDirectory(study / point.directory)
    read = read_run_result(run, point.fingerprint)
    training = read if isinstance(read, RunResult) else None
    evaluations, refused = read_evaluations(run, training) if training is not None else ((), ())
    asked = [run.evaluation(probe.task, probe.fingerprint) for probe in probes]
    results = [next((found for found in evaluations if found.directory == place), None) for place in asked]
    trained = [found for found in results if found is not None and found.initialisation == "pretrained"]
    first = next((found for found in trained if metric.of(found) is not None), None)
    finished, top1 = first is not None, metric.of(first)
    if training is None:
        status, detail = _untrained(run)
    else:
        status, detail = _evaluated(run, probes, results, finished)
    against = [found for found in (read, *refused) if isinstance(found, Refused)]
    against = [found for found in against if found.path.parent in (run.path, *asked)]
    if against and not finished:
        status = "failed" if any(found.damaged for found in against) else status
        detail = "; ".join(f"{found.path.relative_to(run.path)} {found.why}" for found in against)
    curves, damaged = _curves(run)
    return PointRecord(
        point=point,
        status=status,
        detail=detail,
        measured=_measured(trained) | ({} if metric.task in ("linear", "knn") else {"top1": top1}) if finished else {},
        top1=top1,
        top1_interval=getattr(first, "top1_interval", None),
        held_out=max((v for row in getattr(first, "grid", ()) if (v := finite(row.get("held_out")))), default=None),
        probe_seconds=first.seconds.get("total") if first is not None else None,
        training=training,
        environment=_environment(run),
        config=_settings(run.config) or _settings(run.path / "requested.yaml"),  # what it was asked to run with
        evaluations=evaluations,
        refused=(*refused, *damaged),
        curves=curves,
    )


def _evaluated(
    run: RunDirectory, probes: Sequence[Probe], results: Sequence[EvaluationResult | None], finished: bool
) -> tuple[Status, str]:
    """Of a run whose training has ended."""
    absent = [probe for probe, result in zip(probes, results) if result is None]
    if finished:
        return "finished", f"without a result of {', '.join(probe.task for probe in absent)}" if absent else ""
    for probe in absent:
        stage = f"{probe.task}-{probe.fingerprint}"
        if _launched(run, stage).get("state") == "failed":
            return "failed", f"evaluation '{probe.task}' failed; see {run.path.name}/logs/{stage}.log"
    if len(absent) < len(results):
        return "without accuracy", "the evaluation has no finite accuracy"
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
    known = {name: [getattr(result, name, None) for result in results] for name in PROBE_NUMBERS}
    return {name: next((v for v in values if v is not None), None) for name, values in known.items()}


def _environment(run: RunDirectory) -> dict[str, Any]:
    found = _json(run.environment) or {}
    sessions = found.get("sessions")
    last = sessions[-1] if isinstance(sessions, list) and sessions else found
    known = last if isinstance(last, dict) else {}
    packages = known.get("packages")
    return {**known, "packages": packages if isinstance(packages, dict) else {}} if known else {}


def _curves(run: RunDirectory) -> tuple[tuple[dict[str, Any], ...], list[Refused]]:
    """(rows of metrics.jsonl, what is said of those that are damaged); a line that is being written does not count."""
    try:
        *lines, last = run.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return (), []
    read = [_row(line) for line in lines if line.strip()]
    rows = [row for row in (*read, _row(last)) if row is not None]
    bad = read.count(None)
    return tuple(rows), [Refused(run.metrics, f"has {plural(bad, 'damaged line')}, left out")] if bad else []


def _row(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON mapping; None where the file is missing or damaged: nothing but a hint hangs on it."""
    try:
        found = read_json(path)
    except (ValueError, OSError):
        return None
    return found if isinstance(found, dict) else None


def _settings(path: Path) -> dict[str, Any]:
    """Dotted keys of a YAML file; none where it is missing or damaged."""
    try:
        return flatten(read_yaml(path))
    except ConfigError:
        return {}
