"""study.json: what a study consists of, written by the launcher and read by the report. Torch-free.

A study directory holds study.json, and each point is a run directory (see `pretrain.rundir`) below points/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pretrain.configio import Section, validate
from pretrain.errors import ConfigError, Problem
from pretrain.rundir import read_json, write_json

FILE_NAME = "study.json"
REPORT_FILE = "report/report.html"  # relative to the study directory; written last


class Probe(Section):
    """One evaluation that every point gets; its result is points/<point>/eval/<task>-<fingerprint>/result.json."""

    task: str
    fingerprint: str
    overrides: tuple[str, ...] = ()  # section.key=value as on the command line


class Point(Section):
    """One pretraining run of the study."""

    name: str  # readable and unique within the study, e.g. global_batch_size=256,seed=0
    directory: str  # relative to the study directory
    fingerprint: str
    seed: int
    world_size: int
    settings: dict[str, Any]  # what differs from the base configuration, dotted keys, without the seed
    plan: dict[str, Any]  # TrainPlan.to_json()
    command: str  # one line that reproduces the point


class Curve(Section):
    """Points of one question that share one line of its figure: ``x[i]`` is where ``points[i]`` stands."""

    label: str
    x: tuple[float, ...]
    points: tuple[str, ...]  # names of points; several seeds share one x


class Question(Section):
    """One figure: accuracy against ``x_key``."""

    name: str
    title: str
    x_key: str  # dotted configuration key, or the name of a number of the plan
    x_label: str
    x_scale: Literal["log2", "log", "linear", "category"] = "log2"
    categories: tuple[str, ...] = ()  # what x = 0, 1, 2, ... are called, where x_scale is category
    curves: tuple[Curve, ...]
    published: bool = False  # a panel of published batch-size curves belongs beside it


class Baseline(Section):
    """A row to compare with, e.g. the random encoder."""

    name: str
    title: str
    points: tuple[str, ...]


class StudyManifest(Section):
    """Everything that the report and the status need to know about a study."""

    name: str
    title: str
    source: str  # the study's YAML
    base: str  # the pretraining YAML it starts from
    git_revision: str | None = None
    probes: tuple[Probe, ...]
    questions: tuple[Question, ...]
    baselines: tuple[Baseline, ...] = ()
    points: tuple[Point, ...]


def write_manifest(directory: Path, manifest: StudyManifest) -> None:
    """Write ``directory``/study.json whole."""
    write_json(directory / FILE_NAME, manifest.model_dump(mode="json"))


def read_manifest(directory: Path) -> StudyManifest:
    """The manifest of the study in ``directory``. Raises FileNotFoundError or ConfigError, naming the file."""
    path = directory / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{directory} is not a study: it has no {FILE_NAME} (`launch study` writes it)")
    try:
        content = read_json(path)
    except ValueError as error:
        again = "start the study again: what has finished is kept, and the file is written anew"
        raise ConfigError(str(path), [Problem("", f"{str(error).removeprefix(f'{path} ')}; {again}")]) from None
    return validate(StudyManifest, _tuples(content), str(path))


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that the strict schema wants."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value
