"""`bigbatch plan`: every derived number of a study, or of a single pretraining run, before anything starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from launch.forecast.tables import preflight_views
from launch.plan.config import StudyConfig, is_pretraining, load_study, with_overrides
from launch.preflight import look_at
from launch.tables import failures, plan_summary, plan_table
from pretrain.config import PretrainConfig
from pretrain.configio import find_config, load, parse_yaml, validate

# What a run on its own leaves in the summary of a study.
RUN_ALONE = "one run"


def show_plan(path: Path, overrides: Sequence[str], console: Console, *, as_json: bool = False) -> None:
    """Print the plan of what ``path`` describes: a study's YAML or directory, or a pretraining configuration.

    Raises ConfigError with every problem.
    """
    alone = is_pretraining(path)
    snapshot = look_at(study_of_one(path, overrides) if alone else load_study(path, overrides), str(path))
    if as_json:
        plans = {point.entry.name: point.plan.to_json() for point in snapshot.graph.points}
        print(json.dumps(plans, indent=2))
        return
    if alone:
        (point,) = snapshot.graph.points
        console.print(f"{path}\n{point.plan.describe()}", markup=False, soft_wrap=True)
    else:
        console.print(plan_table(snapshot), soft_wrap=True)
    for view in preflight_views(snapshot.graph, list(snapshot.states)):
        console.print(view, soft_wrap=True)
    if alone:
        return
    for line in (plan_summary(snapshot), *failures(snapshot.graph.directory, snapshot.states)):
        console.print(line, markup=False, soft_wrap=True)


def study_of_one(path: Path, overrides: Sequence[str]) -> StudyConfig:
    """The pretraining configuration ``path`` as a study of that run alone. Raises ConfigError.

    Overrides of ``target`` say where it would run (target.ranks=8); all others are settings of the run.
    """
    elsewhere = [text for text in overrides if text.startswith(("target=", "target.", "only="))]
    own = [text for text in overrides if text not in elsewhere]
    file = find_config("pretrain", path)
    config = load(PretrainConfig, file, own)  # problems of the run are told as those of the run
    changes = {key: parse_yaml(text, key) for key, _, text in (override.partition("=") for override in own)}
    changes.pop("seed", None)
    data = {
        "name": file.stem,
        "title": RUN_ALONE,
        "base": file,
        "directory": config.run.directory or config.run.root / file.stem,
        "seeds": [config.seed],
        "baselines": [{"name": "run", "title": RUN_ALONE, "set": changes}],
        "probes": [],
        "target": {"name": "local"},
    }
    return validate(StudyConfig, with_overrides(data, elsewhere), str(path), elsewhere)
