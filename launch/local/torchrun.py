"""A study on nodes that torchrun connects: the exact command of each node, printed or run. Torch-free.

The first node does everything; the others run their part of every training, and need the same files. No node has to be
told what another one does: each takes the missing runs in the same order, and meets the others at their rendezvous.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console

from launch.local.process import RunningJob, StopRequest, stop_all
from launch.local.run import POLL_S
from launch.plan.command_lines import command_line, job_environment, training_command
from launch.plan.graph import StudyGraph
from launch.plan.targets import LocalTarget, TorchrunTarget
from launch.tasks import Job, Task, missing_tasks, report_task


def as_local(target: TorchrunTarget) -> LocalTarget:
    """How the first node places the jobs that it runs: one at a time, with every core and GPU."""
    return LocalTarget(ranks=target.ranks_per_node, overlap_probes=False)


def show_commands(graph: StudyGraph, target: TorchrunTarget, console: Console) -> None:
    """Print what each node is to run, in order, from this working directory."""
    for node_rank in range(target.nodes):
        beside = " (it also writes data, evaluates and reports)" if node_rank == 0 else ""
        console.print(f"# node {node_rank} of {target.nodes}{beside}", markup=False)
        for line in node_commands(graph, target, node_rank):
            console.print(line, markup=False, soft_wrap=True)
        console.print()
    console.print("# or, on each node: the same `launch study` command with target.node_rank=0, 1, ...", markup=False)


def node_commands(graph: StudyGraph, target: TorchrunTarget, node_rank: int) -> Iterator[str]:
    """The command lines of one node, in order."""
    for task in missing_tasks(graph):
        if node_rank == 0 or task.kind == "train":
            yield command_line(_job(graph, task, target, node_rank).command)
    if node_rank == 0:
        yield command_line(report_task(graph).job.command)


def run_other_node(graph: StudyGraph, target: TorchrunTarget, node_rank: int, console: Console) -> int:
    """Run this node's part of every missing training; returns the exit status."""
    status = 0
    with StopRequest().listening() as stop:
        for task in missing_tasks(graph):
            if task.kind != "train" or (task.job.result is not None and task.job.result.is_file()):
                continue
            running = RunningJob(_job(graph, task, target, node_rank))
            console.print(f"{task.job.label}: node {node_rank} takes part, log {running.job.log}", markup=False)
            while (outcome := running.poll()) is None:
                if stop.count:
                    stop_all([running], hurry=stop)
                    return 128 + (stop.number or 0)
                time.sleep(POLL_S)
            if outcome.state != "finished":
                console.print(f"{task.job.label}: {outcome.state} on node {node_rank}\n{outcome.tail}", markup=False)
                status = 1
    return status


def _job(graph: StudyGraph, task: Task, target: TorchrunTarget, node_rank: int) -> Job:
    if task.kind != "train" or node_rank == 0 or task.point is None:
        return task.job
    command = training_command(graph.run(task.point).path, target, node_rank=node_rank)
    variables = job_environment(processes=target.ranks_per_node)
    # The result is the first node's to write.
    return replace(task.job, stage=f"train-node{node_rank}", command=command, result=None, environment=variables)
