"""A study on this machine: data first, then every missing run and evaluation, a few at a time. Torch-free.

A task that fails stops only those that need it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from launch.local.process import Outcome, RunningTask, StopRequest, stop_all
from launch.plan.command_lines import job_environment
from launch.plan.targets import LocalTarget, overlaps, side_by_side
from launch.tasks import Kind, Task

POLL_S = 0.2  # between two looks at what runs: short beside the start of any task


class Watcher(Protocol):
    """Follows the tasks of a study."""

    def started(self, task: Task) -> None:
        """A task was started."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """A task ended."""

    def skipped(self, task: Task, because: Task) -> None:
        """A task is not started, because one that it needs failed."""

    def tick(self, running: list[Task]) -> None:
        """Called several times a second."""


@dataclass
class _Slots:
    """Which slots of the machine are taken: ``runs`` for everything, ``extra`` for evaluations alone."""

    runs: int
    extra: int
    taken: dict[int, str] = field(default_factory=dict)

    def free(self, kind: Kind) -> int | None:
        """Number of a slot for a task of ``kind``; None where all are taken."""
        own = range(self.runs, self.runs + self.extra) if kind == "probe" and self.extra else range(self.runs)
        return next((slot for slot in own if slot not in self.taken), None)

    def release(self, key: str) -> None:
        self.taken = {slot: taker for slot, taker in self.taken.items() if taker != key}


def run_local(
    tasks: Sequence[Task], target: LocalTarget, *, watcher: Watcher, stop: StopRequest, lock: int
) -> Mapping[str, Outcome]:
    """Run ``tasks`` and return how each that was started ended, by key. A request to stop ends all of them.

    lock: descriptor that every task inherits, so that the study stays locked until the last of them has ended.
    """
    runner = _Runner(tasks, target, watcher, lock)
    try:
        while runner.waiting or runner.running:
            if stop.count:
                runner.waiting.clear()
                runner.collect(stop_all(list(runner.running.values()), hurry=stop))
                break
            runner.skip_unreachable()
            runner.start_ready()
            ended = [outcome for task in runner.running.values() if (outcome := task.poll()) is not None]
            runner.collect(ended)
            watcher.tick([running.task for running in runner.running.values()])
            if runner.running and not ended:
                time.sleep(POLL_S)
    finally:  # nothing survives an error of our own
        stop_all(list(runner.running.values()), hurry=stop)
    return runner.outcomes


class _Runner:
    """The tasks that wait, those that run, and how the others ended."""

    def __init__(self, tasks: Sequence[Task], target: LocalTarget, watcher: Watcher, lock: int) -> None:
        self.waiting = list(tasks)
        self.running: dict[str, RunningTask] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._lost: dict[str, Task] = {}
        self._target, self._watcher, self._lock = target, watcher, lock
        self._overlap = overlaps(target)
        self._slots = _Slots(side_by_side(target), extra=int(self._overlap))

    def skip_unreachable(self) -> None:
        """Drop every task that needs one that failed."""
        for task, because in _unreachable(self.waiting, self._lost):
            self.waiting.remove(task)
            self._lost[task.key] = because
            self._watcher.skipped(task, because)

    def start_ready(self) -> None:
        """Start every task for which there is a slot and whose needs have finished."""
        for task in list(self.waiting):
            pending = {other.key for other in self.waiting} | set(self.running)
            slot = self._slots.free(task.kind)
            if slot is None or pending & set(task.needs):
                continue
            self.waiting.remove(task)
            self._slots.taken[slot] = task.key
            placed = _placed(task, slot, self._target, self._overlap)
            self.running[task.key] = RunningTask(placed, keep_open=[self._lock])
            self._watcher.started(task)

    def collect(self, ended: Sequence[Outcome]) -> None:
        """Free the slots of the tasks that ended."""
        for outcome in ended:
            task = outcome.task
            del self.running[task.key]
            self._slots.release(task.key)
            self.outcomes[task.key] = outcome
            if outcome.state != "finished":
                self._lost[task.key] = task
            self._watcher.ended(task, outcome)


def _unreachable(waiting: list[Task], failed: Mapping[str, Task]) -> list[tuple[Task, Task]]:
    """Tasks that can never start, each with the failed one that it needs."""
    found = []
    lost = dict(failed)
    for task in waiting:
        because = next((lost[need] for need in task.needs if need in lost), None)
        if because is not None:
            lost[task.key] = because
            found.append((task, because))
    return found


def _placed(task: Task, slot: int, target: LocalTarget, overlap: bool) -> Task:
    """The task with the environment variables of its slot."""
    runs = side_by_side(target)
    busy = target.ranks * runs
    if task.kind == "probe" and overlap:
        variables = job_environment(processes=task.processes, side_by_side=busy + 1, first_gpu=busy)
    elif task.kind == "data":
        variables = job_environment(processes=1)
    else:
        first_gpu = None if runs == 1 else slot * target.ranks
        variables = job_environment(processes=task.processes, side_by_side=runs, first_gpu=first_gpu)
    return replace(task, environment=variables)
