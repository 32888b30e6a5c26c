"""`launch logs`: the end of what the jobs of a study printed. Torch-free."""

from __future__ import annotations

from pathlib import Path

from eval.manifest import Point, StudyManifest, read_manifest
from launch.jobs import FOLDER, latest, read_jobs
from launch.process import readable_tail
from pretrain.errors import ConfigError, Problem, did_you_mean


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
