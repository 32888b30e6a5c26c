"""What is to be submitted of a study, given what was submitted before and what Slurm still has of it. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from launch.jobs import SlurmJob, attempts, latest
from launch.scheduler import Queue
from launch.tasks import Task


@dataclass
class Decision:
    """What happens to every missing task.

    submit: those that get a new job. adopted: those whose job is there. cancel: numbers of jobs that wait in vain.
    refused: those that are left alone, each with why. alive: number of the job of every adopted task, by key.
    """

    submit: list[Task] = field(default_factory=list)
    adopted: list[Task] = field(default_factory=list)
    refused: list[tuple[Task, str]] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    alive: dict[str, str] = field(default_factory=dict)


def decide(tasks: Sequence[Task], jobs: Sequence[SlurmJob], queue: Queue, *, max_attempts: int) -> Decision:
    """Sort ``tasks`` (each after those it needs). Never two jobs for one task."""
    decision = Decision()
    newest = latest(jobs)
    unreachable: dict[str, Task] = {}
    for task in tasks:
        job = newest.get(task.key)
        is_alive = job is not None and job.ending is None and job.job_id in queue
        because = next((unreachable[need] for need in task.needs if need in unreachable), None)
        if is_alive and job is not None and job.job_id is not None and _waits_for_what_it_needs(job, task, decision):
            decision.adopted.append(task)
            decision.alive[task.key] = job.job_id
            continue
        if is_alive and job is not None and job.job_id is not None:
            decision.cancel.append(job.job_id)
        if because is not None:
            unreachable[task.key] = because
            decision.refused.append((task, f"needs {because.job.label}, which is left alone"))
        elif (failed := attempts(jobs, task.key)) >= max_attempts:
            unreachable[task.key] = task
            decision.refused.append((task, f"failed {failed} times; see its log, then `launch retry`"))
        else:
            decision.submit.append(task)
    return decision


def _waits_for_what_it_needs(job: SlurmJob, task: Task, decision: Decision) -> bool:
    """False for a job that waits for a predecessor that has gone, and that Slurm is about to cancel for it."""
    needed = [decision.alive.get(need) for need in task.needs]
    return all(number is not None and number in job.after for number in needed)


def dependency(task: Task, numbers: Mapping[str, str]) -> tuple[str, ...]:
    """Numbers of the jobs that ``task`` is to wait for, given the number of each task's job."""
    return tuple(numbers[need] for need in task.needs if need in numbers)
