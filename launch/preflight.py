"""What the machine says against a study before its first job starts, all of it at once. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from launch.plan.config import StudyConfig, load_study
from launch.plan.graph import StudyGraph, build_graph
from launch.plan.targets import SlurmTarget
from launch.run import result_problems, up_to_date
from launch.slurm.jobs import read_jobs
from launch.slurm.queue import SchedulerSilent, missing_commands, partitions, read_queue, refusal
from launch.tasks import Kind
from pretrain.errors import ConfigError, Problem, did_you_mean


def startable_graph(path: Path, overrides: list[str]) -> StudyGraph:
    """The study's graph. Raises ConfigError with every problem of its points, its directory and its target.

    A study of which nothing is missing asks nothing of the machine.
    """
    study, source = load_study(path, overrides), str(path)
    graph: StudyGraph | None = None
    problems: list[Problem] = []
    try:
        graph = build_graph(study, source)
    except ConfigError as error:
        problems += error.problems
    if graph is not None:
        problems += result_problems(graph)
    if graph is None or problems or not up_to_date(graph):
        problems += _directory_problems(study.study_directory) + _target_problems(study)
        problems += _elsewhere(study)
    if problems or graph is None:
        raise ConfigError(source, problems)
    return graph


def _directory_problems(directory: Path) -> list[Problem]:
    """Whether files can be made in ``directory``, or it in the nearest directory above that exists."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        return [Problem("directory", f"got {directory}, but {there} is not a directory")]
    if not os.access(there, os.W_OK | os.X_OK):
        return [
            Problem("directory", f"got {directory}, but {there} is not writable for you; expected another directory")
        ]
    return []


def _target_problems(study: StudyConfig) -> list[Problem]:
    target = study.target
    if not isinstance(target, SlurmTarget):
        return []
    missing = missing_commands()
    if missing:
        where = "is this a login node of the cluster? Elsewhere use target=configs/target/local.yaml"
        return [Problem("target", f"Slurm's {', '.join(missing)} is not on PATH; {where}")]
    known = partitions()
    if known is None:
        return [Problem("target", "sinfo does not answer: is Slurm's controller up?")]
    problems = []
    asked = {"target.partition": target.partition, "target.evaluation.partition": target.evaluation.partition}
    for where, name in asked.items():
        if name is not None and not set(name.split(",")) <= set(known):
            problems.append(Problem(where, f"got '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}"))
    return problems or _refusals(study, target)


def _refusals(study: StudyConfig, target: SlurmTarget) -> list[Problem]:
    """What sbatch itself says against the jobs: accounts, qualities of service, more than any node has."""
    from launch.slurm.sbatch import sbatch_text

    kinds: dict[Kind, str] = {"train": "target", "probe": "target.evaluation"}
    said = {
        where: refusal(
            sbatch_text(
                study.study_directory,
                target,
                kind,
                name=f"{study.name}-{kind}",
                processes=target.evaluation_ranks if kind == "probe" else 1,
            )
        )
        for kind, where in kinds.items()
    }
    return [Problem(where, f"sbatch refuses such a job: {why}") for where, why in said.items() if why is not None]


def _elsewhere(study: StudyConfig) -> list[Problem]:
    """Jobs that a study which is now to run here still has in Slurm."""
    if isinstance(study.target, SlurmTarget):
        return []
    ours = {job.job_id: job for job in read_jobs(study.study_directory) if job.ending is None}
    if not ours:
        return []
    queue = read_queue(ours)
    if queue is None:
        raise SchedulerSilent(
            "the study was last started on Slurm, which does not say what of it still runs; try again"
        )
    alive = [number for number in queue if number in ours]
    if not alive:
        return []
    what = f"the study has {len(alive)} jobs in Slurm ({alive[0]}, ...)"
    return [Problem("target", f"{what}; wait for them, or `launch cancel {study.study_directory}` first")]
