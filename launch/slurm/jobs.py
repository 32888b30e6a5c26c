"""jobs.json: every job that was submitted for a study, with what it runs, where, and from which code. Torch-free.

An entry is written before sbatch is called and completed by its number afterwards: a launcher that is killed in between
finds the job again by its name.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from launch.slurm.queue import Queue, accounting, read_queue
from launch.state import SILENT_AFTER_S, Records, TaskRecord, modified, read_record
from pretrain.configio import Section, validate
from pretrain.rundir import RunDirectory, read_json, write_json

FILE_NAME = "jobs.json"
# submitit's own files: scripts, pickles, and the output of processes before they open their log. One folder for all
# jobs (no %j in its name), because Slurm opens output files before submitit could make a folder for the job.
FOLDER = "slurm"
SILENT = "squeue does not answer"


class SlurmJob(Section):
    """One submission of a task. Data sets and the report have no point."""

    key: str  # of its task, e.g. train global_batch_size=256,seed=0
    stage: str
    point: str
    directory: str  # relative to the study's; empty for the study's own
    result: str | None  # relative to the study's
    command: str
    fingerprint: str
    git_revision: str | None
    attempt: int
    name: str  # in Slurm
    index: int | None = None  # in its array
    job_id: str | None = None  # 1234, or 1234_5 for an element of an array; null: not known to be submitted
    after: tuple[str, ...] = ()  # numbers of the jobs that it waits for
    submitted: float  # seconds since 1970
    # How it ended, null until a launcher has seen it; "reset": a failure that no longer counts.
    ending: Literal["finished", "failed", "stopped", "reset"] | None = None


def read_jobs(directory: Path) -> list[SlurmJob]:
    """Every submission of the study in ``directory``, oldest first. Raises ValueError where the file is damaged."""
    path = directory / FILE_NAME
    if not path.is_file():
        return []
    entries = read_json(path)["jobs"]
    return [validate(SlurmJob, {**entry, "after": tuple(entry["after"])}, str(path)) for entry in entries]


def write_jobs(directory: Path, jobs: Sequence[SlurmJob]) -> None:
    """Replace jobs.json."""
    write_json(directory / FILE_NAME, {"jobs": [job.model_dump(mode="json") for job in jobs]})


def latest(jobs: Sequence[SlurmJob]) -> dict[str, SlurmJob]:
    """The newest submission of each task, by the task's key."""
    return {job.key: job for job in jobs}


def attempts(jobs: Sequence[SlurmJob], key: str) -> int:
    """How often the task has failed since it was last reset."""
    return sum(job.key == key and job.ending == "failed" for job in jobs)


def job_name(study: str, kind: str, directory: Path, keys: Sequence[str], number: int) -> str:
    """Name of a submission in Slurm, unique, and the same whenever it is computed for the same submission."""
    text = "\n".join([str(directory.resolve()), kind, str(number), *keys])
    return f"{study}-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def found_again(jobs: Sequence[SlurmJob], queue: Queue) -> list[SlurmJob]:
    """``jobs`` with their numbers, found by name where the launcher was killed before it noted them.

    Those that have no number, because they were never submitted, are left out.
    """
    by_name = {(job.name, _index(job.id)): job.id for job in queue.values()}
    found = []
    for job in jobs:
        number = job.job_id or by_name.get((job.name, job.index))
        if number is not None:
            found.append(job if job.job_id else job.model_copy(update={"job_id": number}))
    return found


def _index(job_id: str) -> int | None:
    _, underscore, index = job_id.partition("_")
    return int(index) if underscore and index.isdigit() else None


def with_endings(directory: Path, jobs: Sequence[SlurmJob], queue: Queue) -> list[SlurmJob]:
    """``jobs``, with how each that has left the queue ended: by its result, else by accounting and by its files."""
    gone = [job for job in jobs if job.ending is None and job.job_id is not None and job.job_id not in queue]
    lost = [job for job in gone if not _has_result(directory, job)]
    states = accounting([job.job_id for job in lost if job.job_id])
    endings = {id(job): "finished" for job in gone}
    endings |= {id(job): "stopped" if _was_stopped(directory, job, states) else "failed" for job in lost}
    return [job.model_copy(update={"ending": endings[id(job)]}) if id(job) in endings else job for job in jobs]


def _has_result(directory: Path, job: SlurmJob) -> bool:
    return job.result is not None and (directory / job.result).is_file()


def _was_stopped(directory: Path, job: SlurmJob, states: Mapping[str, str]) -> bool:
    """Whether it was cancelled, never started, or saved a checkpoint and exited: none of these is a failure."""
    if states.get(job.job_id or "", "").startswith("CANCELLED"):
        return True
    run = RunDirectory(directory / job.directory)
    if job.stage != "train":
        return bool(job.point) and not run.finished()  # an evaluation of a run that failed
    try:
        return bool(read_json(run.progress).get("state") == "stopped")
    except (FileNotFoundError, ValueError):
        return False


def study_records(directory: Path) -> Records:
    """Finds the record of a stage: Slurm's state where its newest start was submitted, else what the task wrote.

    Slurm is asked once, when the first record is looked for: a finished study needs none.
    """

    @cache
    def submitted() -> tuple[Mapping[tuple[Path, str], SlurmJob], Queue | None]:
        jobs = read_jobs(directory)
        unknown = [job.job_id for job in jobs if job.ending is None]
        queue = read_queue(unknown) if unknown else {}
        known = jobs if queue is None else with_endings(directory, jobs, queue)
        return {(directory / job.directory, job.stage): job for job in latest(known).values()}, queue

    def find(place: Path, stage: str) -> TaskRecord | None:
        jobs, queue = submitted()
        written, job = read_record(place, stage), jobs.get((place, stage))
        if job is None or (written is not None and written.started > job.submitted):
            return written
        return _record(job, queue, place)

    return find


def _record(job: SlurmJob, queue: Queue | None, place: Path) -> TaskRecord:
    """The job's record: from how it ended, else from squeue, else from the progress of the run in ``place``."""
    state, nodes, note = "queued", "", ""
    if job.ending is not None:
        state = "failed" if job.ending == "reset" else job.ending
    elif queue is None:
        state, note = ("running" if job.stage == "train" and _makes_progress(place) else "queued"), SILENT
    elif job.job_id not in queue:
        note = "its launcher was interrupted"
    else:
        row = queue[job.job_id]
        state, nodes, note = ("running" if row.runs else "queued"), row.nodes, row.reason
    shared = {"stage": job.stage, "command": job.command, "pid": 0, "started": job.submitted, "job_id": job.job_id}
    return TaskRecord.model_validate({**shared, "state": state, "host": nodes, "note": note})


def _makes_progress(place: Path) -> bool:
    return time.time() - (modified(RunDirectory(place).progress) or 0.0) < SILENT_AFTER_S
