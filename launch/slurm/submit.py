"""A study on Slurm: submit what is missing, adopt what is there, and come back at once. Torch-free.

Runs are elements of a job array; each evaluation waits for its own run to end well, the report for everything to end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from launch.plan.command_lines import command_line, report_command
from launch.plan.graph import StudyGraph
from launch.plan.targets import SlurmTarget
from launch.slurm.jobs import SlurmJob, attempts, found_again, job_name, latest, read_jobs, with_endings, write_jobs
from launch.slurm.queue import Queue, SchedulerSilent, cancel_jobs, read_queue
from launch.slurm.sbatch import NotSubmitted, sbatch_text, submit
from launch.tasks import Task, missing_tasks, report_is_old, report_task
from pretrain.errors import ConfigError, Problem

# What is to be submitted of a study, given what was submitted before and what Slurm still has of it. Torch-free.


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


# A job that was cancelled a moment ago still writes its checkpoint; Slurm's own limit (KillWait) is 30 s.
ENDING_S = 90.0
POLL_S = 0.5


def run_slurm(graph: StudyGraph, target: SlurmTarget, console: Console) -> int:
    """Submit what is missing of the study; returns 0, or 1 where something is left alone.

    Raises SchedulerSilent where Slurm does not say what runs, ConfigError where it refuses a job.
    """
    directory = graph.directory
    queue = settled_queue(read_jobs(directory))
    jobs = with_endings(directory, found_again(read_jobs(directory), queue), queue)
    tasks = missing_tasks(graph)
    decision = decide(tasks, jobs, queue, max_attempts=target.max_attempts)
    writer = _Submission(graph, target, jobs, console)
    writer.submit_all(decision)
    waits_for = tuple(dict.fromkeys(writer.numbers[task.key] for task in tasks if task.key in writer.numbers))
    decision.cancel += writer.submit_report(latest(jobs).get(report_task(graph).key), queue, waits_for)
    cancel_jobs(decision.cancel)
    for line in _summary(decision, writer):
        console.print(line, markup=False, soft_wrap=True)
    return 1 if decision.refused else 0


def settled_queue(jobs: Sequence[SlurmJob]) -> Queue:
    """Slurm's queue once none of ``jobs`` is just ending, or after a while. Raises SchedulerSilent."""
    ours = {job.job_id for job in jobs if job.ending is None}
    deadline = time.monotonic() + ENDING_S
    while True:
        queue = read_queue(ours)
        if queue is None:
            raise SchedulerSilent("squeue does not answer: nobody knows what runs, so nothing is submitted; try again")
        ending = [number for number, job in queue.items() if number in ours and job.is_ending]
        if not ending or time.monotonic() > deadline:
            return queue
        time.sleep(POLL_S)


def show_scripts(graph: StudyGraph, target: SlurmTarget, console: Console) -> None:
    """Print the script of every kind of job that would be submitted if nothing had been yet; submits nothing."""
    tasks = missing_tasks(graph)
    name = graph.config.name
    for kind, processes in dict.fromkeys((task.kind, task.job.processes) for task in tasks):
        same = [task for task in tasks if (task.kind, task.job.processes) == (kind, processes)]
        task = same[0]
        count = len(same) if kind == "train" else 1
        after = f"afterok:<{task.needs[0].split()[0]}>" if task.needs else None
        text = sbatch_text(
            graph.directory,
            target,
            kind,
            name=f"{name}-{kind}",
            count=count,
            processes=processes,
            after=after,
        )
        console.print(f"# {len(same)} x {kind}: {command_line(task.job.command)}", markup=False, soft_wrap=True)
        console.print(text, markup=False, soft_wrap=True)
    text = sbatch_text(graph.directory, target, "report", name=f"{name}-report", after="afterany:<all>")
    console.print(f"# report: {command_line(report_command(graph.directory))}", markup=False, soft_wrap=True)
    console.print(text, markup=False, soft_wrap=True)


class _Submission:
    """Submits, and keeps jobs.json telling what was."""

    def __init__(self, graph: StudyGraph, target: SlurmTarget, jobs: Sequence[SlurmJob], console: Console) -> None:
        self._graph, self._target, self._console = graph, target, console
        self._jobs = list(jobs)
        self.numbers: dict[str, str] = {}
        self.submitted: list[SlurmJob] = []
        write_jobs(graph.directory, self._jobs)

    def submit_all(self, decision: Decision) -> None:
        """Data, then runs as arrays, then every evaluation by itself."""
        self.numbers |= decision.alive
        for kind in ("data", "train", "probe"):
            together: dict[tuple[str, ...], list[Task]] = {}
            for task in decision.submit:
                if task.kind == kind:
                    after = dependency(task, self.numbers)
                    together.setdefault(after if kind == "train" else (task.key, *after), []).append(task)
            for tasks in together.values():
                self.submit(tasks, dependency(tasks[0], self.numbers), "afterok")

    def submit(self, tasks: Sequence[Task], after: tuple[str, ...], how: str) -> None:
        """Submit ``tasks`` as one job or one array, and note its numbers. Raises ConfigError where sbatch refuses."""
        directory, kind = self._graph.directory, tasks[0].kind
        name = job_name(self._graph.config.name, kind, directory, [task.key for task in tasks], len(self._jobs))
        several = len(tasks) > 1
        entries = [self._entry(task, name, after, index if several else None) for index, task in enumerate(tasks)]
        write_jobs(directory, [*self._jobs, *entries])
        after_text = f"{how}:{':'.join(after)}" if after else None
        try:
            numbers = submit(directory, self._target, tasks, name=name, after=after_text)
        except NotSubmitted as error:
            write_jobs(directory, self._jobs)
            raise ConfigError(str(directory), [Problem(f"target ({kind})", f"sbatch refuses: {error}")]) from error
        entries = [entry.model_copy(update={"job_id": number}) for entry, number in zip(entries, numbers, strict=True)]
        self._jobs += entries
        self.submitted += entries
        write_jobs(directory, self._jobs)
        self.numbers |= {entry.key: number for entry, number in zip(entries, numbers, strict=True)}

    def submit_report(self, old: SlurmJob | None, queue: Queue, waits_for: tuple[str, ...]) -> list[str]:
        """Submit the report unless the ``old`` job will do, or nothing changes; returns the jobs that it replaces."""
        is_there = old is not None and old.ending is None and old.job_id in queue
        if old is not None and is_there and set(waits_for) <= set(old.after):
            return []
        if waits_for or report_is_old(self._graph):
            self.submit([report_task(self._graph)], waits_for, "afterany")
        return [old.job_id] if old is not None and old.job_id is not None and is_there else []

    def _entry(self, task: Task, name: str, after: tuple[str, ...], index: int | None) -> SlurmJob:
        directory, result = self._graph.directory, task.job.result
        inside = result is not None and result.is_relative_to(directory)
        point = task.point.entry if task.point is not None else None
        return SlurmJob(
            key=task.key,
            stage=task.job.stage,
            point=point.name if point else "",
            directory=point.directory if point else "",
            result=str(result.relative_to(directory)) if inside and result is not None else None,
            command=command_line(task.job.command),
            fingerprint=point.fingerprint if point else "",
            git_revision=self._graph.manifest.git_revision,
            attempt=1 + sum(job.key == task.key for job in self._jobs),
            name=name,
            index=index,
            after=after,
            submitted=time.time(),
        )


def _summary(decision: Decision, writer: _Submission) -> list[str]:
    kinds = {task.key: str(task.kind) for task in decision.submit}
    counts: dict[str, int] = {}
    for job in writer.submitted:
        kind = kinds.get(job.key, "report")
        counts[kind] = counts.get(kind, 0) + 1
    words = {"data": "data sets", "train": "runs", "probe": "evaluations", "report": "report"}
    said = ", ".join(f"{number} {words[kind]}" for kind, number in counts.items())
    numbers = sorted({(job.job_id or "").partition("_")[0] for job in writer.submitted})
    lines = [f"submitted: {said} (jobs {numbers[0]} to {numbers[-1]})" if numbers else "submitted: nothing"]
    if decision.adopted:
        lines.append(f"in Slurm already: {len(decision.adopted)}")
    return lines + [f"{task.job.label}: not submitted, {why}" for task, why in decision.refused]
