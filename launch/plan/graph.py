"""A study as a graph: points that are each done once, their evaluations, their figures. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eval.config import evaluation_config, evaluation_fingerprint
from eval.study_manifest import FILE_NAME, Baseline, Curve, Probe, Question, StudyManifest, read_manifest
from launch.plan.config import BaselineConfig, QuestionConfig, StudyConfig
from launch.plan.points import PointRequest, StudyPoint, plan_points, point_requests, short_value
from pretrain.config import KNOWN_AS
from pretrain.configio import flatten, override_text, read_yaml
from pretrain.errors import ConfigError, Problem, did_you_mean
from pretrain.plan import TrainPlan
from pretrain.rundir import RunDirectory, git_revision

PLAN_NUMBERS = tuple(field.name for field in fields(TrainPlan) if field.name != "fingerprint")


@dataclass(frozen=True)
class StudyGraph:
    """Everything that follows from a study's configuration."""

    config: StudyConfig
    base: dict[str, Any]
    directory: Path
    manifest: StudyManifest
    points: tuple[StudyPoint, ...]

    def run(self, point: StudyPoint) -> RunDirectory:
        """Where the point lives."""
        return RunDirectory(self.directory / point.entry.directory)


def build_graph(study: StudyConfig, source: str) -> StudyGraph:
    """The points of ``study``, each planned on the target's ranks, and its manifest.

    Runs that mean the same result are one point. Raises ConfigError with every problem of every point.
    """
    base = read_yaml(study.base)
    asked = point_requests(study)
    planned, problems = plan_points(study, base, asked, source)
    problems += _axis_problems(study, asked, planned)
    probes, probe_problems = _probes(study)
    problems += probe_problems
    if problems:
        raise ConfigError(source, problems)
    placed = [(request, point) for request, point in zip(asked, planned, strict=True) if point is not None]
    unique: dict[str, StudyPoint] = {}
    for _, point in placed:
        unique.setdefault(point.entry.directory, point)
    points = tuple(unique.values())
    source, base_name = _origin(study, source)
    manifest = StudyManifest(
        name=study.name,
        title=study.title or study.name,
        source=source,
        base=base_name,
        git_revision=git_revision(),
        probes=probes,
        questions=tuple(_question(question, placed) for question in study.questions),
        baselines=tuple(
            Baseline(
                name=baseline.name,
                title=baseline.title or baseline.name,
                points=tuple(point.entry.name for request, point in placed if request.owner == _owner(baseline)),
            )
            for baseline in study.baselines
        ),
        points=tuple(point.entry for point in points),
    )
    return StudyGraph(study, base, study.study_directory, manifest, points)


def _owner(asking: QuestionConfig | BaselineConfig) -> str:
    return f"{'questions' if isinstance(asking, QuestionConfig) else 'baselines'}.{asking.name}"


def _origin(study: StudyConfig, source: str) -> tuple[str, str]:
    """(study YAML, base YAML) that the study was first started from; the manifest has them where only DIR was given."""
    directory = study.study_directory
    if Path(source).resolve() == directory.resolve() and (directory / FILE_NAME).is_file():
        manifest = read_manifest(directory)
        return manifest.source, manifest.base
    return source, str(study.base)


def _question(question: QuestionConfig, placed: Sequence[tuple[PointRequest, StudyPoint]]) -> Question:
    curves: dict[str, dict[tuple[float, str], None]] = {}
    own = [point for request, point in placed if request.owner == _owner(question)]
    named = question.x_scale == "category"
    categories = list(dict.fromkeys(short_value(_value(question.x, point)) for point in own)) if named else []
    for point in own:
        label = ""
        if question.lines is not None:
            label = f"{question.lines.rpartition('.')[2]} = {short_value(_value(question.lines, point))}"
        value = _value(question.x, point)
        x = categories.index(short_value(value)) if named else value
        curves.setdefault(label, {})[float(x), point.entry.name] = None
    return Question(
        name=question.name,
        title=question.title,
        x_key=question.x,
        x_label=question.x_label,
        x_scale=question.x_scale,
        categories=tuple(categories),
        curves=tuple(
            Curve(label=label, x=tuple(x for x, _ in pairs), points=tuple(name for _, name in pairs))
            for label, pairs in curves.items()
        ),
        published=question.published,
    )


def _axis_problems(
    study: StudyConfig, asked: Sequence[PointRequest], planned: Sequence[StudyPoint | None]
) -> list[Problem]:
    """Problems of the questions' axes: unknown keys, and values that are not numbers."""
    problems = []
    for question in study.questions:
        pairs = zip(asked, planned, strict=True)
        own = [p for request, p in pairs if p is not None and request.owner == _owner(question)]
        for role, key in (("x", question.x), ("lines", question.lines)):
            if key is None or not own:
                continue
            where = f"questions.{question.name}.{role}"
            valid = [*PLAN_NUMBERS, *flatten(own[0].config.model_dump(mode="json"))]
            if any(_value(key, point) is _UNKNOWN for point in own):
                hint = f" (now {KNOWN_AS[key]})" if key in KNOWN_AS else did_you_mean(key, valid)
                known = f"expected a dotted configuration key or one of {', '.join(PLAN_NUMBERS)}"
                problems.append(Problem(where, f"got '{key}'{hint}; {known}"))
                continue
            if question.x_scale == "category":
                continue
            odd = [value for point in own if not _is_number(value := _value(key, point))]
            if role == "x" and odd:
                expected = f"expected numbers, such as the plan's ({', '.join(PLAN_NUMBERS)}), or x_scale: category"
                problems.append(Problem(where, f"'{key}' is {odd[0]!r} at some point; {expected}"))
            elif role == "x" and question.x_scale != "linear" and min(_value(key, point) for point in own) <= 0:
                problems.append(
                    Problem(where, f"'{key}' is not positive at some point; expected x_scale: linear for it")
                )
    return problems


_UNKNOWN = object()


def _value(key: str, point: StudyPoint) -> Any:
    if key in PLAN_NUMBERS:
        return getattr(point.plan, key)
    node: Any = point.config.model_dump(mode="json")
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return _UNKNOWN
        node = node[part]
    return node


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _probes(study: StudyConfig) -> tuple[tuple[Probe, ...], list[Problem]]:
    probes: dict[tuple[str, str], Probe] = {}
    problems = []
    for number, asked in enumerate(study.probes):
        overrides = tuple(f"{key}={override_text(value)}" for key, value in asked.set.items())
        try:
            fingerprint = evaluation_fingerprint(asked.task, evaluation_config(asked.task, overrides))
        except ConfigError as error:
            problems += [
                Problem(f"probes.{number}.{problem.where}".rstrip("."), problem.message) for problem in error.problems
            ]
            continue
        probe = Probe(task=asked.task, fingerprint=fingerprint, overrides=overrides)
        probes.setdefault((asked.task, fingerprint), probe)
    return tuple(probes.values()), problems
