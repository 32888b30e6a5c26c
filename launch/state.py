"""How far every point of a study is, from its files alone: the same for every user, on any host. Torch-free.

Each task leaves logs/<stage>.log and logs/<stage>.json (its record) in its point's directory; a stage is finished
exactly when its result.json exists.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from eval.schema import EvaluationResult, Refused, RunResult, read_evaluation, read_run_result
from eval.study_manifest import Point, Probe, StudyManifest
from pretrain.configio import Section, validate
from pretrain.lock import process_exists
from pretrain.rundir import RunDirectory, read_json, write_json

# A task on another host counts as running while its progress.json is younger than this: a run replaces the file every
# few seconds, and the longest pause between two steps, a checkpoint on a slow file system, takes minutes.
SILENT_AFTER_S = 600.0

Stage = Literal["waiting", "queued", "training", "trained", "evaluating", "finished", "failed", "stopped"]


class TaskRecord(Section):
    """What is known of a task's latest start."""

    stage: str
    state: Literal["queued", "running", "finished", "failed", "stopped"]
    command: str
    host: str
    pid: int
    process_started: float | None = None  # by the clock of the system: another process may get the number later
    started: float  # seconds since 1970
    ended: float | None = None
    exit_status: int | None = None
    job_id: str | None = None  # in Slurm, which then knows whether it is alive
    note: str = ""  # e.g. why it waits


# Finds the record of a stage of the point (or study) that lives in a directory.
Records = Callable[[Path, str], TaskRecord | None]


@dataclass(frozen=True)
class PointState:
    """How far a point is. Numbers are None where nothing is known yet, never 0.

    trained: its run has a result. missing_probes: evaluations without a result. newest_result: when its newest result
    was written, in seconds since 1970.
    """

    point: Point
    stage: Stage
    detail: str = ""  # of a failure
    damaged: bool = False  # a result cannot be read, or is another run's
    trained: bool = False
    missing_probes: tuple[Probe, ...] = ()
    newest_result: float | None = None
    step: int | None = None
    total_steps: int | None = None
    images_per_second: float | None = None
    loss: float | None = None
    host: str | None = None
    restarts: int | None = None
    updated: float | None = None  # seconds since 1970
    train_seconds: float | None = None
    top1: float | None = None  # per cent
    knn_top1: float | None = None  # per cent

    @property
    def remaining_s(self) -> float | None:
        """Seconds until training ends at the current speed; None where that is not known."""
        if self.stage != "training" or not self.images_per_second or self.step is None or self.total_steps is None:
            return None
        return (self.total_steps - self.step) * int(self.point.plan["global_batch_size"]) / self.images_per_second

    @property
    def images_seen(self) -> int:
        """Images that the run has seen so far."""
        batch, total = int(self.point.plan["global_batch_size"]), int(self.point.plan["total_steps"])
        done = self.stage in ("trained", "evaluating", "finished")
        return batch * (total if done else min(self.step or 0, total))


def log_path(directory: Path, stage: str) -> Path:
    """Output of ``stage`` of the point (or study) that lives in ``directory``."""
    return directory / "logs" / f"{stage}.log"


def record_path(directory: Path, stage: str) -> Path:
    """Record of ``stage`` of the point (or study) that lives in ``directory``."""
    return directory / "logs" / f"{stage}.json"


def write_record(directory: Path, record: TaskRecord) -> None:
    """Write the record whole."""
    write_json(record_path(directory, record.stage), record.model_dump(mode="json"))


def read_record(directory: Path, stage: str) -> TaskRecord | None:
    """Record of ``stage``; None where it never started. A damaged one counts as none: results alone decide."""
    try:
        return validate(TaskRecord, read_json(record_path(directory, stage)), "record")
    except (FileNotFoundError, ValueError):
        return None


def probe_stage(probe: Probe) -> str:
    """Name of the stage of one evaluation, e.g. ``linear-0123456789ab``."""
    return f"{probe.task}-{probe.fingerprint}"


def probe_result(run: RunDirectory, probe: Probe) -> Path:
    """Exists exactly when the evaluation has finished."""
    return run.evaluation(probe.task, probe.fingerprint) / "result.json"


def run_result(run: RunDirectory, point: Point) -> RunResult | None:
    """Result of the point's run; None while there is none. Raises ValueError where it is damaged or another run's."""
    result = read_run_result(run, point.fingerprint)
    if isinstance(result, Refused):
        raise ValueError(str(result))
    return result


def _evaluation(run: RunDirectory, training: RunResult, probe: Probe) -> EvaluationResult | None:
    """None where there is none that counts. Raises ValueError where it is damaged."""
    found = read_evaluation(probe_result(run, probe), training)
    if isinstance(found, Refused) and found.damaged:
        raise ValueError(str(found))
    return found if isinstance(found, EvaluationResult) else None


def study_states(directory: Path, manifest: StudyManifest, records: Records = read_record) -> list[PointState]:
    """State of every point, in the manifest's order."""
    return [point_state(directory, point, manifest.probes, records) for point in manifest.points]


def point_state(
    study_directory: Path, point: Point, probes: Sequence[Probe], records: Records = read_record
) -> PointState:
    """State of one point, from its files, each read at most once, and from ``records``."""
    run = RunDirectory(study_directory / point.directory)
    written = [modified(path) for path in (run.result, *(probe_result(run, probe) for probe in probes))]
    newest = max((time for time in written if time is not None), default=None)
    try:
        result = run_result(run, point)
        if result is None:
            state = replace(_unfinished(run, point, records), missing_probes=tuple(probes))
        else:
            state = _finished(run, point, result, probes, records)
    except ValueError as error:
        state = PointState(point, "failed", detail=str(error), damaged=True)
    return replace(state, newest_result=newest)


def _finished(
    run: RunDirectory, point: Point, result: RunResult, probes: Sequence[Probe], records: Records
) -> PointState:
    progress = _progress(run)
    found = {probe: _evaluation(run, result, probe) for probe in probes}
    missing = tuple(probe for probe, evaluation in found.items() if evaluation is None)
    stage: Stage = "finished"
    detail = ""
    if missing:
        record = records(run.path, probe_stage(missing[0]))
        stage, detail = _stage_of(record, idle="trained", busy="evaluating"), _detail(record)
    # A random encoder's accuracy is not what the point reached.
    trained = [evaluation for evaluation in found.values() if evaluation and evaluation.initialisation == "pretrained"]
    return PointState(
        point,
        stage,
        detail,
        trained=True,
        missing_probes=missing,
        step=result.total_steps,
        total_steps=result.total_steps,
        images_per_second=result.images_per_second,
        train_seconds=result.train_seconds,
        restarts=result.restarts,
        loss=result.final.get("loss", progress.get("loss")),
        host=progress.get("host"),
        updated=run.result.stat().st_mtime,
        top1=_first(trained, "top1"),
        knn_top1=_first(trained, "knn_top1"),
    )


def _first(evaluations: Sequence[EvaluationResult], name: str) -> float | None:
    values = (getattr(evaluation, name, None) for evaluation in evaluations)
    return next((value for value in values if value is not None), None)


def _unfinished(run: RunDirectory, point: Point, records: Records) -> PointState:
    numbers = _progress(run)
    if numbers:
        numbers["restarts"] = _restarts(run)
    record = records(run.path, "train")
    if record is None and numbers and time.time() - numbers["updated"] < SILENT_AFTER_S:
        stage: Stage = "training"  # started by hand, so that there is no record
    else:
        idle: Stage = "stopped" if numbers else "waiting"
        stage = _stage_of(record, idle=idle, busy="training", seen=numbers.get("updated"))
    numbers.setdefault("total_steps", point.plan["total_steps"])
    return PointState(point, stage, _detail(record), **numbers)


def _stage_of(record: TaskRecord | None, *, idle: Stage, busy: Stage, seen: float | None = None) -> Stage:
    if record is None:
        return idle
    match record.state:
        case "queued":
            return "queued" if busy == "training" else idle
        case "running":
            return busy if _alive(record, seen) else "stopped"
        case "finished":  # its result has been removed since
            return idle
        case "failed" | "stopped":
            return record.state


def _alive(record: TaskRecord, seen: float | None) -> bool:
    """Whether the task still runs: as Slurm said, else by its process here, else by its progress elsewhere."""
    if record.job_id is not None:
        return True
    if record.host == platform.node():
        return process_exists(record.pid, record.process_started)
    return time.time() - max(record.started, seen or 0.0) < SILENT_AFTER_S


def _detail(record: TaskRecord | None) -> str:
    if record is None or record.state != "failed":
        return record.note if record is not None and record.state == "queued" else ""
    if record.job_id is not None:
        return f"{record.stage} (Slurm job {record.job_id}) ended without a result{record.note}"
    if record.exit_status == 0:
        return f"{record.stage} ended without a result"
    return f"{record.stage} ended with exit status {record.exit_status}"


def _progress(run: RunDirectory) -> dict[str, Any]:
    """Numbers of progress.json, which the run replaces as it goes; empty before the first."""
    try:
        found = read_json(run.progress)
        updated = run.progress.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return {}
    keys = ("step", "total_steps", "images_per_second", "loss", "host")
    return {**{key: found.get(key) for key in keys}, "updated": updated}


def _restarts(run: RunDirectory) -> int | None:
    """Starts of the run after its first."""
    try:
        return len(read_json(run.environment)["sessions"]) - 1
    except (FileNotFoundError, ValueError, KeyError):
        return None


def evaluation_top1(study_directory: Path, point: Point, path: Path) -> float | None:
    """Accuracy of an evaluation by its result ``path``, in per cent; None where it has none, e.g. t-SNE."""
    training = read_run_result(RunDirectory(study_directory / point.directory), point.fingerprint)
    found = read_evaluation(path, training) if isinstance(training, RunResult) else None
    return _first([found], "top1") if isinstance(found, EvaluationResult) else None


def modified(path: Path) -> float | None:
    """When the file was written, in seconds since 1970; None where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
