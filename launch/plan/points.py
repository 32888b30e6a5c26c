"""The points that a study asks for: changes to the base configuration, validated and planned. Torch-free.

A question asks for points (`PointRequest`); requests that mean the same result are one point (`StudyPoint`), which is
trained once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.study_manifest import Point
from launch.plan.command_lines import command_line, training_command
from launch.plan.config import Changes, QuestionConfig, StudyConfig
from launch.plan.targets import LocalTarget, Target, on_ranks
from pretrain.config import DataConfig, PretrainConfig, fingerprint
from pretrain.configio import deep_copy, flatten, set_by_path, validate
from pretrain.data.catalog import beton_path, existing_beton, image_count
from pretrain.errors import ConfigError, Problem
from pretrain.plan import TrainPlan, make_plan
from pretrain.schema import drop_of_other_kind

# What other trainers call the batch that each GPU gets.
BATCH_OF_ONE_GPU = ("batch_size", "batch_size_per_gpu", "batch_size_per_rank", "per_gpu_batch_size", "local_batch_size")


@dataclass(frozen=True)
class PointRequest:
    """A point that a question or a baseline asks for.

    owner: the question or baseline, e.g. ``questions.batch_size``.
    changes: dotted keys to values, in the order in which they are set; without the seed.
    what: how the point differs from the owner's others, e.g. ``global_batch_size=256``. ranks: None for the target's.
    """

    owner: str
    changes: Changes
    what: str
    seed: int
    ranks: int | None = None

    @property
    def label(self) -> str:
        """For a person, e.g. ``global_batch_size=256,seed=0``."""
        return f"{self.what},seed={self.seed}"


@dataclass(frozen=True)
class StudyPoint:
    """One run of the study: its entry in the manifest, its configuration, its derived numbers.

    Its name is the label of the first request for it.
    """

    entry: Point
    config: PretrainConfig
    plan: TrainPlan

    @property
    def images_seen(self) -> int:
        """Images that the whole run looks at."""
        return self.plan.total_steps * self.plan.global_batch_size


def point_requests(study: StudyConfig) -> list[PointRequest]:
    """Every point that ``study`` asks for, questions first; the same run may be asked for many times."""
    found = []
    for question in study.questions:
        for varied in combinations(question):
            changes = {**study.set, **question.set, **varied}
            what = ",".join(f"{short_key(key)}={short_value(value)}" for key, value in varied.items())
            found += [PointRequest(f"questions.{question.name}", changes, what, seed) for seed in study.seeds]
    for baseline in study.baselines:
        changes, ranks = {**study.set, **baseline.set}, baseline.ranks
        owner = f"baselines.{baseline.name}"
        if ranks is None or isinstance(study.target, LocalTarget):
            seeds = baseline.seeds or study.seeds
            found += [PointRequest(owner, changes, baseline.name, seed, ranks) for seed in seeds]
    return found


def combinations(question: QuestionConfig) -> Iterator[Changes]:
    """Every combination of the question's grid with every row of its zip, as dotted keys to values."""
    axes: list[list[Changes]] = [[{key: value} for value in values] for key, values in question.grid.items()]
    if question.zip:
        axes.append([dict(zip(question.zip, row)) for row in zip(*question.zip.values(), strict=True)])
    for combination in itertools.product(*axes):
        yield {key: value for part in combination for key, value in part.items()}


def plan_points(
    study: StudyConfig, base: Mapping[str, Any], asked: Sequence[PointRequest], source: str
) -> tuple[list[StudyPoint | None], list[Problem]]:
    """(the point of every request, None where it cannot be planned; every problem once, with where it occurs).

    Requests for the same result, that is of one fingerprint, on as many ranks share one entry of the manifest; each
    keeps its own configuration, since the value on its axis need not be part of the fingerprint.
    """
    planned: list[StudyPoint | None] = []
    planner = _Planner(study, base, source)
    found: dict[tuple[str, str], list[PointRequest]] = {}
    for request in asked:
        try:
            planned.append(planner.point_of(request))
        except ConfigError as error:
            planned.append(None)
            for problem in error.problems:
                found.setdefault((problem.where, problem.message), []).append(request)
    return planned, [_shared_problem(*key, having, asked) for key, having in found.items()]


class _Planner:
    """Plans one request after the other; keeps what they share."""

    def __init__(self, study: StudyConfig, base: Mapping[str, Any], source: str) -> None:
        self._study, self._base, self._source = study, base, source
        self._base_settings = _base_settings(base)
        self._existing = _existing_directories(study.study_directory)
        self._images: dict[tuple[str, Path, str], int] = {}  # of each split: reading its index costs more than planning
        self._entries: dict[str, Point] = {}
        self._names: set[str] = set()

    def point_of(self, request: PointRequest) -> StudyPoint:
        """The point of ``request``, under the name of the first request for the same result. Raises ConfigError."""
        config, target = _config_of(self._base, request, self._source), on_ranks(self._study.target, request.ranks)
        plan = make_plan(
            config,
            images=self._image_count(config.data),
            world_size=target.ranks,
            ranks_per_node=target.ranks_per_node,
            source=self._source,
        )
        key = plan.fingerprint if target.ranks == self._study.target.ranks else f"{plan.fingerprint}x{target.ranks}"
        if key not in self._entries:
            self._entries[key] = self._entry(key, request.label, config, plan, target)
        return StudyPoint(self._entries[key], config, plan)

    def _entry(self, key: str, label: str, config: PretrainConfig, plan: TrainPlan, target: Target) -> Point:
        name = label if label not in self._names else f"{label},{key[:6]}"
        self._names.add(name)
        directory = self._existing.get(key) or f"points/{_slug(name)}-{key}"
        command = training_command(self._study.study_directory / directory, target)
        return Point(
            name=name,
            directory=directory,
            fingerprint=plan.fingerprint,
            seed=config.seed,
            world_size=target.ranks,
            settings=_differences(self._base_settings, config),
            plan=plan.to_json(),
            command=command_line(command),
        )

    def _image_count(self, data: DataConfig) -> int:
        key = (data.dataset, data.directory, data.split)
        if key not in self._images:
            self._images[key] = _count_images(data, self._source)
        return self._images[key]


def _existing_directories(directory: Path) -> dict[str, str]:
    """Fingerprint to relative directory of the points on disk, under whatever name they were started."""
    return {path.name.rpartition("-")[2]: f"points/{path.name}" for path in sorted((directory / "points").glob("*-*"))}


def _slug(name: str) -> str:
    # A file name may have 255 bytes; 100 leave room for the fingerprint, and for whatever a file system adds.
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace(",", "-"))[:100]


def _config_of(base: Mapping[str, Any], request: PointRequest, source: str) -> PretrainConfig:
    """``base`` with the request's changes. Raises ConfigError."""
    data = deep_copy(base)
    problems = []
    for key, value in {**request.changes, "seed": request.seed}.items():
        if key.rpartition(".")[2] in BATCH_OF_ONE_GPU:
            expected = "expected global_batch_size: a change of GPUs must not change it, and with it the experiment"
            problems.append(Problem(key, f"is the batch of one GPU; {expected}"))
            continue
        try:
            set_by_path(data, key, deep_copy(value) if isinstance(value, Mapping) else value)
        except ValueError as error:
            problems.append(Problem(key, str(error)))
    if problems:
        raise ConfigError(source, problems)
    drop_of_other_kind(PretrainConfig, base, data, list(request.changes))
    return validate(PretrainConfig, data, source)


def _count_images(data: DataConfig, source: str) -> int:
    """Number of images of the split. Raises ConfigError where it is unknown, or the file holds another data set."""
    try:
        images = image_count(data.dataset, data.directory, data.split)
        if beton_path(data.directory, data.split).is_file():
            existing_beton(data.dataset, data.directory, data.split)
    except ValueError as error:
        raise ConfigError(source, [Problem("data.directory", str(error))]) from error
    if images is None:
        hint = f"write it: bigbatch data write {data.dataset} {data.directory}"
        message = f"got {data.directory}, which has no split '{data.split}', and its size is not known; {hint}"
        raise ConfigError(source, [Problem("data.directory", message)])
    return images


def _base_settings(base: Mapping[str, Any]) -> Changes:
    """The base's settings by dotted key, defaults included where it is complete without the study's own."""
    try:
        return flatten(validate(PretrainConfig, base, "base").model_dump(mode="json"))
    except ConfigError:
        return flatten(base)


def _differences(before: Changes, config: PretrainConfig) -> Changes:
    """Dotted keys whose value is not the base's, without the seed."""
    after = flatten(config.model_dump(mode="json"))
    return {key: value for key, value in after.items() if key != "seed" and before.get(key, ...) != value}


def _shared_problem(where: str, message: str, having: Sequence[PointRequest], asked: Sequence[PointRequest]) -> Problem:
    """One problem, and where it occurs: everywhere (then nothing is added), in whole questions, or at single points."""
    if len(having) == len(asked):
        return Problem(where, message)
    owners = []
    for owner in dict.fromkeys(request.owner for request in having):
        mine = [request for request in having if request.owner == owner]
        if len(mine) == sum(request.owner == owner for request in asked):
            owners.append(owner)
        else:
            owners.append(f"{owner} at {'; '.join(dict.fromkeys(request.what for request in mine))}")
    return Problem(f"{where} (in {', '.join(owners)})", message)


def short_key(key: str) -> str:
    """Last part of a dotted key, with its section where the last part alone is ambiguous."""
    parts = key.split(".")
    return ".".join(parts[-2:]) if parts[-1] in ("name", "layers", "width", "images") else parts[-1]


def short_value(value: Any) -> str:
    """A value as part of a name: numbers and words as they are, a section by its name."""
    if isinstance(value, Mapping):
        return str(value["name"]) if "name" in value else fingerprint(dict(value))[:6]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "-".join(short_value(item) for item in value)
    return re.sub(r"\s+", "_", str(value))
