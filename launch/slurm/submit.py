"""A study on Slurm: submit what is missing, adopt the jobs that are there, and return at once. Torch-free.

Runs are elements of a job array; each evaluation waits until its own run has finished, the report until everything has
ended. `decide` sorts the missing tasks, `submit_missing` carries that out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from launch.plan.command_lines import command_line
from launch.plan.targets import SlurmTarget
from launch.slurm.jobs import SlurmJob, attempts, found_again, job_name, latest, read_jobs, with_endings, write_jobs
from launch.slurm.queue import Queue, SchedulerSilent, cancel_jobs, read_queue
from launch.slurm.sbatch import NotSubmitted, sbatch_text, submit
from launch.snapshot import Snapshot
from launch.tasks import Task, report_task
from pretrain.errors import ConfigError, Problem

# A job that was cancelled a moment ago still writes its checkpoint; Slurm's own limit (KillWait) is 30 s.
ENDING_S = 90.0
POLL_S = 0.5  # squeue is asked this often while jobs end


@dataclass
class Decision:
    """What happens to every missing task.

    submit: those that get a new job. adopted: those whose job is there. cancel: numbers of jobs that wait for a job
    that is gone. refused: those that get no job, each with the reason. alive: number of the job of every adopted task,
    by key.
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
        number = job.job_id if job is not None and job.ending is None and job.job_id in queue else None
        if job is not None and number is not None:
            if _waits_for_its_needs(job, task, decision):
                decision.adopted.append(task)
                decision.alive[task.key] = number
                continue
            decision.cancel.append(number)
        because = next((unreachable[need] for need in task.needs if need in unreachable), None)
        if because is not None:
            unreachable[task.key] = because
            decision.refused.append((task, f"needs {because.label}, which is not submitted"))
        elif (failed := attempts(jobs, task.key)) >= max_attempts:
            unreachable[task.key] = task
            decision.refused.append((task, f"failed {failed} times; see its log, then `launch retry`"))
        else:
            decision.submit.append(task)
    return decision


def _waits_for_its_needs(job: SlurmJob, task: Task, decision: Decision) -> bool:
    """False for a job that waits for another that is gone; Slurm will cancel it for that."""
    needed = [decision.alive.get(need) for need in task.needs]
    return all(number is not None and number in job.after for number in needed)


def dependency(task: Task, numbers: Mapping[str, str]) -> tuple[str, ...]:
    """Numbers of the jobs that ``task`` has to wait for, given the number of each task's job."""
    return tuple(numbers[need] for need in task.needs if need in numbers)


def settled_queue(jobs: Sequence[SlurmJob]) -> Queue:
    """Slurm's queue once none of ``jobs`` is just ending, or after a while. Raises SchedulerSilent."""
    ours = {job.job_id for job in jobs if job.ending is None}
    deadline = time.monotonic() + ENDING_S
    while True:
        queue = read_queue(ours)
        if queue is None:
            raise SchedulerSilent("squeue does not answer, so what runs is not known; nothing is submitted, try again")
        ending = [number for number, row in queue.items() if number in ours and row.is_ending]
        if not ending or time.monotonic() > deadline:
            return queue
        time.sleep(POLL_S)


def submit_missing(snapshot: Snapshot, target: SlurmTarget, queue: Queue, console: Console) -> int:
    """Submit what is missing of the study; returns 0, or 1 where a task gets no job.

    queue: read before the snapshot was taken, so that a job that ends in between shows its result. Raises ConfigError
    where Slurm refuses a job.
    """
    directory, tasks = snapshot.graph.directory, snapshot.missing
    jobs = with_endings(directory, found_again(read_jobs(directory), queue), queue)
    decision = decide(tasks, jobs, queue, max_attempts=target.max_attempts)
    writer = _Submission(snapshot, target, jobs)
    writer.submit_all(decision)
    waits_for = tuple(dict.fromkeys(writer.numbers[task.key] for task in tasks if task.key in writer.numbers))
    decision.cancel += writer.submit_report(latest(jobs).get(report_task(snapshot.graph).key), queue, waits_for)
    cancel_jobs(decision.cancel)
    for line in _summary(decision, writer):
        console.print(line, markup=False, soft_wrap=True)
    return 1 if decision.refused else 0


def show_scripts(snapshot: Snapshot, target: SlurmTarget, console: Console) -> None:
    """Print the script of every kind of job that would be submitted if nothing had been yet; submits nothing."""
    directory, name = snapshot.graph.directory, snapshot.graph.config.name
    by_kind: dict[tuple[str, int], list[Task]] = {}
    for task in snapshot.missing:
        by_kind.setdefault((task.kind, task.processes), []).append(task)
    report = report_task(snapshot.graph)
    for same in [*by_kind.values(), [report]]:
        task, kind = same[0], same[0].kind
        after = f"afterok:<{task.needs[0].split()[0]}>" if task.needs else None
        text = sbatch_text(
            directory,
            target,
            kind,
            name=f"{name}-{kind}",
            count=len(same) if kind == "train" else 1,
            processes=task.processes,
            after="afterany:<all>" if task is report else after,
        )
        title = "report" if task is report else f"{len(same)} x {kind}"
        console.print(f"# {title}: {command_line(task.command)}", markup=False, soft_wrap=True)
        console.print(text, markup=False, soft_wrap=True)


class _Submission:
    """Submits tasks, and keeps jobs.json complete at every moment."""

    def __init__(self, snapshot: Snapshot, target: SlurmTarget, jobs: Sequence[SlurmJob]) -> None:
        self._snapshot, self._graph, self._target = snapshot, snapshot.graph, target
        self._jobs = list(jobs)
        self.numbers: dict[str, str] = {}
        self.submitted: list[SlurmJob] = []
        write_jobs(self._graph.directory, self._jobs)

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
        if waits_for or self._snapshot.report_is_old:
            self.submit([report_task(self._graph)], waits_for, "afterany")
        return [old.job_id] if old is not None and old.job_id is not None and is_there else []

    def _entry(self, task: Task, name: str, after: tuple[str, ...], index: int | None) -> SlurmJob:
        directory, result = self._graph.directory, task.result
        inside = result is not None and result.is_relative_to(directory)
        point = task.point.entry if task.point is not None else None
        return SlurmJob(
            key=task.key,
            stage=task.stage,
            point=point.name if point else "",
            directory=point.directory if point else "",
            result=str(result.relative_to(directory)) if inside and result is not None else None,
            command=command_line(task.command),
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
    listed = ", ".join(f"{number} {words[kind]}" for kind, number in counts.items())
    numbers = sorted({(job.job_id or "").partition("_")[0] for job in writer.submitted})
    lines = [f"submitted: {listed} (jobs {numbers[0]} to {numbers[-1]})" if numbers else "submitted: nothing"]
    if decision.adopted:
        lines.append(f"in Slurm already: {len(decision.adopted)}")
    return lines + [f"{task.label}: not submitted, {why}" for task, why in decision.refused]
