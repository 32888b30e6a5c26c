"""`launch cancel` and `launch retry`: end what runs of a study, and let what failed try again. Torch-free."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from eval.manifest import Point, read_manifest
from launch.jobs import SlurmJob, found_again, latest, read_jobs, with_endings, write_jobs
from launch.lock import lock_owner, study_lock
from launch.logs import matching_points
from launch.process import GRACE_S
from launch.scheduler import SchedulerSilent, cancel_jobs, read_queue
from launch.state import process_exists, read_record

POLL_S = 0.3
# Slurm ends a cancelled job after its KillWait, 30 s by default; a run saves a checkpoint in that time.
SLURM_ENDS_S = 90.0


def cancel(directory: Path, name: str | None, console: Console) -> int:
    """End every job of the study, or of the points that ``name`` is a part of, and wait until they have ended.

    Returns 0, or 1 where something still runs. Raises SchedulerSilent, ConfigError.
    """
    points = matching_points(directory, read_manifest(directory), name)
    well = _cancel_slurm(directory, None if name is None else points, console)
    return 0 if _stop_here(directory, None if name is None else points, console) and well else 1


def forgive(directory: Path, name: str | None, console: Console) -> None:
    """Let the failures of the study's jobs (of the points that ``name`` is a part of) count no longer."""
    points = {point.name for point in matching_points(directory, read_manifest(directory), name)}
    jobs = read_jobs(directory)
    if not jobs:
        return
    with study_lock(directory):
        queue = read_queue(job.job_id for job in jobs if job.ending is None)
        if queue is None:
            raise SchedulerSilent("squeue does not answer; nothing is changed, try again")
        jobs = with_endings(directory, found_again(jobs, queue), queue)
        forgiven = [job.ending == "failed" and (name is None or job.point in points) for job in jobs]
        pairs = zip(jobs, forgiven, strict=True)
        write_jobs(directory, [job.model_copy(update={"ending": "forgiven"}) if yes else job for job, yes in pairs])
    console.print(f"{sum(forgiven)} failures forgiven", markup=False)


def _cancel_slurm(directory: Path, points: Sequence[Point] | None, console: Console) -> bool:
    jobs = [job for job in latest(read_jobs(directory)).values() if job.ending is None]
    if not jobs:
        return True
    queue = read_queue(job.job_id for job in jobs)
    if queue is None:
        raise SchedulerSilent("squeue does not answer; nothing is cancelled, try again")
    names = None if points is None else {point.name for point in points}
    ours = [job for job in found_again(jobs, queue) if names is None or job.point in names]
    alive = [job for job in ours if job.job_id in queue]
    console.print(f"cancelling {len(alive)} jobs in Slurm", markup=False)
    return cancel_jobs(_numbers(alive)) and _until(lambda: _gone(alive), SLURM_ENDS_S)


def _gone(jobs: Sequence[SlurmJob]) -> bool:
    queue = read_queue(_numbers(jobs))
    return queue is not None and not any(number in queue for number in _numbers(jobs))


def _numbers(jobs: Sequence[SlurmJob]) -> list[str]:
    return [job.job_id for job in jobs if job.job_id is not None]


def _stop_here(directory: Path, points: Sequence[Point] | None, console: Console) -> bool:
    """Ask the launcher to stop, which stops its jobs; only the jobs of ``points`` where those are given."""
    if points is None:
        owner = lock_owner(directory)
        pids = [owner["pid"]] if isinstance(owner.get("pid"), int) and owner.get("host") == platform.node() else []
        if owner and not pids:
            console.print(f"the launcher is process {owner.get('pid')} on {owner.get('host')}: cancel it there")
            return False
    else:
        found = [read_record(directory / point.directory, stage) for point in points for stage in _stages(directory)]
        here = [record for record in found if record is not None and record.host == platform.node()]
        pids = [record.pid for record in here if record.state == "running" and record.pid]
    alive = [pid for pid in pids if isinstance(pid, int) and process_exists(pid)]
    for pid in alive:
        console.print(f"asking process {pid} to stop", markup=False)
        if points is None:
            os.kill(pid, signal.SIGTERM)
        else:
            os.killpg(pid, signal.SIGTERM)
    return _until(lambda: not any(process_exists(pid) for pid in alive), GRACE_S + 15)


def _stages(directory: Path) -> list[str]:
    probes = read_manifest(directory).probes
    return ["train", *(f"{probe.task}-{probe.fingerprint}" for probe in probes)]


def _until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
