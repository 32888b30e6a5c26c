"""Checks before the first job of a study starts: results, directory, target; all problems at once. Torch-free."""

from __future__ import annotations

import os
from pathlib import Path

from eval.study_manifest import read_manifest
from launch.plan.config import StudyConfig, load_study
from launch.plan.graph import build_graph
from launch.plan.targets import SlurmTarget
from launch.slurm.jobs import read_jobs, study_records
from launch.slurm.queue import SchedulerSilent, missing_commands, partitions, read_queue, refusal
from launch.snapshot import Snapshot, take_snapshot
from launch.tasks import Kind
from pretrain.errors import ConfigError, Problem, did_you_mean
from pretrain.format import plural
from pretrain.rundir import RunDirectory


def look_at(study: StudyConfig, source: str) -> Snapshot:
    """The study as it is now. Raises ConfigError with every problem of its points."""
    graph = build_graph(study, source)
    return take_snapshot(graph, study_records(graph.directory))


def ready_to_start(path: Path, overrides: list[str], *, replace: bool = False) -> Snapshot:
    """The study that ``path`` describes, checked. Raises ConfigError with every problem of its points, results,
    directory and target; those of the target only where something is missing. replace: it may take the place of another
    study in its directory.
    """
    study = load_study(path, overrides)
    snapshot: Snapshot | None = None
    problems: list[Problem] = []
    try:
        snapshot = look_at(study, str(path))
        problems += snapshot.problems
    except ConfigError as error:
        problems += error.problems
    if snapshot is None or not snapshot.up_to_date:
        problems += _directory_problems(study.study_directory) + _target_problems(study)
        problems += _replaced(snapshot) if snapshot is not None and not replace else []
        problems += _jobs_elsewhere(study)
    if problems or snapshot is None:
        raise ConfigError(str(path), problems)
    return snapshot


def _replaced(snapshot: Snapshot) -> list[Problem]:
    """What the study in the directory would lose: another one lies there, or runs that this one no longer has."""
    directory, manifest = snapshot.graph.directory, snapshot.graph.manifest
    try:
        there = read_manifest(directory)
    except (FileNotFoundError, ValueError):  # none, or none that can be read
        return []
    kept = {point.fingerprint for point in manifest.points}
    lost = [point for point in there.points if point.fingerprint not in kept]
    trained = [point for point in lost if RunDirectory(directory / point.directory).finished()]
    if there.name == manifest.name and not trained:
        return []
    what = f"{directory} holds the study '{there.name}'"
    if trained:
        what += f", of which {plural(len(trained), 'finished run')} would no longer be part ({trained[0].name}, ...)"
    expected = "expected another directory=DIR; --only for a part of it; or --replace to give them up (files stay)"
    return [Problem("directory", f"{what}; {expected}")]


def _directory_problems(directory: Path) -> list[Problem]:
    """Whether files can be made in ``directory``, or it in the nearest directory above that exists."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        return [Problem("directory", f"got {directory}, but {there} is not a directory; expected another path")]
    if not os.access(there, os.W_OK | os.X_OK):
        return [Problem("directory", f"got {directory}, but you may not write to {there}; expected another path")]
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
            hint = did_you_mean(name, known)
            problems.append(Problem(where, f"got '{name}', expected one of {', '.join(known)}{hint}"))
    return problems or _refusals(study, target)


def _refusals(study: StudyConfig, target: SlurmTarget) -> list[Problem]:
    """The jobs that sbatch itself refuses: accounts, qualities of service, more than any node has."""
    from launch.slurm.sbatch import sbatch_text

    kinds: dict[Kind, str] = {"train": "target", "probe": "target.evaluation"}
    reasons = {
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
    return [Problem(where, f"sbatch refuses such a job: {why}") for where, why in reasons.items() if why is not None]


def _jobs_elsewhere(study: StudyConfig) -> list[Problem]:
    """The jobs in Slurm of a study that is now to run here."""
    if isinstance(study.target, SlurmTarget):
        return []
    ours = {job.job_id: job for job in read_jobs(study.study_directory) if job.ending is None}
    if not ours:
        return []
    queue = read_queue(ours)
    if queue is None:
        raise SchedulerSilent("the study was last started on Slurm, and squeue does not say what still runs; try again")
    alive = [number for number in queue if number in ours]
    if not alive:
        return []
    what = f"the study has {len(alive)} jobs in Slurm ({alive[0]}, ...)"
    return [Problem("target", f"{what}; wait for them, or `launch cancel {study.study_directory}` first")]
