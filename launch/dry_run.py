"""`launch study --dry-run`: what would be submitted or run, word for word. Torch-free."""

from __future__ import annotations

from typing import assert_never

from rich.console import Console

from launch.command import command_line
from launch.graph import StudyGraph
from launch.targets import LocalTarget, SlurmTarget, TorchrunTarget
from launch.tasks import missing_tasks, report_task
from launch.torchrun import show_commands


def show_what_would_run(graph: StudyGraph, console: Console) -> None:
    """Print every command (Slurm: the script of every kind of job) that starting the study would start."""
    target = graph.config.target
    match target:
        case SlurmTarget():
            from launch.slurm import show_scripts  # submitit

            show_scripts(graph, target, console)
        case TorchrunTarget():
            show_commands(graph, target, console)
        case LocalTarget():
            tasks = missing_tasks(graph)
            for task in [*tasks, *([report_task(graph)] if tasks else [])]:
                console.print(command_line(task.job.command), markup=False, soft_wrap=True)
        case _:
            assert_never(target)
