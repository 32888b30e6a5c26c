"""What is left to do of a study: data first, then for each point its run and its evaluations. Torch-free.

The words of this package for points and for what is run:

    PointRequest   a point that a question or a baseline asks for                        plan/points
    StudyPoint     one run of the study: configuration, derived numbers, manifest entry  plan/points
    PointState     how far a point is                                                    state
    Task           one command to run: writes data, trains, evaluates or reports         here
    TaskRecord     what is known of a task's latest start                                state
    RunningTask    a task that this launcher has started on this machine                 local/process
    SlurmJob       one submission of a task to Slurm                                     slurm/jobs
    QueueRow       a job as squeue shows it                                              slurm/queue
    RankCommand    what each process of a Slurm job becomes                              slurm/rank
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eval.study_manifest import REPORT_FILE, Probe
from launch.plan.command_lines import (
    data_command,
    evaluation_ranks,
    job_environment,
    probe_command,
    report_command,
    training_command,
)
from launch.plan.graph import StudyGraph
from launch.plan.points import StudyPoint
from launch.plan.targets import on_ranks
from launch.state import PointState, log_path, probe_result, probe_stage
from pretrain.config import DataConfig
from pretrain.data.catalog import beton_path

Kind = Literal["data", "train", "probe", "report"]


@dataclass(frozen=True)
class Task:
    """One command to run, and what has to finish before it.

    key: its name in jobs.json, unique within the study. stage: names its log and its record in ``directory``/logs.
    label: for a person. result: the file that exists once it has finished. needs: keys of the tasks that must have
    finished before it starts. point: None for data and the report.
    """

    key: str
    kind: Kind
    stage: str
    label: str
    command: tuple[str, ...]
    directory: Path
    result: Path | None = None
    processes: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    point: StudyPoint | None = None

    @property
    def log(self) -> Path:
        return log_path(self.directory, self.stage)


def missing_tasks(graph: StudyGraph, states: Sequence[PointState], chosen: frozenset[str] | None = None) -> list[Task]:
    """What is left to do, in the order to start it in: data, then for each point its run and its evaluations.

    chosen: names of the points that count; None for all.

    All points of the first seed come first, those that train nothing before the others: faults show early. Nothing is
    to be done for a point whose result is damaged, until a person has moved that away.
    """
    index = {seed: number for number, seed in enumerate(graph.config.seeds)}
    pairs = [pair for pair in zip(graph.points, states, strict=True) if not pair[1].damaged]
    pairs = [pair for pair in pairs if chosen is None or pair[0].entry.name in chosen]
    pairs.sort(key=lambda pair: (index[pair[0].entry.seed], pair[0].images_seen > 0))
    data: dict[str, Task] = {}
    tasks = []
    for point, state in pairs:
        if state.trained and not state.missing_probes:
            continue
        needs: tuple[str, ...] = ()
        source = point.config.data
        if not beton_path(source.directory, source.split).is_file():
            needs = (f"data {source.directory}",)
            data.setdefault(needs[0], _data_task(graph, source, needs[0]))
        if not state.trained:
            tasks.append(_training_task(graph, point, needs))
            needs = (tasks[-1].key,)
        tasks += [_probe_task(graph, point, probe, needs) for probe in state.missing_probes]
    return [*data.values(), *tasks]


def report_task(graph: StudyGraph) -> Task:
    """The report of the study, whatever it needs."""
    return Task(
        key="report",
        kind="report",
        stage="report",
        label="report",
        command=report_command(graph.directory),
        directory=graph.directory,
        result=graph.directory / REPORT_FILE,
        environment=job_environment(processes=1),
    )


def _data_task(graph: StudyGraph, data: DataConfig, key: str) -> Task:
    return Task(
        key=key,
        kind="data",
        stage=f"data-{data.dataset.replace('/', '_')}",
        label=f"data {data.dataset}",
        command=data_command(data),
        directory=graph.directory,
        result=beton_path(data.directory, data.split),
    )


def _training_task(graph: StudyGraph, point: StudyPoint, needs: tuple[str, ...]) -> Task:
    run, target = graph.run(point), on_ranks(graph.config.target, point.entry.world_size)
    return Task(
        key=f"train {point.entry.name}",
        kind="train",
        stage="train",
        label=f"train {point.entry.name}",
        command=training_command(run.path, target),
        directory=run.path,
        result=run.result,
        processes=target.ranks_per_node,
        needs=needs,
        point=point,
    )


def _probe_task(graph: StudyGraph, point: StudyPoint, probe: Probe, needs: tuple[str, ...]) -> Task:
    run, target = graph.run(point), graph.config.target
    return Task(
        key=f"{probe_stage(probe)} {point.entry.name}",
        kind="probe",
        stage=probe_stage(probe),
        label=f"{probe.task} {point.entry.name}",
        command=probe_command(run.path, probe.task, probe.overrides, target),
        directory=run.path,
        result=probe_result(run, probe),
        processes=evaluation_ranks(target, probe.task),
        needs=needs,
        point=point,
    )
