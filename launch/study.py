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

from eval.manifest import FILE_NAME, REPORT_FILE, StudyManifest, read_manifest, write_manifest
from launch.command import REQUESTED_FILE, job_environment, report_command
from launch.config import BASE_FILE, STUDY_FILE, LocalTarget
from launch.graph import StudyGraph
from launch.local import POLL_S, missing_tasks, run_local
from launch.lock import study_lock
from launch.process import Job, Outcome, RunningJob, StopRequest, stop_all
from launch.progress import Progress
from launch.state import study_states
from launch.tables import failures, result_table
from pretrain.config import PretrainConfig
from pretrain.configio import dump_yaml
from pretrain.errors import ConfigError, Problem
from pretrain.rundir import write_text


def run_study(graph: StudyGraph, console: Console) -> int:
    """Do what is missing of the study and show its table; returns the exit status.

    0: everything is there; 1: something failed; 128 + n: stopped by signal n, and will go on when started again.
    Raises StudyLocked where somebody else works on it, ConfigError where a result in it belongs to another run.
    """
    check_results(graph)
    status = 0
    with StopRequest().listening() as stop:
        if not up_to_date(graph):
            with study_lock(graph.directory) as lock:
                if lock.note:
                    console.print(lock.note, markup=False)
                write_study(graph)
                status = _do_missing(graph, console, stop, lock.descriptor)
        _show_results(graph, console)
    return status


def _show_results(graph: StudyGraph, console: Console) -> None:
    states = study_states(graph.directory, graph.manifest)
    console.print(result_table(states))
    for line in failures(graph.directory, states):
        console.print(line, markup=False, soft_wrap=True)
    report = graph.directory / REPORT_FILE
    if report.is_file():
        console.print(f"report: {report}", markup=False, soft_wrap=True)


def up_to_date(graph: StudyGraph) -> bool:
    """True when every result is there, study.json says what the study is, and the report is newer than all of it."""
    return not missing_tasks(graph) and _same_manifest(graph) and not report_is_old(graph)


def report_is_old(graph: StudyGraph) -> bool:
    """True when some result, or study.json, is newer than the report; False where there is nothing to report."""
    report = graph.directory / REPORT_FILE
    runs = [graph.run(point) for point in graph.points]
    results = [run.result for run in runs]
    results += [run.evaluation(p.task, p.fingerprint) / "result.json" for run in runs for p in graph.manifest.probes]
    found = [path for path in results if path.is_file()]
    if not found or not report.is_file():
        return bool(found)
    return max(path.stat().st_mtime for path in (*found, graph.directory / FILE_NAME)) > report.stat().st_mtime


def check_results(graph: StudyGraph) -> None:
    """Raises ConfigError naming every result file in the study's directory that is not its point's."""
    states = study_states(graph.directory, graph.manifest)
    problems = [Problem(state.point.name, state.detail) for state in states if state.damaged]
    if problems:
        raise ConfigError(str(graph.directory), problems)


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


def _do_missing(graph: StudyGraph, console: Console, stop: StopRequest, lock: int) -> int:
    tasks = missing_tasks(graph)
    with Progress(graph, tasks, console) as progress:
        match graph.config.target:
            case LocalTarget() as target:
                outcomes = run_local(tasks, target, watcher=progress, stop=stop, lock=lock)
            case _ as never:
                assert_never(never)
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
    directory = graph.directory
    variables = job_environment(processes=1)
    job = Job("report", "report", report_command(directory), directory, directory / REPORT_FILE, environment=variables)
    running = RunningJob(job, keep_open=[lock])
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
