"""`launch study`: make the study's directory, run what is missing, build the report. Torch-free.

The directory: study.json study.yaml base.yaml lock logs/ points/<point>/ report/. study.yaml and base.yaml are
copies, so that the directory alone is enough to continue the study.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import assert_never

import yaml
from rich.console import Console

from eval.study_manifest import REPORT_FILE, write_manifest
from launch.local.process import Outcome, RunningTask, StopRequest, stop_all
from launch.local.progress import Progress
from launch.local.run import POLL_S, run_local
from launch.local.torchrun import as_local, run_other_node, show_commands
from launch.plan.command_lines import REQUESTED_FILE
from launch.plan.config import BASE_FILE, STUDY_FILE
from launch.plan.graph import StudyGraph
from launch.plan.targets import LocalTarget, SlurmTarget, TorchrunTarget
from launch.slurm.jobs import read_jobs, study_records
from launch.snapshot import Snapshot, take_snapshot
from launch.tables import failures, result_table, status_table
from launch.tasks import report_task
from pretrain.configio import dump_yaml
from pretrain.errors import ConfigError
from pretrain.lock import hold_directory
from pretrain.rundir import write_text


def run_study(snapshot: Snapshot, console: Console) -> int:
    """Run what is missing of the study, or submit it, and show its table; returns the exit status.

    0: everything is there, or in Slurm's queue; 1: something failed; 128 + n: stopped by signal n, and continues when
    started again. Raises DirectoryInUse where another launcher has the study, SchedulerSilent where Slurm does not
    answer, ConfigError where it refuses a job.
    """
    if snapshot.up_to_date:
        return _show(snapshot, console, 0)
    match snapshot.graph.config.target:
        case TorchrunTarget(node_rank=None) as target:
            show_commands(snapshot, target, console)
            return 0
        case TorchrunTarget(node_rank=int(node_rank)) as target if node_rank > 0:
            return run_other_node(snapshot.missing, target, node_rank, console)
        case _:
            status, after = _run_locked(snapshot.graph, console)
            return _show(after, console, status)


def _run_locked(graph: StudyGraph, console: Console) -> tuple[int, Snapshot]:
    """(exit status, the study afterwards)"""
    with StopRequest().listening() as stop, hold_directory(graph.directory) as lock:
        if lock.predecessor:
            note = f"the launcher before, {lock.predecessor}, ended without releasing its lock"
            console.print(f"{note}; continuing from its files", markup=False)
        match graph.config.target:
            case SlurmTarget() as target:
                from launch.slurm.submit import settled_queue, submit_missing  # submitit, which no other target needs

                queue = settled_queue(read_jobs(graph.directory))
                status = submit_missing(_prepared(graph), target, queue, console)
                return status, take_snapshot(graph, study_records(graph.directory))
            case TorchrunTarget() as target:
                return _run_missing(_prepared(graph), as_local(target), console, stop, lock.descriptor)
            case LocalTarget() as target:
                return _run_missing(_prepared(graph), target, console, stop, lock.descriptor)
            case unknown:
                assert_never(unknown)


def _prepared(graph: StudyGraph) -> Snapshot:
    """A snapshot under the lock, which another launcher may have held until now; the study's files are written."""
    snapshot = take_snapshot(graph)
    if snapshot.problems:
        raise ConfigError(str(graph.directory), snapshot.problems)
    write_study(snapshot)
    return snapshot


def _show(snapshot: Snapshot, console: Console, status: int) -> int:
    directory, states = snapshot.graph.directory, snapshot.states
    in_slurm = isinstance(snapshot.graph.config.target, SlurmTarget)
    waits = in_slurm and any(state.stage != "finished" for state in states)
    console.print(status_table(states) if waits else result_table(states), soft_wrap=True)
    for line in failures(directory, states):
        console.print(line, markup=False, soft_wrap=True)
    if (directory / REPORT_FILE).is_file():
        console.print(f"report: {directory / REPORT_FILE}", markup=False, soft_wrap=True)
    if waits:
        console.print(f"watch it: bigbatch status {directory} --watch", markup=False, soft_wrap=True)
    return status


def write_study(snapshot: Snapshot) -> None:
    """Write the study's own files and the configuration of every point; files that would not change are not touched."""
    graph = snapshot.graph
    if snapshot.manifest_is_old:
        write_manifest(graph.directory, graph.manifest)
    _write_if_changed(graph.directory / BASE_FILE, yaml.safe_dump(graph.base, sort_keys=False))
    study = graph.config.model_dump(mode="json", exclude={"directory"})
    _write_if_changed(graph.directory / STUDY_FILE, yaml.safe_dump({**study, "base": BASE_FILE}, sort_keys=False))
    for point in graph.points:
        path = graph.run(point).path
        run = point.config.run.model_copy(update={"directory": path})
        _write_if_changed(path / REQUESTED_FILE, dump_yaml(point.config.model_copy(update={"run": run})))


def _run_missing(
    snapshot: Snapshot, target: LocalTarget, console: Console, stop: StopRequest, lock: int
) -> tuple[int, Snapshot]:
    """(exit status, the study afterwards)"""
    with Progress(snapshot, console) as progress:
        outcomes = run_local(snapshot.missing, target, watcher=progress, stop=stop, lock=lock)
        after = take_snapshot(snapshot.graph, study_records(snapshot.graph.directory))
        failed = any(task.key not in outcomes or outcomes[task.key].state != "finished" for task in snapshot.missing)
        if not stop.count and after.report_is_old:
            progress.note("building the report")
            outcome = _build_report(snapshot.graph, stop, lock)
            if outcome.state == "failed":
                progress.failed(outcome)
            failed = failed or outcome.state != "finished"
    if stop.number is not None:
        console.print("stopped; start the study again to continue")
        return 128 + stop.number, after
    return int(failed), after


def _build_report(graph: StudyGraph, stop: StopRequest, lock: int) -> Outcome:
    running = RunningTask(report_task(graph), keep_open=[lock])
    while (outcome := running.poll()) is None:
        if stop.count:
            return stop_all([running], hurry=stop)[0]
        time.sleep(POLL_S)
    return outcome


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
