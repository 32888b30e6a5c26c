"""A study on nodes that torchrun connects: the exact command of each node, printed or run. Torch-free.

The first node does everything; the others run their part of every training, and need the same files. The nodes need no
coordination: each takes the missing runs in the same order, and meets the others at the run's rendezvous.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from launch.local.process import RunningTask, StopRequest, stop_all
from launch.local.run import POLL_S
from launch.plan.command_lines import command_line, job_environment, training_command
from launch.plan.graph import StudyGraph
from launch.plan.targets import LocalTarget, TorchrunTarget
from launch.snapshot import Snapshot
from launch.tasks import Task, report_task


def as_local(target: TorchrunTarget) -> LocalTarget:
    """How the first node runs its tasks: one at a time, with every core and GPU."""
    return LocalTarget(ranks=target.ranks_per_node, overlap_probes=False)


def show_commands(snapshot: Snapshot, target: TorchrunTarget, console: Console) -> None:
    """Print the commands of each node, in order, to be run in this working directory."""
    for node_rank in range(target.nodes):
        beside = " (it also writes data, evaluates and reports)" if node_rank == 0 else ""
        console.print(f"# node {node_rank} of {target.nodes}{beside}", markup=False)
        for line in node_commands(snapshot.graph, snapshot.missing, target, node_rank):
            console.print(line, markup=False, soft_wrap=True)
        console.print()
    console.print("# or, on each node: the same `launch study` command with target.node_rank=0, 1, ...", markup=False)


def node_commands(graph: StudyGraph, missing: Sequence[Task], target: TorchrunTarget, node_rank: int) -> Iterator[str]:
    """The command lines of one node, in order."""
    for task in missing:
        if node_rank == 0 or task.kind == "train":
            yield command_line(_task_of(node_rank, task, target).command)
    if node_rank == 0:
        yield command_line(report_task(graph).command)


def run_other_node(missing: Sequence[Task], target: TorchrunTarget, node_rank: int, console: Console) -> int:
    """Run this node's part of every missing training; returns the exit status."""
    status = 0
    with StopRequest().listening() as stop:
        for task in missing:
            if task.kind != "train" or (task.result is not None and task.result.is_file()):
                continue
            running = RunningTask(_task_of(node_rank, task, target))
            console.print(f"{task.label}: node {node_rank} takes part, log {running.task.log}", markup=False)
            while (outcome := running.poll()) is None:
                if stop.count:
                    stop_all([running], hurry=stop)
                    return 128 + (stop.number or 0)
                time.sleep(POLL_S)
            if outcome.state != "finished":
                console.print(f"{task.label}: {outcome.state} on node {node_rank}\n{outcome.tail}", markup=False)
                status = 1
    return status


def _task_of(node_rank: int, task: Task, target: TorchrunTarget) -> Task:
    """``task`` as the node runs it."""
    if task.kind != "train" or node_rank == 0:
        return task
    command = training_command(task.directory, target, node_rank=node_rank)
    variables = job_environment(processes=target.ranks_per_node)
    # The first node writes the result, perhaps after this one has ended.
    return replace(task, stage=f"train-node{node_rank}", command=command, result=None, environment=variables)
