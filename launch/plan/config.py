"""The schema of a study: what is varied, what is compared with, how it is measured, and where it runs. Torch-free.

A study starts from one pretraining configuration (``base``). Changes to it are written with dotted keys, and a mapping
replaces the whole section: ``objective: {name: supervised}`` leaves nothing of another objective behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from launch.plan.targets import LocalTarget, Target
from pretrain.config import KNOWN_AS, PretrainConfig
from pretrain.configio import (
    FilePath,
    PositiveInt,
    Section,
    apply_overrides,
    find_config,
    parse_yaml,
    read_yaml,
    validate,
)
from pretrain.errors import ConfigError, Problem

# `launch study` writes these into the study's directory, so that the directory alone is enough to continue it.
STUDY_FILE = "study.yaml"
BASE_FILE = "base.yaml"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Changes = dict[str, Any]
Axes = dict[str, Annotated[list[Any], Field(min_length=1)]]


class QuestionConfig(Section):
    """One figure. Every combination of ``grid`` with every row of ``zip`` is a point, once for each seed."""

    name: Name  # of its figure and files
    title: str = ""  # by default made from x
    x: str = ""  # dotted key, or a number of the plan, e.g. negatives_per_anchor; by default the first key of the grid
    x_label: str = ""  # of the axis; by default made from x
    x_scale: Literal["log2", "log", "linear", "category"] = "log2"  # category: names in their order, not numbers
    lines: str | None = None  # one curve for each value of this key
    set: Changes = Field(default={})  # dotted keys to values, for its runs
    grid: Axes = Field(default={})  # dotted keys to lists of values, all combined
    zip: Axes = Field(default={})  # lists of one length, whose i-th values belong together
    published: bool = False  # show the published curves beside it

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

    @model_validator(mode="before")
    @classmethod
    def _in_words(cls, given: Any) -> Any:
        """What a question need not say follows from its axes."""
        if not isinstance(given, dict):
            return given
        axes = [key for axis in ("grid", "zip") if isinstance(given.get(axis), dict) for key in given[axis]]
        x = given.get("x") or (axes[0] if axes else "")
        words = str(x).replace("_", " ").replace(".", ": ")
        words = words[:1].upper() + words[1:]
        said = {key: value for key, value in given.items() if value is not None}
        return {
            "title": f"Effect of {words[:1].lower()}{words[1:]}",
            **said,
            "x": x,
            "x_label": said.get("x_label") or words,
        }


class BaselineConfig(Section):
    """A row to compare with, once for each of ``seeds`` (the study's, where they are null).

    ranks: of its runs, where the study runs on this machine, so that it can repeat a question's point on others.
    """

    name: Name  # of its row
    title: str = ""  # its name by default
    set: Changes = Field(default={})  # dotted keys to values
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None  # null: the study's
    ranks: PositiveInt | None = None


class ProbeConfig(Section):
    """An evaluation that every point gets."""

    task: str = "linear"  # linear, knn, finetune, ... or package.module:Class
    set: Changes = Field(default={})  # settings of the evaluation


class StudyConfig(Section):
    """Everything that `bigbatch study` needs to know."""

    known_as: ClassVar[Mapping[str, str]] = {
        **{name: f"a setting of the runs: set.{meant}" for name, meant in KNOWN_AS.items()},
        **{name: f"a setting of the runs: set.{name}=..." for name in PretrainConfig.model_fields},
        **dict.fromkeys(("ranks", "gpus", "nproc_per_node"), "target.ranks"),
        **dict.fromkeys(("seed",), "seeds, a list"),
        **dict.fromkeys(("evaluations", "evals", "eval"), "probes"),
    }

    name: Name
    title: str = ""  # of the report; the name by default
    base: FilePath  # the pretraining configuration that every run starts from, relative to this file
    directory: FilePath | None = None  # runs/<name>
    set: Changes = Field(default={})  # dotted keys to values, for every run
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(default=[0, 1])  # every point is trained once with each
    questions: list[QuestionConfig] = Field(default=[])  # figures, each with its grid of runs
    baselines: list[BaselineConfig] = Field(default=[])  # rows to compare with
    probes: list[ProbeConfig] = Field(default=[ProbeConfig()])  # evaluations that every run gets
    target: Target = LocalTarget()  # where runs run
    # What this start runs: questions, baselines or points by (a part of) their name; no part of what the study is.
    only: list[str] = Field(default=[], exclude=True)

    @field_validator("seeds", mode="before")
    @classmethod
    def _list(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(
                f"got {value}, expected a list: seeds=[{value}] for that one, or {list(range(3))} for three"
            )
        return value

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
        if "seed" in self.set or any("seed" in baseline.set for baseline in self.baselines):
            raise ValueError("got seed in set, expected it among the study's seeds alone")
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
    file = path / STUDY_FILE if path.is_dir() else find_config("study", path)
    if path.is_dir() and not file.is_file():
        raise ConfigError(str(path), [Problem("", f"is not a study: it has no {STUDY_FILE}; expected a study's YAML")])
    if is_pretraining(file):
        expected = f"bigbatch pretrain {path} trains it, bigbatch plan {path} shows its numbers"
        raise ConfigError(str(path), [Problem("", f"is a pretraining configuration, expected a study; {expected}")])
    data = _with_target(read_yaml(file), file.parent)
    if isinstance(data.get("base"), str):
        data["base"] = str(file.parent / data["base"])
    if path.is_dir():  # it may have been moved
        data["directory"] = str(path)
    study = validate(StudyConfig, with_overrides(data, overrides), str(file), overrides)
    set_for_all = [text.removeprefix("set.").partition("=")[0] for text in overrides if text.startswith("set.")]
    problems = [
        Problem(
            f"set.{key}", f"has no effect where questions.{question.name} sets it itself; change that, or use --only"
        )
        for key in set_for_all
        for question in study.questions
        if key in {*question.grid, *question.zip, *question.set} and not study.only
    ]
    if problems:
        raise ConfigError("command line", problems)
    return study


def with_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of a study with overrides: target=FILE first, set.KEY=VALUE last. Raises ConfigError."""
    targets = [text for text in overrides if text.startswith("target=")]
    changes = [text for text in overrides if text.startswith("set.")]
    others = [text for text in overrides if text not in targets and text not in changes]
    with_target = _with_target(apply_overrides(data, targets), Path())
    return _with_changes(_with_target(apply_overrides(with_target, others), Path()), changes)


def is_pretraining(path: Path) -> bool:
    """Whether ``path`` names the configuration of a run rather than of a study. Raises ConfigError."""
    if path.is_dir() or (not path.exists() and find_config("study", path, missing_ok=True).is_file()):
        return False
    keys = set(read_yaml(find_config("pretrain", path)))
    return bool(keys & set(PretrainConfig.model_fields)) and not keys & set(StudyConfig.model_fields)


def _with_target(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """``data`` with its target read from the file that ``target`` may name; a target without a name is local."""
    if isinstance(data.get("target"), str):
        beside = folder / data["target"]
        data["target"] = read_yaml(beside if beside.exists() else find_config("target", Path(data["target"])))
    if isinstance(data.get("target"), dict):
        data["target"] = {"name": "local", **data["target"]}
    return data


def _with_changes(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``data`` with each ``set.a.b=value`` added to its ``set`` as the dotted key "a.b", after the file's keys."""
    changes = data.get("set") or {}
    if not isinstance(changes, dict):
        raise ConfigError("command line", [Problem("set", f"got {changes!r}, expected dotted keys: set.epochs=2")])
    changes = dict(changes)
    for override in overrides:
        key, equals, text = override.removeprefix("set.").partition("=")
        if not key or not equals:
            raise ConfigError("command line", [Problem(override, "expected set.section.key=value, e.g. set.epochs=2")])
        changes.pop(key, None)
        changes[key] = parse_yaml(text, override)
    return {**data, "set": changes} if overrides else data
