"""What is known of every job of a study, wherever it was started: files first, then squeue, then sacct. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from launch.slurm.jobs import SlurmJob, latest, read_jobs, with_endings
from launch.slurm.queue import Queue, read_queue
from launch.state import SILENT_AFTER_S, JobRecord, Records, read_record
from pretrain.rundir import RunDirectory

SILENT = "squeue does not answer"


def study_records(directory: Path) -> Records:
    """Finds the record of a stage: Slurm's word where the newest start of it was there, else what the job wrote."""
    jobs = read_jobs(directory)
    if not jobs:
        return read_record
    unknown = [job.job_id for job in jobs if job.ending is None]
    queue = read_queue(unknown) if unknown else {}
    known = jobs if queue is None else with_endings(directory, jobs, queue)
    by_place = {(directory / job.directory, job.stage): job for job in latest(known).values()}
    return lambda place, stage: _newest(read_record(place, stage), by_place, queue, (place, stage))


def _newest(
    local: JobRecord | None, jobs: Mapping[tuple[Path, str], SlurmJob], queue: Queue | None, key: tuple[Path, str]
) -> JobRecord | None:
    job = jobs.get(key)
    if job is None or (local is not None and local.started > job.submitted):
        return local
    shared = {"stage": job.stage, "command": job.command, "pid": 0, "started": job.submitted, "job_id": job.job_id}
    state, nodes, note = _said(job, queue, key[0])
    return JobRecord.model_validate({**shared, "state": state, "host": nodes, "note": note})


def _said(job: SlurmJob, queue: Queue | None, place: Path) -> tuple[str, str, str]:
    """(state, nodes, note) of a job: how it ended, what squeue says, or what its files let one guess."""
    if job.ending is not None:
        return ("failed" if job.ending == "reset" else job.ending), "", ""
    if queue is None:
        return ("running" if job.stage == "train" and _shows_life(place) else "queued"), "", SILENT
    if job.job_id not in queue:
        return "queued", "", "its launcher was interrupted"
    found = queue[job.job_id]
    return ("running" if found.runs else "queued"), found.nodes, found.reason


def _shows_life(place: Path) -> bool:
    try:
        return time.time() - RunDirectory(place).progress.stat().st_mtime < SILENT_AFTER_S
    except FileNotFoundError:
        return False
