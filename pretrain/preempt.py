"""Signals that ask a run to stop. A handler only sets a flag; the loop saves and leaves at the next step boundary."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

# Slurm sends USR2 ahead of a time limit or a preemption (as submitit asks it to), and TERM at the end.
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
# What a run that was asked to stop, and saved, exits with (EX_TEMPFAIL: try again later).
EXIT_CODE = 75


class Preemption:
    """Whether this process was asked to stop (``requested``), and whether all ranks agreed to (``agreed``)."""

    def __init__(self) -> None:
        self.requested = False
        self.agreed = False
        self.signal_name: str | None = None

    def install(self) -> Preemption:
        """Listen for the signals from now on, and for those that were blocked so far; call from the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.signal_name = signal.Signals(number).name


def hold_back_signals() -> None:
    """Let the signals wait from now on, also in the program that this process becomes, until ``install``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextlib.contextmanager
def helpers_shielded() -> Iterator[None]:
    """Threads and processes that are started inside never see the signals, which Slurm sends to all of a job's.

    A rank's helpers (loader threads, wandb's process) must live until its checkpoint is written.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
