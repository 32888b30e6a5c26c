"""Tasks as processes of this machine: started with a log and a record, watched, and stopped when asked to."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from launch.plan.command_lines import command_line
from launch.state import TaskRecord, write_record
from launch.tasks import Task
from pretrain.lock import process_started
from pretrain.preemption import EXIT_CODE as PREEMPTED

# torchrun gives its ranks 30 s after SIGTERM before it kills them, and a run saves a checkpoint in that time.
GRACE_S = 45.0
TAIL_LINES = 30  # of a failed task's log: a Python traceback and what led to it


@dataclass(frozen=True)
class Outcome:
    """How a task ended. ``tail``: last lines of its output, where it failed."""

    task: Task
    state: str  # finished, failed or stopped
    exit_status: int
    seconds: float
    tail: str = ""


class RunningTask:
    """A started task: a process group of its own, so that a terminal's Ctrl-C reaches the launcher alone."""

    def __init__(self, task: Task, *, keep_open: Sequence[int] = ()) -> None:
        """Start ``task``; it inherits the descriptors ``keep_open``. Raises OSError where it cannot be started."""
        self.task = task
        self.started = time.time()
        self._stopping = False
        self._descendants: list[int] = []
        self._outcome: Outcome | None = None
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("ab") as log:
            log.write(f"$ {command_line(task.command)}\n".encode())
            log.flush()
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                task.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **task.environment},
                start_new_session=True,
                pass_fds=tuple(keep_open),
            )
        self._process_started = process_started(self._process.pid)
        self._record("running")

    def poll(self) -> Outcome | None:
        """How it ended; None while it runs."""
        status = self._process.poll()
        if self._outcome is None and status is not None:
            self._outcome = self._end(status)
        return self._outcome

    def _end(self, status: int) -> Outcome:
        self._kill_descendants()
        missing = self.task.result is not None and not self.task.result.is_file()
        if not missing and status == 0:
            state = "finished"
        else:
            state = "stopped" if self._stopping or status == PREEMPTED else "failed"
        self._record(state, status)
        tail = ""
        if state == "failed":
            tail = readable_tail(self.task.log, self._log_start)
            if status == 0:
                tail += f"\n(ended with exit status 0, but without {self.task.result})"
        return Outcome(self.task, state, status, time.time() - self.started, tail)

    def ask_to_stop(self) -> None:
        """SIGTERM to its process group: a run saves a checkpoint and ends."""
        self._stopping = True
        self._descendants = descendants(self._process.pid)
        _signal_group(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and to all that it started, in any process group (torchrun gives each rank its own)."""
        self._stopping = True
        self._descendants = [*descendants(self._process.pid), *self._descendants]
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._kill_descendants()

    def _kill_descendants(self) -> None:
        """Kill the processes that a stopped task has left behind, if any."""
        for pid in self._descendants:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _record(self, state: str, status: int | None = None) -> None:
        record = TaskRecord.model_validate(
            {
                "stage": self.task.stage,
                "state": state,
                "command": command_line(self.task.command),
                "host": platform.node(),
                "pid": self._process.pid,
                "process_started": self._process_started,
                "started": self.started,
                "ended": None if status is None else time.time(),
                "exit_status": status,
            }
        )
        write_record(self.task.directory, record)


def stop_all(running: Sequence[RunningTask], *, hurry: StopRequest, grace_s: float = GRACE_S) -> list[Outcome]:
    """Ask every task to stop; kill those that run after ``grace_s`` or at a second signal. Returns how they ended."""
    for task in running:
        task.ask_to_stop()
    deadline = time.monotonic() + grace_s
    first = hurry.count
    while any(task.poll() is None for task in running):
        if time.monotonic() > deadline or hurry.count > first:
            for task in running:
                task.kill()
        time.sleep(0.05)
    return [outcome for task in running if (outcome := task.poll()) is not None]


class StopRequest:
    """Counts the signals that ask the launcher to stop; its loop looks at the count."""

    def __init__(self) -> None:
        self.count = 0
        self.number: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen for Ctrl-C, SIGTERM and a closed terminal inside the block; call from the main thread."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # by nohup
        heard = [number for number in numbers if not (ignored and number == signal.SIGHUP)]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = number


def descendants(pid: int) -> list[int]:
    """Processes that ``pid`` started, and theirs, deepest first."""
    try:
        return [process.pid for process in reversed(psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return []


def readable_tail(log: Path, start: int = 0, lines: int = TAIL_LINES) -> str:
    """Last lines of ``log`` after byte ``start``, without what torchrun adds about the failure of its ranks."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - 2**18))  # 256 KiB hold the lines asked for; a log may have gigabytes
        text = file.read().decode(errors="replace")
    kept = [line.rpartition("\r")[2] for line in text.rstrip().split("\n")]
    report = next((number for number, line in enumerate(kept) if _FAILURE_REPORT.match(line)), None)
    own = [line for line in kept[:report] if not _TORCHRUN_LINE.match(line)]
    return "\n".join((own or kept)[-lines:])


_TORCHRUN_LINE = re.compile(r"^[EW]\d{4} [\d:.]+ \d+ \S*torch/distributed/elastic/")
_FAILURE_REPORT = re.compile(_TORCHRUN_LINE.pattern.replace("[EW]", "E") + r".* failed \(exitcode")


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
