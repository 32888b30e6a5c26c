"""`bigbatch status`, `logs`, `cancel` and `retry`, which need a study's directory alone, and the dry run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import assert_never

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from eval.study_manifest import Point, StudyManifest, read_manifest
from launch.local.process import GRACE_S, readable_tail
from launch.local.torchrun import show_commands
from launch.plan.command_lines import command_line
from launch.plan.targets import LocalTarget, SlurmTarget, TorchrunTarget
from launch.slurm.jobs import FOLDER, SlurmJob, found_again, latest, read_jobs, study_records, with_endings, write_jobs
from launch.slurm.queue import SchedulerSilent, cancel_jobs, read_queue
from launch.snapshot import Snapshot
from launch.state import PointState, probe_stage, read_record, study_states
from launch.tables import failures, status_summary, status_table
from launch.tasks import report_task
from pretrain.errors import ConfigError, Problem, did_you_mean
from pretrain.lock import hold_directory, lock_owner, process_exists
from pretrain.rundir import RunDirectory

POLL_S = 0.3  # squeue is asked this often while jobs end
# Slurm ends a cancelled job after its KillWait, 30 s by default; a run saves a checkpoint in that time.
SLURM_ENDS_S = 90.0
# After GRACE_S the launcher kills its tasks, and then has to collect them and to release its lock.
LAUNCHER_ENDS_S = GRACE_S + 15
MEGABYTE = 1e6
BUSY = ("queued", "training", "evaluating")


def show_status(directory: Path, console: Console, *, every_s: float | None = None, as_json: bool = False) -> None:
    """Show a study's progress; with ``every_s`` again and again until nothing runs or waits in a queue."""
    manifest = read_manifest(directory)
    states = _states(directory, manifest)
    if as_json:
        print(json.dumps([_as_json(state) for state in states], indent=2))
    elif every_s is None:
        console.print(_status(directory, manifest, states), soft_wrap=True)
    elif console.is_terminal:
        with Live(_status(directory, manifest, states), console=console, auto_refresh=False) as live:
            while _busy(states):
                try:
                    time.sleep(every_s)
                except KeyboardInterrupt:
                    return
                states = _states(directory, manifest)
                live.update(_status(directory, manifest, states), refresh=True)
    else:
        printed = ""  # one line whenever something has changed; the table at the end
        while True:
            summary = status_summary(directory, manifest, states)
            if summary != printed:
                console.print(summary, markup=False, soft_wrap=True)
            if not _busy(states):
                break
            printed = summary
            time.sleep(every_s)
            states = _states(directory, manifest)
        console.print(_status(directory, manifest, states), soft_wrap=True)


def _as_json(state: PointState) -> dict[str, object]:
    """What a script may want to know of a point; null where it is not known."""
    keys = ("stage", "step", "total_steps", "loss", "images_per_second", "remaining_s", "top1", "knn_top1", "detail")
    return {"point": state.point.name, "directory": state.point.directory, **{key: getattr(state, key) for key in keys}}


def _states(directory: Path, manifest: StudyManifest) -> list[PointState]:
    return study_states(directory, manifest, study_records(directory))


def _busy(states: Sequence[PointState]) -> bool:
    return any(state.stage in BUSY for state in states)


def _status(directory: Path, manifest: StudyManifest, states: list[PointState]) -> Group:
    lines = [status_summary(directory, manifest, states), *failures(directory, states)]
    return Group(status_table(states), *(Text(line) for line in lines))


def show_logs(directory: Path, name: str | None, lines: int) -> None:
    """Print the last ``lines`` of every log of the points whose name contains ``name``; without it, of the whole study.

    Raises ConfigError where no point matches or nothing has been started yet.
    """
    points = matching_points(directory, read_manifest(directory), name)
    folders = [directory / point.directory for point in points]
    if name is None:
        folders.insert(0, directory)
    logs = [log for folder in folders for log in (folder / "logs").glob("*.log")]
    logs.sort(key=lambda log: log.stat().st_mtime)
    logs += _outputs_of_ranks(directory, {point.name for point in points})
    if not logs:
        raise ConfigError(str(directory), [Problem(name or "", "has no logs: nothing of it has been started yet")])
    for log in logs:
        print(f"==> {log} <==")
        print(readable_tail(log, lines=lines))
        print()


def _outputs_of_ranks(directory: Path, points: set[str]) -> list[Path]:
    """Output of the newest Slurm jobs beside their log: errors of other ranks, or from before the command started."""
    newest = [job for job in latest(read_jobs(directory)).values() if job.point in points and job.job_id]
    outputs = [path for job in newest for path in sorted((directory / FOLDER).glob(f"{job.job_id}_*_log.out"))]
    return [path for path in outputs if any(not line.startswith("submitit INFO") for line in _lines(path))]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def matching_points(directory: Path, manifest: StudyManifest, name: str | None) -> list[Point]:
    """The point called ``name``, else those whose name contains it; all without it. Raises ConfigError for none."""
    names = [point.name for point in manifest.points]
    if name is None or name in names:
        return [point for point in manifest.points if name in (None, point.name)]
    found = [point for point in manifest.points if name in point.name or name in point.directory]
    if not found:
        message = f"is not a point of the study, expected one of {', '.join(names)}{did_you_mean(name, names)}"
        raise ConfigError(str(directory), [Problem(name, message)])
    return found


def cancel(directory: Path, name: str | None, console: Console) -> int:
    """End every job of the study, or of the points whose name contains ``name``, and wait until they have ended.

    Returns 0, or 1 where something still runs. Raises SchedulerSilent, ConfigError.
    """
    manifest = read_manifest(directory)
    points = matching_points(directory, manifest, name)
    in_slurm = _cancel_slurm(directory, None if name is None else points, console)
    stages = ["train", *(probe_stage(probe) for probe in manifest.probes)]
    here = _stop_launcher(directory, console) if name is None else _stop_tasks(directory, points, stages, console)
    return 0 if in_slurm and here else 1


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
    return cancel_jobs(_numbers(alive)) and _wait_until(lambda: _gone(alive), SLURM_ENDS_S)


def _gone(jobs: Sequence[SlurmJob]) -> bool:
    queue = read_queue(_numbers(jobs))
    return queue is not None and not any(number in queue for number in _numbers(jobs))


def _numbers(jobs: Sequence[SlurmJob]) -> list[str]:
    return [job.job_id for job in jobs if job.job_id is not None]


def _stop_launcher(directory: Path, console: Console) -> bool:
    """Ask the launcher to stop, which stops its tasks first; False where it runs on, or on another host."""
    owner = lock_owner(directory)
    pid, host, started = owner.get("pid"), owner.get("host"), owner.get("process_started")
    if owner and (host != platform.node() or not isinstance(pid, int)):
        console.print(f"the launcher is process {pid} on {host}: cancel it there")
        return False
    return _stop([(pid, started)] if isinstance(pid, int) else [], os.kill, console)


def _stop_tasks(directory: Path, points: Sequence[Point], stages: Sequence[str], console: Console) -> bool:
    """Ask the tasks of ``points`` on this machine to stop; False where one runs on."""
    found = [read_record(directory / point.directory, stage) for point in points for stage in stages]
    here = [record for record in found if record is not None and record.host == platform.node()]
    running = [record for record in here if record.state == "running" and record.pid]
    return _stop([(record.pid, record.process_started) for record in running], os.killpg, console)


def _stop(processes: Sequence[tuple[int, float | None]], send: Callable[[int, int], None], console: Console) -> bool:
    """Ask processes (number, start) to stop; one that has got the number since then is let alone."""
    alive = [process for process in processes if process_exists(*process)]
    for pid, _ in alive:
        console.print(f"asking process {pid} to stop", markup=False)
        send(pid, signal.SIGTERM)
    return _wait_until(lambda: not any(process_exists(*process) for process in alive), LAUNCHER_ENDS_S)


def _wait_until(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def reset_failures(directory: Path, name: str | None, console: Console) -> None:
    """Make the failures so far of the study, or of the points whose name contains ``name``, no longer count."""
    points = {point.name for point in matching_points(directory, read_manifest(directory), name)}
    if not read_jobs(directory):
        return
    with hold_directory(directory):
        jobs = read_jobs(directory)
        queue = read_queue(job.job_id for job in jobs if job.ending is None)
        if queue is None:
            raise SchedulerSilent("squeue does not answer; nothing is changed, try again")
        jobs = with_endings(directory, found_again(jobs, queue), queue)
        reset = [job.ending == "failed" and (name is None or job.point in points) for job in jobs]
        pairs = zip(jobs, reset, strict=True)
        write_jobs(directory, [job.model_copy(update={"ending": "reset"}) if yes else job for job, yes in pairs])
    console.print(f"{sum(reset)} failures reset", markup=False)


def show_what_would_run(snapshot: Snapshot, console: Console) -> None:
    """Print every command (Slurm: the script of every kind of job) that `launch study` would start; starts nothing.

    Raises ConfigError where a result is damaged, as starting would.
    """
    graph = snapshot.graph
    if snapshot.problems:
        raise ConfigError(str(graph.directory), snapshot.problems)
    match graph.config.target:
        case SlurmTarget() as target:
            from launch.slurm.submit import show_scripts  # submitit, which no other target needs

            show_scripts(snapshot, target, console)
        case TorchrunTarget() as target:
            show_commands(snapshot, target, console)
        case LocalTarget():
            for task in [*snapshot.missing, *([report_task(graph)] if snapshot.missing else [])]:
                console.print(command_line(task.command), markup=False, soft_wrap=True)
        case unknown:
            assert_never(unknown)


def clean(directory: Path, *, features: bool, checkpoints: bool, tell: Callable[[str], None] = print) -> None:
    """Tell how much every kind of file takes, and remove cached features or older checkpoints where that is asked for.

    Only finished runs lose checkpoints, and never their newest. Raises FileNotFoundError where there is no run.
    """
    runs = [RunDirectory(path.parent) for path in sorted(directory.rglob("plan.json"))]
    if not runs:
        raise FileNotFoundError(f"{directory}: expected the directory of a study or a run, got one without a run in it")
    caches = [path for run in runs for path in (run.path / "eval").glob("features-*")]
    older = [path for run in runs if run.finished() for path in _checkpoints(run)[:-1]]
    newest = [path for run in runs for path in _checkpoints(run) if path not in older]
    tell(f"{directory}: {len(runs)} run{'s' * (len(runs) != 1)}, {_size([directory]) / MEGABYTE:,.1f} MB")
    kinds = (
        ("cached features", caches, features),
        ("older checkpoints", older, checkpoints),
        ("newest checkpoints", newest, False),
    )
    for name, paths, remove in kinds:
        size = _size(paths)
        for path in paths if remove else []:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        tell(f"  {name:<20}{size / MEGABYTE:>12,.1f} MB{'   removed' if remove else ''}")
    if not (features or checkpoints) and (caches or older):
        tell("--features and --checkpoints remove the first two; evaluations compute features anew")


def _checkpoints(run: RunDirectory) -> list[Path]:
    """Oldest first."""
    return sorted(path for path in run.checkpoints.glob("*") if not path.name.startswith("."))


def _size(paths: Iterable[Path]) -> int:
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    return sum(file.stat().st_size for file in files)
