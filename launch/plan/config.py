"""The schema of a study: what is varied, what is compared with, how it is measured, and where it runs. Torch-free.

A study starts from one pretraining configuration (``base``). Changes to it are written with dotted keys, and a mapping
replaces the whole section: ``objective: {name: supervised}`` leaves nothing of another objective behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from launch.plan.targets import LocalTarget, Target
from pretrain.configio import FilePath, Section, apply_overrides, parse_yaml, read_yaml, validate
from pretrain.errors import ConfigError, Problem

# `launch study` writes these into the study's directory, so that the directory alone is enough to continue it.
STUDY_FILE = "study.yaml"
BASE_FILE = "base.yaml"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Changes = dict[str, Any]
Axes = dict[str, Annotated[list[Any], Field(min_length=1)]]


class QuestionConfig(Section):
    """One figure. Every combination of ``grid`` with every row of ``zip`` is a point, once for each seed."""

    name: Name
    title: str
    x: str  # dotted configuration key, or the name of a number of the plan, e.g. negatives_per_anchor
    x_label: str
    x_scale: Literal["log2", "log", "linear", "category"] = "log2"  # category: names in their order, not numbers
    lines: str | None = None  # one curve for each value of this key
    set: Changes = Field(default={})
    grid: Axes = Field(default={})
    zip: Axes = Field(default={})  # lists of one length, whose i-th values belong together
    published: bool = False

    @model_validator(mode="after")
    def _axes(self) -> QuestionConfig:
        if not self.grid and not self.zip:
            raise ValueError("got no axis, expected grid: {key: [values]} or zip: {key: [values]}")
        both = sorted(set(self.grid) & set(self.zip))
        if both:
            raise ValueError(f"got {', '.join(both)} in grid and in zip, expected it in one of them")
        lengths = {key: len(values) for key, values in self.zip.items()}
        if len(set(lengths.values())) > 1:
            given = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise ValueError(f"got lists of different lengths in zip ({given}), expected as many values in each")
        if "seed" in {*self.grid, *self.zip, *self.set}:
            raise ValueError("got seed, expected it among the study's seeds alone")
        return self


class BaselineConfig(Section):
    """A row to compare with, once for each seed."""

    name: Name
    title: str
    set: Changes = Field(default={})


class ProbeConfig(Section):
    """An evaluation that every point gets."""

    task: str = "linear"
    set: Changes = Field(default={})


class StudyConfig(Section):
    """Everything that `launch study` needs to know."""

    name: Name
    title: str
    base: FilePath
    directory: FilePath | None = None  # runs/<name>
    set: Changes = Field(default={})
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)] = Field(default=[0, 1])
    questions: list[QuestionConfig] = Field(default=[])
    baselines: list[BaselineConfig] = Field(default=[])
    probes: list[ProbeConfig] = Field(default=[ProbeConfig()])
    target: Target = LocalTarget()

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"got {value}, expected different seeds")
        return value

    @model_validator(mode="after")
    def _named_once(self) -> StudyConfig:
        names = [question.name for question in self.questions] + [baseline.name for baseline in self.baselines]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"got {', '.join(twice)} twice, expected different names of questions and baselines")
        if not names:
            raise ValueError("got no points, expected at least one question or baseline")
        return self

    @property
    def study_directory(self) -> Path:
        """Where the study lives."""
        return self.directory or Path("runs") / self.name


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """The study that ``path`` describes: its YAML file, or the directory of a study that was started before.

    Paths in the file are relative to the file, paths in ``overrides`` to the working directory; ``set.KEY=VALUE``
    changes one dotted key of every point. Raises ConfigError with all problems at once.
    """
    file = path / STUDY_FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise ConfigError(str(path), [Problem("", f"is not a study: it has no {STUDY_FILE}; expected a study's YAML")])
    data = _with_target(read_yaml(file), file.parent)
    if isinstance(data.get("base"), str):
        data["base"] = str(file.parent / data["base"])
    if path.is_dir():  # it may have been moved
        data["directory"] = str(path)
    targets = [text for text in overrides if text.startswith("target=")]
    changes = [text for text in overrides if text.startswith("set.")]
    others = [text for text in overrides if text not in targets and text not in changes]
    data = _with_target(apply_overrides(data, targets), Path())
    data = _with_changes(_with_target(apply_overrides(data, others), Path()), changes)
    return validate(StudyConfig, data, str(file))


def _with_target(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``data`` with its target read from the file that ``target`` may name; a target without a name is local."""
    if isinstance(data.get("target"), str):
        data["target"] = read_yaml(folder / data["target"])
    if isinstance(data.get("target"), dict):
        data["target"] = {"name": "local", **data["target"]}
    return data


def _with_changes(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``data`` with each ``set.a.b=value`` added to its ``set`` as the dotted key "a.b", after the file's keys."""
    changes = dict(data.get("set") or {})
    for override in overrides:
        key, equals, text = override.removeprefix("set.").partition("=")
        if not key or not equals:
            raise ConfigError("command line", [Problem(override, "expected set.section.key=value, e.g. set.epochs=2")])
        changes.pop(key, None)
        changes[key] = parse_yaml(text, override)
    return {**data, "set": changes} if overrides else data
