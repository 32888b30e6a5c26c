"""What is left to do of a study: data first, then for each point its run and its evaluations. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.study_manifest import FILE_NAME, REPORT_FILE, Probe
from launch.plan.command_lines import (
    data_command,
    evaluation_ranks,
    job_environment,
    probe_command,
    report_command,
    training_command,
)
from launch.plan.graph import StudyGraph, StudyPoint
from launch.state import evaluated, log_path, probe_stage, trained
from pretrain.config import DataConfig
from pretrain.data.catalog import beton_path


@dataclass(frozen=True)
class Job:
    """What to run. Its log and record lie in ``directory``/logs; it is done well only if ``result`` exists then."""

    stage: str
    label: str
    command: tuple[str, ...]
    directory: Path
    result: Path | None = None
    processes: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return log_path(self.directory, self.stage)


Kind = Literal["data", "train", "probe", "report"]


@dataclass(frozen=True)
class Task:
    """A job in its place: ``needs`` are the keys of the tasks that must have ended well before it starts."""

    key: str
    kind: Kind
    job: Job
    needs: tuple[str, ...] = ()
    point: StudyPoint | None = None


def report_task(graph: StudyGraph) -> Task:
    """The report of the study, whatever it needs."""
    directory = graph.directory
    variables = job_environment(processes=1)
    job = Job("report", "report", report_command(directory), directory, directory / REPORT_FILE, environment=variables)
    return Task("report", "report", job)


def report_is_old(graph: StudyGraph) -> bool:
    """True when some result, or study.json, is newer than the report; False where there is nothing to report."""
    report = graph.directory / REPORT_FILE
    runs = [graph.run(point) for point in graph.points]
    results = [run.result for run in runs]
    results += [run.evaluation(p.task, p.fingerprint) / "result.json" for run in runs for p in graph.manifest.probes]
    found = [path for path in results if path.is_file()]
    if not found or not report.is_file():
        return bool(found)
    return max(path.stat().st_mtime for path in (*found, graph.directory / FILE_NAME)) > report.stat().st_mtime


def missing_tasks(graph: StudyGraph) -> list[Task]:
    """What is left to do, in the order to start it in: data, then for each point its run and its evaluations.

    All points of the first seed come first, the cheapest before the others: what is wrong shows early.
    """
    index = {seed: number for number, seed in enumerate(graph.config.seeds)}
    order = sorted(graph.points, key=lambda point: (index[point.entry.seed], point.images_seen > 0))
    data: dict[str, Task] = {}
    tasks = []
    for point in order:
        run, name = graph.run(point), point.entry.name
        probes = [probe for probe in graph.manifest.probes if not evaluated(run, point.entry, probe)]
        done = trained(run, point.entry)
        if done and not probes:
            continue
        needs: tuple[str, ...] = ()
        source = point.config.data
        if not _data_there(source):
            needs = (f"data {source.directory}",)
            data.setdefault(needs[0], _data_task(graph, source, needs[0]))
        if not done:
            tasks.append(_training_task(graph, point, needs))
            needs = (f"train {name}",)
        tasks += [_probe_task(graph, point, probe, needs) for probe in probes]
    return [*data.values(), *tasks]


def _data_there(data: DataConfig) -> bool:
    return beton_path(data.directory, data.split).is_file()


def _data_task(graph: StudyGraph, data: DataConfig, key: str) -> Task:
    name = data.dataset.replace("/", "_")
    result = beton_path(data.directory, data.split)
    return Task(key, "data", Job(f"data-{name}", f"data {data.dataset}", data_command(data), graph.directory, result))


def _training_task(graph: StudyGraph, point: StudyPoint, needs: tuple[str, ...]) -> Task:
    run, target = graph.run(point), graph.config.target
    command = training_command(run.path, target)
    job = Job("train", f"train {point.entry.name}", command, run.path, run.result, processes=target.ranks_per_node)
    return Task(job.label, "train", job, needs, point)


def _probe_task(graph: StudyGraph, point: StudyPoint, probe: Probe, needs: tuple[str, ...]) -> Task:
    run, stage = graph.run(point), probe_stage(probe)
    result = run.evaluation(probe.task, probe.fingerprint) / "result.json"
    target = graph.config.target
    command = probe_command(run.path, probe.task, probe.overrides, target)
    ranks = evaluation_ranks(target, probe.task)
    job = Job(stage, f"{probe.task} {point.entry.name}", command, run.path, result, processes=ranks)
    return Task(f"{stage} {point.entry.name}", "probe", job, needs, point)
