"""`launch status`: the table of a study, once or until nothing of it runs. Torch-free."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from eval.manifest import StudyManifest, read_manifest
from launch.records import study_records
from launch.state import PointState, study_states
from launch.tables import failures, status_summary, status_table

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
