"""The console while a study runs: one bar for all of it, one for each running task; plain lines in a pipe."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from launch.local.process import Outcome
from launch.snapshot import Snapshot
from launch.state import PointState, evaluation_top1, point_state
from launch.tasks import Task
from pretrain.format import duration

REFRESH_S = 0.5  # of the bars
LINE_EVERY_S = 30.0  # in a pipe, where every line stays


class Progress:
    """Shows how the tasks of a study go; a `launch.local.run.Watcher`."""

    def __init__(self, snapshot: Snapshot, console: Console) -> None:
        self._graph, self._console = snapshot.graph, console
        self._number = {task.key: number for number, task in enumerate(snapshot.missing, start=1)}
        self._total = sum(point.images_seen for point in snapshot.graph.points)
        self._seen = {state.point.name: state.images_seen for state in snapshot.states}
        self._began, self._at_start = time.monotonic(), sum(self._seen.values())
        self._paced = False
        self._next_look = self._next_line = 0.0
        self._causes: set[str] = set()  # last lines of the tasks that failed
        self._bars: Bars | None = None
        self._overall: TaskID | None = None
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._bars.start()
            done = sum(self._seen.values())
            self._overall = self._bars.add_task("study", total=self._total or 1, completed=done, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            for row in self._rows.values():
                self._bars.remove_task(row)
            self._bars.stop()

    def note(self, text: str) -> None:
        """One line for a person."""
        self._console.print(text, markup=False, soft_wrap=True)

    def started(self, task: Task) -> None:
        """A task was started."""
        if self._bars is None:
            self.note(f"[{self._number[task.key]}/{len(self._number)}] {task.label}")
        else:
            total = task.point.plan.total_steps if task.kind == "train" and task.point is not None else None
            self._rows[task.key] = self._bars.add_task(f"  {task.label}", total=total, note="")
        self._next_line = time.monotonic() + LINE_EVERY_S

    def ended(self, task: Task, outcome: Outcome) -> None:
        """A task ended."""
        if self._bars is not None and task.key in self._rows:
            self._bars.remove_task(self._rows.pop(task.key))
        state = self._look(task)
        trained = task.kind == "train" and task.point is not None and task.point.images_seen > 0
        self._paced = self._paced or (trained and outcome.state == "finished")
        if outcome.state == "failed":
            self.failed(outcome)
        elif outcome.state == "stopped":
            self.note(f"{task.label}: stopped after {duration(outcome.seconds)}")
        else:
            self.note(f"{task.label}: done in {duration(outcome.seconds)}{self._gain(task, state)}{self._left()}")

    def failed(self, outcome: Outcome) -> None:
        """A task failed: print the end of its log; the last line alone where another failed with the same."""
        task = outcome.task
        self.note(f"{task.label}: FAILED with exit status {outcome.exit_status}; the end of {task.log}:")
        lines = outcome.tail.split("\n")
        known = lines[-1] in self._causes
        self._causes.add(lines[-1])
        self.note("\n".join(f"    {line}" for line in (lines[-1:] if known else lines)))

    def skipped(self, task: Task, because: Task) -> None:
        """A task is not started, because one that it needs failed."""
        self.note(f"{task.label}: not started, since {because.label} failed")

    def tick(self, running: list[Task]) -> None:
        """Read the progress of the runs, and show it."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + REFRESH_S
        for task in running:
            if task.kind != "train" or (state := self._look(task)) is None:
                continue  # an evaluation writes nothing before its result
            if self._bars is not None:
                self._bars.update(self._rows[task.key], completed=state.step or 0, note=_numbers(state))
            elif now >= self._next_line and state.step is not None:
                self.note(f"  {task.label}: {_numbers(state)}; study {self._share():.0%}{self._left()}")
                self._next_line = now + LINE_EVERY_S
        if self._bars is not None and self._overall is not None:
            left = self._left().removeprefix(", ")
            self._bars.update(self._overall, completed=sum(self._seen.values()), note=left)

    def _look(self, task: Task) -> PointState | None:
        if task.point is None:
            return None
        try:
            state = point_state(self._graph.directory, task.point.entry, self._graph.manifest.probes)
        except (OSError, ValueError):  # a shared file system that is slow to tell must not end the study
            return None
        self._seen[task.point.entry.name] = state.images_seen
        return state

    def _gain(self, task: Task, state: PointState | None) -> str:
        """What the task has brought: its speed, or its accuracy."""
        if task.kind == "train":
            return f", {state.images_per_second:,.0f} images/s" if state is not None and state.images_per_second else ""
        if task.point is None or task.result is None:
            return ""
        top1 = evaluation_top1(self._graph.directory, task.point.entry, task.result)
        return "" if top1 is None else f", top-1 {top1:.2f} %"

    def _share(self) -> float:
        return sum(self._seen.values()) / self._total if self._total else 1.0

    def _left(self) -> str:
        """Time that the rest takes at the pace since the start, evaluations and start-up included.

        Nothing before a whole run has set the pace: the first minutes are start-up.
        """
        done = sum(self._seen.values())
        if not self._paced or done <= self._at_start or done >= self._total:
            return ""
        pace = (time.monotonic() - self._began) / (done - self._at_start)
        return f", about {duration(pace * (self._total - done))} left"


def _numbers(state: PointState) -> str:
    parts = [f"step {state.step or 0:,}/{state.total_steps or 0:,}"]
    if state.loss is not None:
        parts.append(f"loss {state.loss:.4f}")
    if state.images_per_second:
        parts.append(f"{state.images_per_second:,.0f} images/s")
    return ", ".join(parts)
