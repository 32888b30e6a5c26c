"""The points that a study asks for: changes to the base configuration, validated and planned. Torch-free."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.plan.config import Changes, QuestionConfig, StudyConfig
from launch.plan.targets import Target
from pretrain.config import DataConfig, PretrainConfig, fingerprint
from pretrain.configio import deep_copy, flatten, set_by_path, validate
from pretrain.data.catalog import beton_path, existing_beton, image_count
from pretrain.errors import ConfigError, Problem
from pretrain.plan import TrainPlan, make_plan

# What other trainers call the batch that each GPU gets.
BATCH_OF_ONE_GPU = ("batch_size", "batch_size_per_gpu", "batch_size_per_rank", "per_gpu_batch_size", "local_batch_size")


@dataclass(frozen=True)
class PointRequest:
    """A point that a question or a baseline asks for.

    owner: who asks, e.g. ``questions.batch_size``.
    changes: dotted keys to values, in the order in which they are set; without the seed.
    what: what sets the point apart from the owner's others, e.g. ``global_batch_size=256``.
    """

    owner: str
    changes: Changes
    what: str
    seed: int

    @property
    def label(self) -> str:
        """For a person, e.g. ``global_batch_size=256,seed=0``."""
        return f"{self.what},seed={self.seed}"


@dataclass(frozen=True)
class PlannedPoint:
    """A run of the study. ``label`` is what the first to ask for it called it."""

    label: str
    config: PretrainConfig
    plan: TrainPlan
    settings: Changes


def point_requests(study: StudyConfig) -> list[PointRequest]:
    """Every point that ``study`` asks for, questions first; the same run may be asked for many times."""
    found = []
    for question in study.questions:
        for varied in combinations(question):
            changes = {**study.set, **question.set, **varied}
            what = ",".join(f"{short_key(key)}={short_value(value)}" for key, value in varied.items())
            found += [PointRequest(f"questions.{question.name}", changes, what, seed) for seed in study.seeds]
    for baseline in study.baselines:
        changes = {**study.set, **baseline.set}
        found += [PointRequest(f"baselines.{baseline.name}", changes, baseline.name, seed) for seed in study.seeds]
    return found


def combinations(question: QuestionConfig) -> Iterator[Changes]:
    """Every combination of the question's grid with every row of its zip, as dotted keys to values."""
    axes: list[list[Changes]] = [[{key: value} for value in values] for key, values in question.grid.items()]
    if question.zip:
        axes.append([dict(zip(question.zip, row)) for row in zip(*question.zip.values(), strict=True)])
    for combination in itertools.product(*axes):
        yield {key: value for part in combination for key, value in part.items()}


def plan_points(
    base: Mapping[str, Any], asked: Sequence[PointRequest], *, target: Target, source: str
) -> tuple[list[PlannedPoint | None], list[Problem]]:
    """(the planned point of every request, None where it cannot be; every problem once, with who has it)."""
    planned: list[PlannedPoint | None] = []
    before = _base_settings(base)
    found: dict[tuple[str, str], list[PointRequest]] = {}
    for request in asked:
        try:
            planned.append(_plan_point(base, before, request, target=target, source=source))
        except ConfigError as error:
            planned.append(None)
            for problem in error.problems:
                found.setdefault((problem.where, problem.message), []).append(request)
    return planned, [_shared_problem(*key, having, asked) for key, having in found.items()]


def _plan_point(
    base: Mapping[str, Any], before: Changes, request: PointRequest, *, target: Target, source: str
) -> PlannedPoint:
    data = deep_copy(base)
    problems = []
    for key, value in {**request.changes, "seed": request.seed}.items():
        if key.rpartition(".")[2] in BATCH_OF_ONE_GPU:
            wanted = "expected global_batch_size: a change of GPUs must not change it, and with it the experiment"
            problems.append(Problem(key, f"is the batch of one GPU; {wanted}"))
            continue
        try:
            set_by_path(data, key, deep_copy(value) if isinstance(value, Mapping) else value)
        except ValueError as error:
            problems.append(Problem(key, str(error)))
    if problems:
        raise ConfigError(source, problems)
    config = validate(PretrainConfig, data, source)
    images = _images(config.data, source)
    plan = make_plan(
        config, images=images, world_size=target.ranks, ranks_per_node=target.ranks_per_node, source=source
    )
    return PlannedPoint(request.label, config, plan, _differences(before, config))


def _images(data: DataConfig, source: str) -> int:
    """Number of images of the split. Raises ConfigError where it is unknown, or what is there is not the data set."""
    try:
        images = image_count(data.dataset, data.directory, data.split)
        if beton_path(data.directory, data.split).is_file():
            existing_beton(data.dataset, data.directory, data.split)
    except ValueError as error:
        raise ConfigError(source, [Problem("data.directory", str(error))]) from error
    if images is None:
        wanted = f"write it: python -m pretrain.data.write_beton {data.dataset} {data.directory}"
        message = f"got {data.directory}, which has no split '{data.split}', and its size is not known; {wanted}"
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
    """One problem with those who have it: everybody, whole questions, or single points."""
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
    """Last part of a dotted key, with its section where it says little alone."""
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
