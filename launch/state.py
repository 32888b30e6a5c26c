"""How far every point of a study is, from its files alone: the same for whoever looks, on any host. Torch-free.

Each job leaves logs/<stage>.log and logs/<stage>.json (its record) in its point's directory; a stage is finished
exactly when its result.json exists.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.schema import EvaluationResult, Refused, RunResult, read_evaluation, read_run_result
from eval.study_manifest import Point, Probe, StudyManifest
from pretrain.configio import Section, validate
from pretrain.rundir import RunDirectory, read_json, write_json

# A job of another host counts as running while its progress.json is younger than this.
SILENT_AFTER_S = 600.0

Stage = Literal["waiting", "queued", "training", "trained", "evaluating", "finished", "failed", "stopped"]


class JobRecord(Section):
    """What is known of the latest start of one stage of a point (of the report, of a data set)."""

    stage: str
    state: Literal["queued", "running", "finished", "failed", "stopped"]
    command: str
    host: str
    pid: int
    started: float  # seconds since 1970
    ended: float | None = None
    exit_status: int | None = None
    job_id: str | None = None  # in Slurm, which then says whether it is alive
    note: str = ""  # e.g. why it waits


# What is known of a stage of the job that lives in a directory.
Records = Callable[[Path, str], JobRecord | None]


@dataclass(frozen=True)
class PointState:
    """One line of the status. Numbers are None where nothing is known yet, never 0."""

    point: Point
    stage: Stage
    detail: str = ""  # of a failure
    damaged: bool = False  # a result that cannot be read, or is another run's
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
        """Seconds that training still takes at the current speed."""
        if self.stage != "training" or not self.images_per_second or self.step is None or self.total_steps is None:
            return None
        return (self.total_steps - self.step) * int(self.point.plan["global_batch_size"]) / self.images_per_second

    @property
    def images_seen(self) -> int:
        """Images of this run that are done."""
        batch, total = int(self.point.plan["global_batch_size"]), int(self.point.plan["total_steps"])
        done = self.stage in ("trained", "evaluating", "finished")
        return batch * (total if done else min(self.step or 0, total))


def log_path(directory: Path, stage: str) -> Path:
    """Output of ``stage`` of the job that lives in ``directory``."""
    return directory / "logs" / f"{stage}.log"


def record_path(directory: Path, stage: str) -> Path:
    """Record of ``stage`` of the job that lives in ``directory``."""
    return directory / "logs" / f"{stage}.json"


def write_record(directory: Path, record: JobRecord) -> None:
    """Write the record whole."""
    write_json(record_path(directory, record.stage), record.model_dump(mode="json"))


def read_record(directory: Path, stage: str) -> JobRecord | None:
    """Record of ``stage``; None where it never started. A damaged one counts as none: it is only history."""
    try:
        return validate(JobRecord, read_json(record_path(directory, stage)), "record")
    except (FileNotFoundError, ValueError):
        return None


def probe_stage(probe: Probe) -> str:
    """Name of the stage of one evaluation, e.g. ``linear-0123456789ab``."""
    return f"{probe.task}-{probe.fingerprint}"


def trained(run: RunDirectory, point: Point) -> bool:
    """True when the point's run has its result. Raises ValueError where the file is damaged or another run's."""
    return _run_result(run, point) is not None


def _run_result(run: RunDirectory, point: Point) -> RunResult | None:
    result = read_run_result(run, point.fingerprint)
    if isinstance(result, Refused):
        raise ValueError(str(result))
    return result


def evaluated(run: RunDirectory, point: Point, probe: Probe) -> bool:
    """True when the evaluation of the point's finished run has its result; one that does not count is done again."""
    training = read_run_result(run, point.fingerprint)
    if not isinstance(training, RunResult):
        return False
    found = read_evaluation(run.evaluation(probe.task, probe.fingerprint) / "result.json", training)
    # A damaged one is a person's to look at: it is reported as a failure, and not written over.
    return isinstance(found, EvaluationResult) or (isinstance(found, Refused) and found.damaged)


def _evaluation(run: RunDirectory, training: RunResult, probe: Probe) -> EvaluationResult | None:
    """None where there is none that counts. Raises ValueError where it is damaged."""
    found = read_evaluation(run.evaluation(probe.task, probe.fingerprint) / "result.json", training)
    if isinstance(found, Refused) and found.damaged:
        raise ValueError(str(found))
    return found if isinstance(found, EvaluationResult) else None


def study_states(directory: Path, manifest: StudyManifest, records: Records = read_record) -> list[PointState]:
    """State of every point, in the manifest's order."""
    return [point_state(directory, point, manifest.probes, records) for point in manifest.points]


def point_state(
    study_directory: Path, point: Point, probes: Sequence[Probe], records: Records = read_record
) -> PointState:
    """State of one point, from its files and what ``records`` know."""
    run = RunDirectory(study_directory / point.directory)
    try:
        training = _run_result(run, point)
        if training is None:
            return _unfinished(run, point, records)
        return _finished(run, point, training, probes, records)
    except ValueError as error:
        return PointState(point, "failed", detail=str(error), damaged=True)


def _finished(
    run: RunDirectory, point: Point, training: RunResult, probes: Sequence[Probe], records: Records
) -> PointState:
    progress = _progress(run)
    stage: Stage = "finished"
    detail = ""
    top1 = knn_top1 = None
    for probe in probes:
        found = _evaluation(run, training, probe)
        if found is None:
            if stage == "finished":
                record = records(run.path, probe_stage(probe))
                stage, detail = _stage_of(record, idle="trained", busy="evaluating"), _detail(record)
        elif found.initialisation == "pretrained":  # a random encoder's accuracy is not what the point reached
            top1 = getattr(found, "top1", None) if top1 is None else top1
            knn_top1 = getattr(found, "knn_top1", None) if knn_top1 is None else knn_top1
    return PointState(
        point,
        stage,
        detail,
        step=training.total_steps,
        total_steps=training.total_steps,
        images_per_second=training.images_per_second,
        train_seconds=training.train_seconds,
        restarts=training.restarts,
        loss=training.final.get("loss", progress.get("loss")),
        host=progress.get("host"),
        updated=run.result.stat().st_mtime,
        top1=top1,
        knn_top1=knn_top1,
    )


def _unfinished(run: RunDirectory, point: Point, records: Records) -> PointState:
    numbers = _progress(run)
    if numbers:
        numbers["restarts"] = _restarts(run)
    record = records(run.path, "train")
    if record is None and numbers and time.time() - numbers["updated"] < SILENT_AFTER_S:
        stage: Stage = "training"  # started by somebody else than the launcher
    else:
        idle: Stage = "stopped" if numbers else "waiting"
        stage = _stage_of(record, idle=idle, busy="training", seen=numbers.get("updated"))
    numbers.setdefault("total_steps", point.plan["total_steps"])
    return PointState(point, stage, _detail(record), **numbers)


def _stage_of(record: JobRecord | None, *, idle: Stage, busy: Stage, seen: float | None = None) -> Stage:
    if record is None:
        return idle
    match record.state:
        case "queued":
            return "queued" if busy == "training" else idle
        case "running":
            return busy if _alive(record, seen) else "stopped"
        case "finished":  # its result was taken away since
            return idle
        case "failed" | "stopped":
            return record.state


def _alive(record: JobRecord, seen: float | None) -> bool:
    """Whether the job still runs: as Slurm said, else its process here, the age of its last sign elsewhere."""
    if record.job_id is not None:
        return True
    if record.host == platform.node():
        return process_exists(record.pid)
    return time.time() - max(record.started, seen or 0.0) < SILENT_AFTER_S


def process_exists(pid: int) -> bool:
    """True when a process of this host has the number ``pid`` and has not ended (a zombie has)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # no /proc here, or it ended just now
        return not Path("/proc/self").exists()


def _detail(record: JobRecord | None) -> str:
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


def read_result(path: Path) -> dict[str, Any] | None:
    """A stage's result; None while there is none. Raises ValueError where the file is damaged."""
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: expected a mapping, got {type(found).__name__}")
    return found
