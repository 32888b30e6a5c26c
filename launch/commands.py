"""`launch cancel` and `launch retry`: end what runs of a study, and let what failed try again. Torch-free."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from eval.study_manifest import Point, StudyManifest, read_manifest
from launch.local.process import GRACE_S, readable_tail
from launch.local.torchrun import show_commands
from launch.lock import lock_owner, study_lock
from launch.plan.command_lines import command_line
from launch.plan.graph import StudyGraph
from launch.plan.targets import LocalTarget, SlurmTarget, TorchrunTarget
from launch.slurm.jobs import FOLDER, SlurmJob, found_again, latest, read_jobs, with_endings, write_jobs
from launch.slurm.queue import SchedulerSilent, cancel_jobs, read_queue
from launch.slurm.records import study_records
from launch.state import PointState, process_exists, read_record, study_states
from launch.tables import failures, status_summary, status_table
from launch.tasks import missing_tasks, report_task
from pretrain.errors import ConfigError, Problem, did_you_mean

# `launch logs`: the end of what the jobs of a study printed. Torch-free.


def show_logs(directory: Path, name: str | None, lines: int) -> None:
    """Print the last ``lines`` of every log of the points that ``name`` is a part of; of the whole study without it.

    Raises ConfigError where no point matches or nothing was started yet.
    """
    manifest = read_manifest(directory)
    points = matching_points(directory, manifest, name)
    folders = [directory / point.directory for point in points]
    if name is None:
        folders.insert(0, directory)
    logs = sorted((log for folder in folders for log in (folder / "logs").glob("*.log")), key=_modified)
    logs += _outputs_of_tasks(directory, {point.name for point in points})
    if not logs:
        raise ConfigError(str(directory), [Problem(name or "", "has no logs: nothing of it was started yet")])
    for log in logs:
        print(f"==> {log} <==")
        print(readable_tail(log, lines=lines))
        print()


def _outputs_of_tasks(directory: Path, points: set[str]) -> list[Path]:
    """What tasks of the newest Slurm jobs printed beside the log: errors of other ranks, or from before the start."""
    newest = [job for job in latest(read_jobs(directory)).values() if job.point in points and job.job_id]
    outputs = [path for job in newest for path in sorted((directory / FOLDER).glob(f"{job.job_id}_*_log.out"))]
    return [path for path in outputs if any(not line.startswith("submitit INFO") for line in _lines(path))]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def matching_points(directory: Path, manifest: StudyManifest, name: str | None) -> list[Point]:
    """Points whose name is ``name`` or holds it; all without it. Raises ConfigError where there is none."""
    names = [point.name for point in manifest.points]
    if name is None or name in names:
        return [point for point in manifest.points if name in (None, point.name)]
    found = [point for point in manifest.points if name in point.name or name in point.directory]
    if not found:
        wanted = f"is no point of the study{did_you_mean(name, names)}; its points: {', '.join(names)}"
        raise ConfigError(str(directory), [Problem(name, wanted)])
    return found


def _modified(path: Path) -> float:
    return path.stat().st_mtime


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


def reset_failures(directory: Path, name: str | None, console: Console) -> None:
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
        reset = [job.ending == "failed" and (name is None or job.point in points) for job in jobs]
        pairs = zip(jobs, reset, strict=True)
        write_jobs(directory, [job.model_copy(update={"ending": "reset"}) if yes else job for job, yes in pairs])
    console.print(f"{sum(reset)} failures reset", markup=False)


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


# `launch study --dry-run`: what would be submitted or run, word for word. Torch-free.


def show_what_would_run(graph: StudyGraph, console: Console) -> None:
    """Print every command (Slurm: the script of every kind of job) that starting the study would start."""
    target = graph.config.target
    match target:
        case SlurmTarget():
            from launch.slurm.submit import show_scripts  # submitit

            show_scripts(graph, target, console)
        case TorchrunTarget():
            show_commands(graph, target, console)
        case LocalTarget():
            tasks = missing_tasks(graph)
            for task in [*tasks, *([report_task(graph)] if tasks else [])]:
                console.print(command_line(task.job.command), markup=False, soft_wrap=True)
        case _:
            assert_never(target)


# `launch status`: the table of a study, once or until nothing of it runs. Torch-free.


BUSY = ("queued", "training", "evaluating")


def show_status(directory: Path, console: Console, *, every_s: float | None = None) -> None:
    """Show how far every point is; with ``every_s`` again and again until nothing runs or waits in a queue."""
    manifest = read_manifest(directory)
    if every_s is None:
        console.print(_view(directory, manifest, _states(directory, manifest)), soft_wrap=True)
        return
    states = _states(directory, manifest)
    if not console.is_terminal:
        _follow(directory, manifest, console, every_s)
        return
    with Live(_view(directory, manifest, states), console=console, auto_refresh=False) as live:
        while any(state.stage in BUSY for state in states):
            try:
                time.sleep(every_s)
            except KeyboardInterrupt:
                return
            states = _states(directory, manifest)
            live.update(_view(directory, manifest, states), refresh=True)


def _follow(directory: Path, manifest: StudyManifest, console: Console, every_s: float) -> None:
    """One line whenever something has changed; the table at the end."""
    said = ""
    while True:
        states = _states(directory, manifest)
        summary = status_summary(directory, manifest, states)
        if summary != said:
            said = summary
            console.print(summary, markup=False, soft_wrap=True)
        if not any(state.stage in BUSY for state in states):
            break
        time.sleep(every_s)
    console.print(_view(directory, manifest, states), soft_wrap=True)


def _states(directory: Path, manifest: StudyManifest) -> list[PointState]:
    return study_states(directory, manifest, study_records(directory))


def _view(directory: Path, manifest: StudyManifest, states: list[PointState]) -> Group:
    lines = [status_summary(directory, manifest, states), *failures(directory, states)]
    return Group(status_table(states), *(Text(line) for line in lines))
