"""`launch study`: make the study's directory, do what is missing, build the report. Torch-free.

The directory: study.json study.yaml base.yaml lock logs/ points/<point>/ report/. study.yaml and base.yaml are
copies, so that the directory alone says how to go on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, assert_never

import yaml
from rich.console import Console

from eval.study_manifest import REPORT_FILE, StudyManifest, read_manifest, write_manifest
from launch.local.process import Outcome, RunningJob, StopRequest, stop_all
from launch.local.progress import Progress
from launch.local.run import POLL_S, run_local
from launch.local.torchrun import as_local, run_other_node, show_commands
from launch.lock import study_lock
from launch.plan.command_lines import REQUESTED_FILE
from launch.plan.config import BASE_FILE, STUDY_FILE
from launch.plan.graph import StudyGraph
from launch.plan.targets import LocalTarget, SlurmTarget, TorchrunTarget
from launch.slurm.records import study_records
from launch.state import study_states
from launch.tables import failures, result_table, status_table
from launch.tasks import missing_tasks, report_is_old, report_task
from pretrain.config import PretrainConfig
from pretrain.configio import dump_yaml
from pretrain.errors import Problem
from pretrain.rundir import write_text


def run_study(graph: StudyGraph, console: Console) -> int:
    """Do what is missing of the study, or see to it, and show its table; returns the exit status.

    0: everything is there, or on its way in Slurm; 1: something failed; 128 + n: stopped by signal n, and will go on
    when started again. Raises StudyLocked where somebody else works on it, SchedulerSilent where Slurm does not answer,
    ConfigError where it refuses a job.
    """
    if up_to_date(graph):
        return _show(graph, console, 0)
    target = graph.config.target
    match target:
        case TorchrunTarget(node_rank=None):
            show_commands(graph, target, console)
            return 0
        case TorchrunTarget(node_rank=int(node_rank)) if node_rank > 0:
            return run_other_node(graph, target, node_rank, console)
        case _:
            return _show(graph, console, _run_locked(graph, console))


def _run_locked(graph: StudyGraph, console: Console) -> int:
    target = graph.config.target
    with StopRequest().listening() as stop, study_lock(graph.directory) as lock:
        if lock.note:
            console.print(lock.note, markup=False)
        write_study(graph)
        match target:
            case SlurmTarget():
                from launch.slurm.submit import run_slurm  # submitit, which no other target needs

                return run_slurm(graph, target, console)
            case TorchrunTarget():
                return _do_missing(graph, as_local(target), console, stop, lock.descriptor)
            case LocalTarget():
                return _do_missing(graph, target, console, stop, lock.descriptor)
            case _:
                assert_never(target)


def _show(graph: StudyGraph, console: Console, status: int) -> int:
    states = study_states(graph.directory, graph.manifest, study_records(graph.directory))
    on_its_way = isinstance(graph.config.target, SlurmTarget) and any(state.stage != "finished" for state in states)
    console.print(status_table(states) if on_its_way else result_table(states), soft_wrap=True)
    for line in failures(graph.directory, states):
        console.print(line, markup=False, soft_wrap=True)
    report = graph.directory / REPORT_FILE
    if report.is_file():
        console.print(f"report: {report}", markup=False, soft_wrap=True)
    if on_its_way:
        console.print(f"watch it: python -m launch status {graph.directory} --watch", markup=False, soft_wrap=True)
    return status


def up_to_date(graph: StudyGraph) -> bool:
    """True when every result is there, study.json says what the study is, and the report is newer than all of it."""
    return not missing_tasks(graph) and _same_manifest(graph) and not report_is_old(graph)


def result_problems(graph: StudyGraph) -> list[Problem]:
    """Every result file in the study's directory that is damaged or not its point's."""
    states = study_states(graph.directory, graph.manifest)
    return [Problem(state.point.name, state.detail) for state in states if state.damaged]


def write_study(graph: StudyGraph) -> None:
    """Write the study's own files and the configuration of every point; files that say the same stay as they are."""
    if not _same_manifest(graph):
        write_manifest(graph.directory, graph.manifest)
    _write_if_changed(graph.directory / BASE_FILE, yaml.safe_dump(graph.base, sort_keys=False))
    study = graph.config.model_dump(mode="json", exclude={"directory"})
    _write_if_changed(graph.directory / STUDY_FILE, yaml.safe_dump({**study, "base": BASE_FILE}, sort_keys=False))
    for point in graph.points:
        path = graph.run(point).path
        run = point.config.run.model_copy(update={"directory": path})
        config: PretrainConfig = point.config.model_copy(update={"run": run})
        _write_if_changed(path / REQUESTED_FILE, dump_yaml(config))


def _do_missing(graph: StudyGraph, target: LocalTarget, console: Console, stop: StopRequest, lock: int) -> int:
    tasks = missing_tasks(graph)
    with Progress(graph, tasks, console) as progress:
        outcomes = run_local(tasks, target, watcher=progress, stop=stop, lock=lock)
        well = all(task.key in outcomes and outcomes[task.key].state == "finished" for task in tasks)
        if not stop.count and report_is_old(graph):
            progress.note("building the report")
            outcome = _build_report(graph, stop, lock)
            if outcome.state == "failed":
                progress.failed(outcome)
            well = well and outcome.state == "finished"
    if stop.number is not None:
        console.print("stopped; start the study again to go on where it was")
        return 128 + stop.number
    return 0 if well else 1


def _build_report(graph: StudyGraph, stop: StopRequest, lock: int) -> Outcome:
    running = RunningJob(report_task(graph).job, keep_open=[lock])
    while (outcome := running.poll()) is None:
        if stop.count:
            return stop_all([running], hurry=stop)[0]
        time.sleep(POLL_S)
    return outcome


def _same_manifest(graph: StudyGraph) -> bool:
    """True when study.json differs from the manifest in nothing but the revision of the code."""
    try:
        written = read_manifest(graph.directory)
    except (FileNotFoundError, ValueError):
        return False
    return _content(written) == _content(graph.manifest)


def _content(manifest: StudyManifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", exclude={"git_revision"})


def _write_if_changed(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
